//! A transaction that leaves as one piece: what it means when something in it goes wrong, and what the
//! connection has to bear.

use std::error::Error;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::types::{FromSql, Kind, ToSql, Type};
use waangu_identity::proof::Access;
use waangu_kernel::Fault;
use waangu_kernel::placement::Tier;
use waangu_tenancy::{Limits, Pools, TenantTx, constraint, sql_state};

use crate::support::{Home, code, module};

const INSERT: &str = "insert into product (id, name) values ($1, $2)";
const WHO: &str = "select pg_backend_pid()";

/// One connection, so that whoever comes next meets what the last one left.
fn single(home: &Home) -> Pools {
    let limits = Limits {
        per_cell: 1,
        ..Limits::default()
    };
    home.cell.limited_pools(&module("stock"), limits)
}

fn lazy(home: &Home, pools: &Pools, access: Access) -> TenantTx {
    let deadline = Instant::now() + Duration::from_secs(20);
    TenantTx::lazy(pools, &home.context(access), deadline)
}

async fn add(home: &Home, pools: &Pools, id: i64, name: &str) -> Result<u64, Fault> {
    let tx = lazy(home, pools, Access::Write);
    tx.execute_and_commit(INSERT, &[&id, &name]).await
}

async fn process(home: &Home, pools: &Pools) -> i32 {
    let tx = lazy(home, pools, Access::Read);
    let rows = tx.query_and_commit(WHO, &[]).await.expect("who serves");
    rows.first().expect("a row").get(0)
}

/// Half of a transaction would be there although its request was refused; and a refusal that cost a
/// connection would let one tenant slow down all.
#[tokio::test]
async fn a_refused_piece_leaves_nothing_and_costs_no_connection() {
    let home = Home::new(Tier::Shared).await;
    let pools = single(&home);
    add(&home, &pools, 1, "one").await.unwrap();
    let served_by = process(&home, &pools).await;
    let first: [&(dyn ToSql + Sync); 2] = [&2_i64, &"half"];
    let twice: [&(dyn ToSql + Sync); 2] = [&1_i64, &"twice"];
    let tx = lazy(&home, &pools, Access::Write);
    let refused = tx
        .query_all_and_commit(&[(INSERT, &first), (INSERT, &twice)])
        .await;
    assert_eq!(constraint(&refused.unwrap_err()), Some("product_pkey"));
    assert_eq!(home.names().await, ["one"]);
    assert_eq!(process(&home, &pools).await, served_by);
}

/// What a deferred rule refuses is refused after the last statement: answering "done" would lose a row.
#[tokio::test]
async fn what_fails_at_the_end_is_told() {
    let home = Home::new(Tier::Dedicated).await;
    let deferred = "alter table stock.product add constraint product_name_key
                    unique (tenant_id, name) deferrable initially deferred";
    home.superuser()
        .await
        .batch_execute(deferred)
        .await
        .unwrap();
    let pools = single(&home);
    add(&home, &pools, 1, "one").await.unwrap();
    let refused = add(&home, &pools, 2, "one").await.unwrap_err();
    assert_eq!(constraint(&refused), Some("product_name_key"));
    assert_eq!(home.names().await, ["one"]);
    add(&home, &pools, 2, "two").await.unwrap();
}

/// Statements after a COMMIT of the module's own would run outside of the sealed transaction.
#[tokio::test]
async fn a_statement_can_neither_end_nor_begin_the_transaction_unnoticed() {
    let home = Home::new(Tier::Shared).await;
    let pools = single(&home);
    for sql in ["commit", "rollback", "commit and chain"] {
        let before = process(&home, &pools).await;
        let mut tx = lazy(&home, &pools, Access::Write);
        let done = tx.execute(sql, &[]).await;
        if sql == "commit and chain" {
            // It has begun the next one itself, without a seal.
            done.unwrap();
            let seen = tx.query("select from product", &[]).await.unwrap();
            assert!(seen.is_empty());
        } else {
            assert_eq!(code(done), "internal", "{sql}");
            assert_eq!(code(tx.query("select 1", &[]).await), "internal", "{sql}");
        }
        drop(tx);
        assert_ne!(process(&home, &pools).await, before, "{sql}: lent again");
    }
    // A begin in a block is a warning of PostgreSQL.
    let tx = lazy(&home, &pools, Access::Write);
    tx.execute_and_commit("begin", &[]).await.unwrap();
}

