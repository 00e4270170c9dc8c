//! What `waangu.enter` accepts: a fresh proof for this login, tenant, epoch and kind of access.

use std::pin::pin;

use futures_util::future::join_all;
use tokio_postgres::Client;
use waangu_identity::proof::{Access, ProofClaims};
use waangu_identity::{ContextKey, Proof, RequestContext};
use waangu_kernel::placement::Tier;
use waangu_kernel::{Clock as _, RequestId, SystemClock, UserId};
use waangu_tenancy::{HomeState, TenantTx, sql_state};

use crate::support::{Home, code, count, enter, state};

/// A module could otherwise write its own ticket to any client's data.
#[tokio::test]
async fn forged_and_altered_proofs_are_refused() {
    let home = Home::new(Tier::Shared).await;
    let two = home.neighbour().await;
    two.stock_up(1, "of two").await;
    let good = home.context(Access::Read);
    let own = format!("|{}|", home.tenant.number());
    let other = format!("|{}|", two.tenant.number());
    let forged = [
        with_proof(&good, |proof| proof.mac = "0".repeat(64)),
        with_proof(&good, |proof| proof.mac = String::new()),
        with_proof(&good, |proof| proof.mac = proof.mac.to_uppercase()),
        with_proof(&good, |proof| {
            proof.claims = proof.claims.replacen(&own, &other, 1);
        }),
        with_proof(&good, |proof| {
            proof.claims = proof.claims.replacen("|r|", "|w|", 1);
        }),
        with_proof(&good, |proof| proof.claims.push('x')),
        with_proof(&good, |proof| proof.claims = String::new()),
        with_proof(&good, |proof| proof.claims.push_str(&"|".repeat(2000))),
        with_proof(&good, |proof| proof.kid = 99),
    ];
    for context in forged {
        let result = TenantTx::begin(&home.pools, &context).await;
        assert_eq!(code(result), "context-refused", "{:?}", context.proof);
    }
    TenantTx::begin(&home.pools, &good).await.unwrap();
}

/// A genuine proof in the wrong hands, or too late, must be worth nothing.
#[tokio::test]
async fn a_proof_is_for_one_login_and_one_minute() {
    let home = Home::new(Tier::Shared).await;
    let now = SystemClock.unix_seconds();
    for (login, expires, refused) in [
        ("waangu_stock", now + 30, false),
        ("waangu_stock", now - 1, true),
        ("waangu_crm", now + 30, true),
        ("postgres", now + 30, true),
        ("", now + 30, true),
    ] {
        let claims = claims(&home, login, 1, expires);
        let context = with_proof(&home.context(Access::Write), |proof| {
            *proof = home.cell.key.prove(&claims);
        });
        let result = TenantTx::begin(&home.pools, &context).await;
        if refused {
            assert_eq!(code(result), "context-refused", "{login} {expires}");
        } else {
            result.unwrap();
        }
    }
    let stranger = ContextKey::new(home.cell.key.kid(), [8; 32]);
    let claims = claims(&home, "waangu_stock", 1, now + 30);
    let context = with_proof(&home.context(Access::Write), |proof| {
        *proof = stranger.prove(&claims);
    });
    let result = TenantTx::begin(&home.pools, &context).await;
    assert_eq!(code(result), "context-refused");
}

/// A tenant that has moved would be written in two places; a suspended one would still be served.
#[tokio::test]
async fn another_epoch_and_a_closed_home_say_retry() {
    // Each refusal waits for a move to end first; all at once, so that the test does not.
    join_all(Tier::ALL.map(async |tier| {
        let home = Home::new(tier).await;
        join_all([0, 2].map(async |epoch| {
            let expires = SystemClock.unix_seconds() + 30;
            let claims = claims(&home, "waangu_stock", epoch, expires);
            let context = with_proof(&home.context(Access::Write), |proof| {
                *proof = home.cell.key.prove(&claims);
            });
            let fault = TenantTx::begin(&home.pools, &context).await.unwrap_err();
            assert_eq!(fault.code(), "tenant-moving", "{tier}");
            assert_eq!(sql_state(&fault), Some("WG001"));
        }))
        .await;
        let admin = &home.cell.admin;
        admin
            .put_home(home.tenant, &home.placement, HomeState::Suspended)
            .await
            .unwrap();
        join_all([Access::Read, Access::Write].map(async |access| {
            assert_eq!(code(home.begin(access).await), "tenant-moving", "{tier}");
        }))
        .await;
        home.provision().await.unwrap();
        home.stock_up(1, "open again").await;
    }))
    .await;
}

