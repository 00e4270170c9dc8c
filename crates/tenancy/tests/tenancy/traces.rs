//! What a tenant's statements leave in a connection: nothing that the next tenant meets.

use waangu_identity::proof::Access;
use waangu_kernel::placement::Tier;
use waangu_tenancy::{Limits, TenantTx, sql_state};

use crate::support::{Home, module, state};

/// Takes the defence against hidden settings away, in one database.
pub(crate) const SET_CONFIG_FOR_ALL: &str = "
    grant execute on function set_config(text, text, boolean) to public;
    grant update on pg_settings to public";
const SET_CONFIG_FOR_NOBODY: &str = "
    revoke execute on function set_config(text, text, boolean) from public;
    revoke update on pg_settings from public";

/// The next borrower of a connection must find nothing of the last: not its settings, role, cursors,
/// listeners, nor a statement planted in the place of one of the driver's.
#[tokio::test]
async fn the_next_borrower_meets_no_trace() {
    let one = Home::new(Tier::Schema).await;
    let two = one.neighbour().await;
    one.stock_up(1, "of one").await;
    two.stock_up(1, "of two").await;
    for poison in [
        "set role waangu_module",
        "set timezone = 'Pacific/Kiritimati'",
        "reset all",
        "declare c cursor with hold for select * from product",
        "listen planted",
        "prepare planted as select 1",
        "deallocate all",
        "/* select */ listen planted",
        "do $$ begin perform 1; end $$",
    ] {
        let mut tx = one.write().await;
        let process = "select pg_backend_pid(), current_user = session_user";
        let row = tx.query_opt(process, &[]).await.unwrap().unwrap();
        let spoilt: i32 = row.get(0);
        tx.execute(poison, &[]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(two.names().await, ["of two"], "{poison}");
        let mut tx = two.write().await;
        let row = tx.query_opt(process, &[]).await.unwrap().unwrap();
        assert_ne!(
            row.get::<_, i32>(0),
            spoilt,
            "{poison}: the same connection"
        );
        assert!(row.get::<_, bool>(1), "{poison}");
    }
}

/// A query that changes the session is not told from any other. What was read meanwhile – here the
/// constant of a prepared statement, in the attacker's time zone – would be the next tenant's wrong answer.
#[tokio::test]
async fn no_query_changes_what_the_next_tenant_meets() {
    let poisons = [
        "select set_config('timezone', 'Pacific/Kiritimati', false)",
        "with s as materialized (select set_config('timezone', 'Pacific/Kiritimati', false)) table s",
        "update pg_settings set setting = 'Pacific/Kiritimati' where name = 'TimeZone'",
    ];
    for poison in poisons {
        let one = Home::new(Tier::Schema).await;
        let two = one.neighbour().await;
        let admin = one.superuser().await;
        let limits = Limits {
            per_cell: 1,
            ..Limits::default()
        };
        for (grants, refused) in [(SET_CONFIG_FOR_ALL, false), (SET_CONFIG_FOR_NOBODY, true)] {
            admin.batch_execute(grants).await.unwrap();
            let pools = one.cell.limited_pools(&module("stock"), limits);
            let mut tx = TenantTx::begin(&pools, &one.context(Access::Write))
                .await
                .unwrap();
            let done = tx.query(poison, &[]).await;
            if refused {
                let fault = done.unwrap_err();
                assert_eq!(sql_state(&fault), Some("42501"), "{poison}");
                drop(tx);
            } else {
                done.unwrap();
                hour(&mut tx).await;
                tx.commit().await.unwrap();
            }
            let mut tx = TenantTx::begin(&pools, &two.context(Access::Read))
                .await
                .unwrap();
            let wrong = hour(&mut tx).await != "0";
            assert_eq!(wrong, !refused, "{poison}");
            assert_eq!(pools.stats()[0].1.opened, 1, "{poison}: one connection");
        }
    }
}

/// The hour of a time that a statement holds as a constant.
async fn hour(tx: &mut TenantTx) -> String {
    let sql = "select extract(hour from '2026-01-01'::timestamptz at time zone
                   (select reset_val from pg_settings where name = 'TimeZone'))::text";
    let row = tx.query_opt(sql, &[]).await.expect("ask the hour");
    row.expect("an hour").get(0)
}