/// A statement whose answer nobody can read to its end leaves the rest of it on the wire. Going back to a
/// savepoint would take that rest for its own answer, and from then on each statement would get the answer
/// of the one before: somebody else's rows in a page, and a commit that is told as failed.
#[tokio::test]
async fn nothing_is_sent_after_an_answer_that_was_not_read() {
    let home = Home::new(Tier::Shared).await;
    let pools = single(&home);
    // The way back is prepared on the connection, as it is where savepoints are in use.
    let mut tx = lazy(&home, &pools, Access::Write);
    let point = tx.savepoint().await.unwrap();
    tx.roll_back_to(&point).await.unwrap();
    tx.query("select 1", &[]).await.unwrap();
    tx.query("select 2", &[]).await.unwrap();
    tx.commit().await.unwrap();

    let mut tx = lazy(&home, &pools, Access::Write);
    let point = tx.savepoint().await.unwrap();
    let copied = tx.query("copy (select 'injected') to stdout", &[]).await;
    assert_eq!(code(copied), "database-unavailable");
    let back = tx.roll_back_to(&point).await;
    if back.is_ok() {
        for expected in [1, 2] {
            let rows = tx.query(&format!("select {expected}"), &[]).await.unwrap();
            let answer: Option<i32> = rows.first().map(|row| row.get(0));
            assert_eq!(answer, Some(expected), "the answer of another statement");
        }
    }
    assert_eq!(code(back), "internal");
    drop(tx);
    assert_eq!(home.names().await, Vec::<String>::new());
}

/// A first flight is made again when its connection turns out to be unusable. One that has committed by
/// itself would book the same order nine times.
#[tokio::test]
async fn what_has_committed_by_itself_is_not_done_again() {
    let home = Home::new(Tier::Shared).await;
    let insert = "insert into product (id, name)
                  values ((select coalesce(max(id), 0) + 1 from product), 'once')";
    let unsupported = "do $$ begin raise exception using errcode = '0A000'; end $$";
    for (more, names) in [(&["commit"][..], 1), (&["commit", unsupported], 2)] {
        let mut tx = lazy(&home, &home.pools, Access::Write);
        let none: &[&(dyn ToSql + Sync)] = &[];
        let calls: Vec<_> = [insert]
            .iter()
            .chain(more)
            .map(|sql| (*sql, none))
            .collect();
        assert_eq!(code(tx.query_all(&calls).await), "internal");
        drop(tx);
        assert_eq!(home.names().await.len(), names, "{more:?}");
    }
}

/// A query writes its own error: one that is kept in full would fill the operator's log.
#[tokio::test]
async fn a_refusal_is_kept_as_far_as_it_helps() {
    let home = Home::new(Tier::Shared).await;
    let pools = single(&home);
    let served_by = process(&home, &pools).await;
    let tx = lazy(&home, &pools, Access::Read);
    let long = "select repeat('é', 5000000)::integer";
    let refused = tx.query_and_commit(long, &[]).await.unwrap_err();
    assert_eq!(sql_state(&refused), Some("22P02"));
    let cause = refused.operator_cause().expect("a cause");
    assert!(cause.len() < 3000, "{} bytes", cause.len());
    assert_eq!(process(&home, &pools).await, served_by);
}

/// A wrong parameter is a mistake of the module, not an outage, and nothing may have been sent.
#[tokio::test]
async fn parameters_that_do_not_fit_are_refused_before_anything_leaves() {
    let home = Home::new(Tier::Shared).await;
    let pools = single(&home);
    add(&home, &pools, 1, "one").await.unwrap();
    let served_by = process(&home, &pools).await;
    let wrong: [&[&(dyn ToSql + Sync)]; 3] = [&[], &[&2_i64], &[&2_i32, &"wrong"]];
    for params in wrong {
        let tx = lazy(&home, &pools, Access::Write);
        assert_eq!(
            code(tx.execute_and_commit(INSERT, params).await),
            "internal"
        );
    }
    let tx = lazy(&home, &pools, Access::Write);
    let zero = tx.execute_and_commit("select 'a\0b'", &[]).await;
    assert_eq!(code(zero), "internal");
    assert_eq!(process(&home, &pools).await, served_by);
    assert_eq!(home.names().await, ["one"]);
}

