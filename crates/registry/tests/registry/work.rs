//! Claims: one worker for one tenant, whatever becomes of the worker.

use std::collections::HashSet;
use std::time::Duration;

use waangu_registry::{Session, State};
use waangu_testkit::{Control, connect};

use crate::support::{create, session, world};

/// Two workers on one tenant would run the same migration twice, or delete what the other makes.
#[tokio::test]
async fn a_tenant_has_one_worker() {
    let control = world().await;
    let (mut one, mut two) = (session(&control).await, session(&control).await);
    let id = create(&mut one, "acme").await.unwrap();
    let claim = one.claim().await.unwrap().unwrap();
    assert_eq!(claim.tenant, id);
    assert!(two.claim().await.unwrap().is_none());
    assert!(one.claim().await.unwrap().is_none(), "it has it already");
    one.release(claim).await.unwrap();
    let claim = two.claim().await.unwrap().unwrap();
    assert!(one.claim().await.unwrap().is_none());
    let tx = two.begin().await.unwrap();
    tx.record_reached(id, 1, State::Active, &[], &[])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    two.release(claim).await.unwrap();
    assert!(
        one.claim().await.unwrap().is_none(),
        "nothing is left to do"
    );
}

/// A worker that panics or is cancelled would keep its tenant for as long as the pool keeps the
/// connection: nobody would ever finish it.
#[tokio::test]
async fn a_dropped_session_gives_its_tenant_back() {
    let control = world().await;
    let mut one = session(&control).await;
    create(&mut one, "acme").await.unwrap();
    one.claim().await.unwrap().unwrap();
    drop(one);
    wait_for_claim(&control).await;
}

/// After SIGKILL of a control process the next one goes on at once.
#[tokio::test]
async fn a_dead_connection_gives_its_tenant_back() {
    let control = world().await;
    let mut one = session(&control).await;
    create(&mut one, "acme").await.unwrap();
    one.claim().await.unwrap().unwrap();
    let admin = connect(&control.dsn).await.unwrap();
    let kill = "select pg_terminate_backend(pid) from pg_locks
                 where locktype = 'advisory' and pid <> pg_backend_pid()
                   and database = (select oid from pg_database where datname = current_database())";
    assert_eq!(admin.query(kill, &[]).await.unwrap().len(), 1);
    wait_for_claim(&control).await;
    assert!(
        one.claim().await.is_err(),
        "the dead session claims nothing"
    );
}

/// Slow tenants at the head of the queue must not stop everybody behind them.
#[tokio::test]
async fn busy_tenants_do_not_hide_the_rest() {
    let control = world().await;
    let (mut busy, mut free) = (session(&control).await, session(&control).await);
    for number in 0..40 {
        create(&mut busy, &format!("t{number}")).await.unwrap();
    }
    let mut seen = HashSet::new();
    for _ in 0..39 {
        assert!(seen.insert(busy.claim().await.unwrap().unwrap().tenant));
    }
    let admin = connect(&control.dsn).await.unwrap();
    let held = "select count(*) from pg_locks where locktype = 'advisory'
                   and database = (select oid from pg_database where datname = current_database())";
    let row = admin.query_one(held, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 39, "no lock beside the claims");
    let last = free.claim().await.unwrap().unwrap();
    assert!(seen.insert(last.tenant));
    assert!(free.claim().await.unwrap().is_none());
}

async fn wait_for_claim(control: &Control) {
    let mut two: Session = session(control).await;
    let claimed = async {
        while two.claim().await.expect("ask for work").is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), claimed)
        .await
        .expect("the tenant is free again");
}