/// `random()` that starts where the last tenant said is known to it in advance.
#[tokio::test]
async fn no_query_sows_what_the_next_tenant_draws() {
    let one = Home::new(Tier::Schema).await;
    let admin = one.superuser().await;
    let outsider = one.outsider().await;
    let sow = "select setseed(0.5)";
    let give = "grant execute on function setseed(double precision) to public";
    admin.batch_execute(give).await.unwrap();
    let mut drawn = Vec::new();
    for _ in 0..2 {
        outsider.batch_execute(sow).await.unwrap();
        outsider.batch_execute("reset all").await.unwrap();
        let row = outsider.query_one("select random()", &[]).await.unwrap();
        drawn.push(row.get::<_, f64>(0).to_bits());
    }
    assert_eq!(drawn[0], drawn[1], "it works where it is allowed");
    let take = "revoke execute on function setseed(double precision) from public";
    admin.batch_execute(take).await.unwrap();
    assert_eq!(state(outsider.batch_execute(sow).await), "42501");
}

/// A schema-tier tenant's names are looked up in its own schema, by a function that everybody may call:
/// it must not make other names stand before PostgreSQL's, nor outlive the transaction.
#[tokio::test]
async fn a_search_path_is_one_schema_for_one_transaction() {
    let home = Home::new(Tier::Shared).await;
    let outsider = home.outsider().await;
    outsider.batch_execute("begin").await.unwrap();
    let path = "select waangu.path('waangu, pg_catalog')";
    outsider.batch_execute(path).await.unwrap();
    let show = "select current_setting('search_path')";
    let row = outsider.query_one(show, &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "\"waangu, pg_catalog\"");
    outsider.batch_execute("commit").await.unwrap();
    let row = outsider.query_one(show, &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "stock");
}

/// A function of one tenant's schema that was first called by another tenant of the bucket would keep that
/// one's types for as long as the connection lives, and fail.
#[tokio::test]
async fn nobody_lends_a_function_other_types() {
    let one = Home::new(Tier::Schema).await;
    let two = one.neighbour().await;
    let admin = one.superuser().await;
    let (mut schemas, limits) = (
        Vec::new(),
        Limits {
            per_cell: 1,
            ..Limits::default()
        },
    );
    for home in [&one, &two] {
        let schema = home.context(Access::Read).schema().clone();
        let function = format!(
            "set search_path = {schema}; set role waangu_owner;
             create type mood as enum ('fine');
             create function feel(m mood) returns text language sql return 'fine';
             create function feel() returns text language plpgsql as
                 $$ declare v mood := 'fine'; begin return feel(v); end $$;
             reset role; reset search_path"
        );
        admin.batch_execute(&function).await.unwrap();
        schemas.push(schema);
    }
    for pinned in [false, true] {
        if pinned {
            let protect = format!(
                "call waangu.protect('{}', 'waangu_stock', '{{}}')",
                schemas[1]
            );
            admin.batch_execute(&protect).await.unwrap();
        }
        let pools = one.cell.limited_pools(&module("stock"), limits);
        let call = format!("select {}.feel()", schemas[1]);
        let tx = TenantTx::begin(&pools, &one.context(Access::Read)).await;
        tx.unwrap().query_and_commit(&call, &[]).await.unwrap();
        let tx = TenantTx::begin(&pools, &two.context(Access::Read)).await;
        let own = tx.unwrap().query_and_commit("select feel()", &[]).await;
        assert_eq!(own.is_ok(), pinned, "{own:?}");
        assert_eq!(pools.stats()[0].1.opened, 1, "one connection");
    }
}

/// What one tenant's statement said is another tenant's data.
#[tokio::test]
async fn nobody_reads_what_was_prepared_before() {
    let home = Home::new(Tier::Shared).await;
    for view in ["pg_prepared_statements", "pg_cursors"] {
        let mut tx = home.write().await;
        let sql = format!("select * from {view}");
        let fault = tx.query(&sql, &[]).await.unwrap_err();
        assert_eq!(sql_state(&fault), Some("42501"), "{view}");
        let mut tx = home.write().await;
        let function = view.trim_end_matches('s');
        let sql = format!("select * from {function}()");
        let fault = tx.query(&sql, &[]).await.unwrap_err();
        assert_eq!(sql_state(&fault), Some("42501"), "{function}");
    }
}