/// A relocation waits for the last writer; one that slips in after it is lost with the old place.
#[tokio::test]
async fn a_frozen_tenant_lets_readers_in_and_no_writer() {
    let home = Home::new(Tier::Shared).await;
    let mover = home.superuser().await;
    let number = home.tenant.number();
    mover
        .execute("select pg_advisory_lock($1)", &[&number])
        .await
        .unwrap();
    assert_eq!(code(home.begin(Access::Write).await), "tenant-moving");
    home.begin(Access::Read).await.unwrap();
    mover
        .execute("select pg_advisory_unlock($1)", &[&number])
        .await
        .unwrap();
    let tx = home.write().await;
    let sql = "select pg_try_advisory_lock($1)";
    let row = mover.query_one(sql, &[&number]).await.unwrap();
    assert!(!row.get::<_, bool>(0), "a writer holds the freeze off");
    tx.commit().await.unwrap();
}

/// A GET with an injected UPDATE must not change anything.
#[tokio::test]
async fn a_read_proof_cannot_write() {
    let home = Home::new(Tier::Shared).await;
    home.stock_up(1, "kept").await;
    for sql in [
        "update product set name = 'changed'",
        "insert into product (id, name) values (2, 'new')",
        "delete from movement",
        "set transaction read write",
        "set transaction_read_only = off",
        "select set_config('transaction_read_only', 'off', true)",
    ] {
        let mut tx = home.begin(Access::Read).await.unwrap();
        tx.execute(sql, &[]).await.expect_err(sql);
        drop(tx);
        let mut tx = home.begin(Access::Read).await.unwrap();
        tx.query("select 1 from product", &[]).await.unwrap();
        tx.execute(sql, &[]).await.expect_err(sql);
    }
    assert_eq!(home.names().await, ["kept"]);
}

/// ROLLBACK TO SAVEPOINT undoes the read-only setting: if a seal were left, a read proof would become a
/// write proof.
#[tokio::test]
async fn a_savepoint_does_not_turn_reading_into_writing() {
    let home = Home::new(Tier::Shared).await;
    home.stock_up(1, "kept").await;
    let number = home.tenant.number();
    let set = format!("set local app.current_tenant = '{number}'");
    for sql in ["update product set name = 'changed'", "delete from product"] {
        let outsider = home.outsider().await;
        outsider.batch_execute("begin; savepoint s").await.unwrap();
        enter(&outsider, &home.context(Access::Read)).await.unwrap();
        outsider.batch_execute("rollback to s").await.unwrap();
        outsider.batch_execute(&set).await.unwrap();
        assert_eq!(count(&outsider, "product").await.unwrap(), 0, "unsealed");
        assert_eq!(outsider.execute(sql, &[]).await.unwrap(), 0, "{sql}");
        let insert = "insert into product (tenant_id, id, name) values ($1, 2, 'new')";
        assert_eq!(state(outsider.execute(insert, &[&number]).await), "42501");
    }
    assert_eq!(home.names().await, ["kept"]);
}

/// A relocation waits for the writers' locks and believes that then nobody writes any more. Whoever could
/// keep a seal without its lock would write in the old place after the tenant has left it: by going back
/// to a savepoint, or in the next transactions of the same message, which have the same start time.
#[tokio::test]
async fn no_seal_outlives_the_lock_that_it_came_with() {
    let home = Home::new(Tier::Dedicated).await;
    home.stock_up(1, "kept").await;
    let admin = home.superuser().await;
    // The seal as a setting of the session instead, to see that a late write is noticed.
    let weaken = "do $$ begin execute replace(pg_get_functiondef(
                      'waangu.enter(text, integer, text)'::regprocedure)
                    , 'v_tenant, true)', 'v_tenant, false)'); end $$";
    let restore = weaken.replace(
        "'v_tenant, true)', 'v_tenant, false)'",
        "'v_tenant, false)', 'v_tenant, true)'",
    );
    admin.batch_execute(weaken).await.unwrap();
    assert_eq!(
        late_write(&home, "{enter}; commit; begin; {set}").await,
        (false, true)
    );
    admin.batch_execute(&restore).await.unwrap();

    for (way, locked_and_writes) in [
        ("savepoint s; {enter}; rollback to s; {set}", (false, false)),
        ("{enter}; commit; begin; {set}", (false, false)),
        (
            "{enter}; commit; do $$ begin end $$; begin; {set}",
            (false, false),
        ),
        ("{enter}; rollback and chain; {set}", (false, false)),
        ("{enter}; reset all; {set}", (true, false)),
        (
            "{enter}; select pg_advisory_unlock_all(); {set}",
            (true, true),
        ),
        (
            "{enter}; select pg_advisory_unlock_shared({number})",
            (true, true),
        ),
        ("savepoint s; {enter}; release s", (true, true)),
        ("{enter}; savepoint s; rollback to s", (true, true)),
    ] {
        assert_eq!(late_write(&home, way).await, locked_and_writes, "{way}");
    }
    assert_eq!(home.names().await, ["kept"]);
}

