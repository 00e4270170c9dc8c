//! Against PostgreSQL, which really detects the deadlocks.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Barrier;
use waangu_kernel::manifest::Manifest;
use waangu_tenancy::admin::Migration;
use waangu_tenancy::{HomeState, ModulePackage};
use waangu_testkit::{Access, Cell, Tier, cell};

use super::*;
use crate::Host;

/// Move stock.
#[derive(Debug)]
struct Move;

impl Permit for Move {
    const PERMISSION: &'static str = "stock:move";
}

const MANIFEST: &str = "id = 'stock'\nversion = '0.1.0'\ntitle = { en = 'Test' }\nroutes = []\n\
                        [permissions]\n[roles]\n";

const TABLES: &str = "create table level (
                          tenant_id bigint not null default waangu.tenant()
                        , id bigint not null
                        , amount bigint not null
                        , primary key (tenant_id, id)
                      )";

/// What locks a level until the transaction ends.
const RAISE: &str = "update level set amount = amount + 1 where id = $1";

/// Somebody who may write in a tenant of the module, which has two levels at zero.
async fn somebody(cell: &Cell) -> Authorized<Move> {
    let manifest = Manifest::parse(MANIFEST).unwrap();
    let (tenant, placement) = cell.tenant(Tier::Shared);
    let stock = manifest.id.clone();
    let step = Migration {
        name: "step".to_owned(),
        sql: TABLES.to_owned(),
    };
    let package = ModulePackage {
        manifest,
        migrations: vec![step],
    };
    let admin = &cell.admin;
    admin.ensure_place(tenant, &placement).await.unwrap();
    let installed = admin.ensure_module(tenant, &placement, &package).await;
    installed.unwrap();
    let open = admin.put_home(tenant, &placement, HomeState::Active).await;
    open.unwrap();
    let context = waangu_testkit::context(tenant, &placement, &stock, Access::Write, &cell.key);
    let auth = Authorized::of(Host::with(&package.manifest, cell.pools(&stock)), context);
    let tx = auth.begin();
    let sql = "insert into level (id, amount) values (1, 0), (2, 0)";
    tx.execute_and_commit(sql, &[]).await.unwrap();
    auth
}

/// Raises two levels. At the first attempt, whoever has the first waits for the other to have the
/// second.
async fn raise_both(
    mut tx: TenantTx,
    (first, second): (i64, i64),
    meeting: Option<&Barrier>,
) -> Result<(), Fault> {
    tx.execute(RAISE, &[&first]).await?;
    if let Some(meeting) = meeting {
        meeting.wait().await;
    }
    tx.execute(RAISE, &[&second]).await?;
    tx.commit().await
}

async fn amounts(auth: &Authorized<Move>) -> Vec<i64> {
    let sql = "select amount from level order by id";
    let rows = auth.begin().query_and_commit(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Two requests that lock the same rows in opposite orders: one of them is rolled back through no
/// fault of its own, and its user should not hear of it.
#[tokio::test]
async fn a_deadlock_is_run_again() {
    let cell = cell().await;
    let auth = somebody(&cell).await;

    // Without the retry, one of them fails.
    let meeting = Barrier::new(2);
    let (one, other) = tokio::join!(
        raise_both(auth.begin(), (1, 2), Some(&meeting)),
        raise_both(auth.begin(), (2, 1), Some(&meeting)),
    );
    let failed = [one, other].into_iter().filter_map(Result::err);
    let failed: Vec<Fault> = failed.collect();
    let states: Vec<Option<&str>> = failed.iter().map(sql_state).collect();
    assert_eq!(states, [Some("40P01")]);
    assert_eq!(amounts(&auth).await, [1, 1]);

    // With it, both are done.
    let attempts = AtomicU32::new(0);
    let retried = async |order| {
        let mut meeting = Some(&meeting);
        let work = |tx| {
            attempts.fetch_add(1, Ordering::Relaxed);
            raise_both(tx, order, meeting.take())
        };
        auth.transact(work).await
    };
    let (one, other) = tokio::join!(retried((1, 2)), retried((2, 1)));
    one.unwrap();
    other.unwrap();
    assert_eq!(attempts.load(Ordering::Relaxed), 3, "one of two ran again");
    assert_eq!(amounts(&auth).await, [3, 3]);
}

/// A retry without an end, or of what may have happened already, does more harm than the failure.
#[tokio::test]
async fn only_what_was_rolled_back_is_run_again_and_not_for_ever() {
    let cell = cell().await;
    let mut auth = somebody(&cell).await;
    let failing = async |auth: &Authorized<Move>, state: &str| {
        let raise = format!("do $$ begin raise exception using errcode = '{state}'; end $$");
        let mut attempts = 0;
        let raise = &raise;
        let work = |mut tx: TenantTx| {
            attempts += 1;
            async move {
                tx.execute(RAISE, &[&1_i64]).await?;
                tx.execute(raise, &[]).await?;
                tx.commit().await
            }
        };
        let failed = auth.transact(work).await.unwrap_err();
        assert_eq!(sql_state(&failed), Some(state));
        attempts
    };
    assert_eq!(failing(&auth, "40001").await, 3);
    assert_eq!(failing(&auth, "40P01").await, 3);
    assert_eq!(failing(&auth, "57014").await, 1, "cancelled from outside");
    assert_eq!(failing(&auth, "23505").await, 1, "a constraint");
    assert_eq!(amounts(&auth).await, [0, 0]);
    auth.hurry(PAUSE / 4);
    let begun = Instant::now();
    let mut attempts = 0;
    let work = |_tx| {
        attempts += 1;
        async {
            // As an attempt that took all the time would leave it.
            sleep(PAUSE).await;
            Err::<(), Fault>(rolled_back())
        }
    };
    auth.transact(work).await.unwrap_err();
    assert_eq!(attempts, 1, "after {:?}", begun.elapsed());
}

/// What a transaction that was rolled back answers.
fn rolled_back() -> Fault {
    waangu_kernel::fault::DATABASE_UNAVAILABLE
        .fault("rolled back")
        .cause("deadlock detected [40P01]")
}