/// Both sides with full hands would wait for each other for ever.
#[tokio::test]
async fn much_can_be_on_its_way_in_both_directions() {
    let home = Home::new(Tier::Shared).await;
    let pools = single(&home);
    let much = "x".repeat(2_000_000);
    let params: [&(dyn ToSql + Sync); 1] = [&much];
    let calls = [("select $1 || $1", &params[..]); 12];
    for _ in 0..2 {
        let tx = lazy(&home, &pools, Access::Read);
        let rows = tx.query_all_and_commit(&calls).await.unwrap();
        let lengths = rows.iter().map(|rows| rows[0].get::<_, &str>(0).len());
        assert_eq!(lengths.sum::<usize>(), 12 * 4_000_000);
    }
}

/// After a restart of the server each idle connection is dead: none may cost a request.
#[tokio::test]
async fn a_connection_that_has_ended_is_noticed() {
    let home = Home::new(Tier::Dedicated).await;
    add(&home, &home.pools, 1, "one").await.unwrap();
    let end = "select count(pg_terminate_backend(pid, 2000)) from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid()";
    home.superuser().await.execute(end, &[]).await.unwrap();
    add(&home, &home.pools, 2, "two").await.unwrap();
    assert_eq!(home.names().await, ["one", "two"]);
}

/// A module's own types have numbers that only its database knows.
#[tokio::test]
async fn types_of_a_module_are_known() {
    let home = Home::new(Tier::Dedicated).await;
    let types = "create type stock.mood as enum ('sad', 'fine');
                 create domain stock.age as integer check (value >= 0);
                 create type stock.pair as (mood stock.mood, age stock.age);
                 grant usage on type stock.mood, stock.age, stock.pair to public;
                 grant usage on schema stock to public";
    home.superuser().await.batch_execute(types).await.unwrap();
    let mut tx = home.begin(Access::Read).await.unwrap();
    let sql = "select $1::stock.mood, array['sad', 'fine']::stock.mood[]
                    , row('fine', 3)::stock.pair, 3::stock.age";
    let row = tx
        .query(sql, &[&Mood("fine".to_owned())])
        .await
        .unwrap()
        .remove(0);
    assert_eq!(row.get::<_, Mood>(0), Mood("fine".to_owned()));
    assert_eq!(row.get::<_, Vec<Mood>>(1).len(), 2);
    assert_eq!(row.try_get::<_, Pair>(2).unwrap(), Pair);
    let refused = row.try_get::<_, String>(0).unwrap_err().to_string();
    assert!(refused.contains("mood"), "{refused}");
    assert!(row.try_get::<_, i64>("missing").is_err());
    tx.commit().await.unwrap();
    let mut tx = home.begin(Access::Read).await.unwrap();
    let unknown = tx.query(sql, &[&Mood("cross".to_owned())]).await;
    assert_eq!(sql_state(&unknown.unwrap_err()), Some("22P02"));
}

#[derive(Debug, PartialEq, Eq)]
struct Mood(String);

#[derive(Debug, PartialEq, Eq)]
struct Pair;

type Failed = Box<dyn Error + Sync + Send>;

impl<'a> FromSql<'a> for Mood {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Failed> {
        Ok(Self(String::from_utf8(raw.to_vec())?))
    }

    fn accepts(kind: &Type) -> bool {
        matches!(kind.kind(), Kind::Enum(labels) if labels == &["sad", "fine"])
    }
}

impl<'a> FromSql<'a> for Pair {
    fn from_sql(_: &Type, _: &'a [u8]) -> Result<Self, Failed> {
        Ok(Self)
    }

    fn accepts(kind: &Type) -> bool {
        let Kind::Composite(fields) = kind.kind() else {
            return false;
        };
        let age = fields.iter().find(|field| field.name() == "age");
        age.is_some_and(
            |field| matches!(field.type_().kind(), Kind::Domain(base) if *base == Type::INT4),
        )
    }
}

impl ToSql for Mood {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut bytes::BytesMut,
    ) -> Result<tokio_postgres::types::IsNull, Failed> {
        self.0.as_str().to_sql(kind, out)
    }

    fn accepts(kind: &Type) -> bool {
        kind.schema() == "stock" && kind.name() == "mood"
    }

    tokio_postgres::types::to_sql_checked!();
}