/// Whether the tenant's lock is held, and a row can be written, after a message as a compromised module
/// may send it.
async fn late_write(home: &Home, way: &str) -> (bool, bool) {
    let number = home.tenant.number();
    let context = home.context(Access::Write);
    let Proof { claims, kid, mac } = &context.proof;
    let enter = format!("select waangu.enter('{claims}', {kid}, '{mac}')");
    let set = format!("set local app.current_tenant = '{number}'");
    let message = format!("begin; {way}")
        .replace("{enter}", &enter)
        .replace("{set}", &set)
        .replace("{number}", &number.to_string());
    let outsider = home.outsider().await;
    outsider.batch_execute(&message).await.expect(way);
    let held = is_held(&home.superuser().await, number).await;
    let insert = "insert into stock.product (tenant_id, id, name) values ($1, 2, 'late')";
    let wrote = outsider.execute(insert, &[&number]).await;
    let writes = wrote.is_ok();
    assert!(writes || state(wrote) == "42501", "{way}");
    outsider.batch_execute("rollback").await.expect("rollback");
    (held, writes)
}

/// A claim of many megabytes takes PostgreSQL a second to look at: with the lock of the tenant that it
/// names in hand, it would hold off that tenant's relocation for as long.
#[tokio::test]
async fn a_claim_that_no_gateway_makes_locks_nobody() {
    let home = Home::new(Tier::Dedicated).await;
    let mut longest = claims(&home, "waangu_stock", i64::MAX, i64::MAX);
    let (login, actor) = ("x".repeat(63), UserId::generate().to_string());
    let request = RequestId::generate().to_string();
    longest.login = &login;
    (longest.actor, longest.request) = (&actor, &request);
    let genuine = home.cell.key.prove(&longest).claims.len();
    assert!(
        genuine < 512,
        "the bound in core.sql is too near: {genuine}"
    );

    let number = home.tenant.number();
    let huge = "x".repeat(20_000_000);
    let claims = format!("v1|waangu_stock|{number}|1|9999999999|w|a|{huge}");
    let admin = home.superuser().await;
    let unbounded = "do $$ begin execute replace(pg_get_functiondef(
                         'waangu.enter(text, integer, text)'::regprocedure), '1024', '1000000000'); end $$";
    let bounded = unbounded.replace("'1024', '1000000000'", "'1000000000', '1024'");
    for (make, locks) in [(unbounded, true), (&*bounded, false)] {
        admin.batch_execute(make).await.unwrap();
        let outsider = home.outsider().await;
        let sql = format!("select waangu.enter('{claims}', 1, 'x')");
        let mut entering = pin!(outsider.batch_execute(&sql));
        let mut seen = 0;
        let entered = loop {
            tokio::select! {
                entered = &mut entering => break entered,
                held = is_held(&admin, number) => seen += u32::from(held),
            }
        };
        assert_eq!(state(entered), "42501");
        assert_eq!(seen > 0, locks, "seen {seen} times");
    }
}

/// Whether somebody holds a tenant's lock.
async fn is_held(admin: &Client, tenant: i64) -> bool {
    let sql = "select exists (select from pg_locks
                               where locktype = 'advisory' and objid::bigint = $1)";
    let row = admin.query_one(sql, &[&tenant]).await;
    row.expect("look at the locks").get(0)
}

/// An old snapshot shows the tenant where it was before it moved: writes would go to the old place.
#[tokio::test]
async fn only_read_committed_is_let_in() {
    let home = Home::new(Tier::Shared).await;
    for level in ["repeatable read", "serializable"] {
        let outsider = home.outsider().await;
        let begin = format!("begin isolation level {level}");
        outsider.batch_execute(&begin).await.unwrap();
        let entered = enter(&outsider, &home.context(Access::Write)).await;
        assert_eq!(state(entered), "42501", "{level}");
    }
}

fn claims<'a>(home: &Home, login: &'a str, epoch: i64, expires: i64) -> ProofClaims<'a> {
    ProofClaims {
        login,
        tenant: home.tenant.number(),
        epoch,
        expires,
        access: Access::Write,
        actor: "usr_test",
        request: "req_test",
    }
}

fn with_proof(context: &RequestContext, change: impl FnOnce(&mut Proof)) -> RequestContext {
    let mut context = context.clone();
    change(&mut context.proof);
    context
}

/// One injected `alter role` must not make every tenant's next connection useless.
#[tokio::test]
async fn a_logins_own_isolation_level_is_overruled() {
    let home = Home::new(Tier::Dedicated).await;
    // In this tenant's database only: other tests use the login, too.
    let database = home.database();
    let sql = format!(
        "alter role waangu_stock in database {database}
           set default_transaction_isolation = serializable"
    );
    home.outsider().await.batch_execute(&sql).await.unwrap();
    TenantTx::begin(&home.pools, &home.context(Access::Write))
        .await
        .unwrap();
}
