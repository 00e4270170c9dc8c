//! Moves under writers, and what happens without their protections.

use std::time::Duration;

use waangu_relocation::{Relocation, Safety, Step, debris};
use waangu_testkit::{Tier, cell, private_cell};

use crate::support::{Spot, TABLES, Traveller, run};
use crate::writers::{Writers, found};

/// Acknowledged writes would be lost or doubled on one of the ways between tiers and cells.
#[tokio::test(flavor = "multi_thread")]
async fn every_pair_of_tiers_keeps_every_acknowledged_write() {
    let (a, b) = (cell().await, private_cell().await);
    let mut tenant = Traveller::settle(Spot(&a, Tier::Shared), TABLES).await;
    let writers = Writers::start(&tenant, 2);
    tokio::time::sleep(Duration::from_millis(300)).await;
    // All nine pairs, one after the other.
    let way = [
        Spot(&a, Tier::Schema),
        Spot(&a, Tier::Shared),
        Spot(&a, Tier::Dedicated),
        Spot(&a, Tier::Schema),
        Spot(&b, Tier::Schema),
        Spot(&b, Tier::Dedicated),
        Spot(&a, Tier::Dedicated),
        Spot(&a, Tier::Shared),
        Spot(&b, Tier::Shared),
    ];
    for to in way {
        let relocation = run(tenant.request(to)).await.expect("a move");
        tenant.placement = tenant.placement_at(to.1);
        tenant.cell = to.0;
        writers.follow(&tenant);
        tokio::time::sleep(Duration::from_millis(100)).await;
        relocation
            .empty_source(100, Duration::ZERO)
            .await
            .expect("the old place is emptied");
    }
    let (ledger, worst) = writers.end().await;
    let here = found(&tenant).await;
    assert!(ledger.len() > 50, "writers worked: {}", ledger.len());
    assert_eq!(
        here, ledger,
        "every acknowledged write once, and nothing else"
    );
    assert_eq!(
        tenant.rows("movement").await.len(),
        here.len(),
        "cascades and keys"
    );
    assert!(worst < Duration::from_secs(8), "a write took {worst:?}");
    let mine = format!("waangu_move_{}_", tenant.tenant.number());
    for cell in [&a, &b] {
        let left = debris(&cell.admin_config()).await.expect("look for debris");
        assert!(!format!("{left:?}").contains(&mine), "{left:?}");
    }
}

/// The test above would prove nothing if it did not see lost writes.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_lock_writes_are_lost() {
    assert!(loses(Safety::WithoutLock).await);
}

/// As above.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_fence_writes_are_lost() {
    assert!(loses(Safety::WithoutFence).await);
}

async fn loses(safety: Safety) -> bool {
    let a = cell().await;
    for _try in 0..10 {
        let mut tenant = Traveller::settle(Spot(&a, Tier::Shared), TABLES).await;
        tenant.options.safety = safety;
        let writers = Writers::start(&tenant, 6);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let to = Spot(&a, Tier::Dedicated);
        let mut relocation = Relocation::begin(tenant.request(to)).await.expect("begin");
        let mut done = Ok(());
        for step in [Step::Copy, Step::CutOver, Step::Open] {
            done = done.and(relocation.apply(&step).await);
        }
        // Routers learn late.
        tokio::time::sleep(Duration::from_millis(50)).await;
        tenant.placement = tenant.placement_at(Tier::Dedicated);
        if done.is_ok() {
            writers.follow(&tenant);
        }
        let (ledger, _) = writers.end().await;
        relocation.apply(&Step::Finish).await.expect("clean up");
        // A move that verification has stopped lost nothing: try again.
        if done.is_ok() && found(&tenant).await != ledger {
            return true;
        }
    }
    false
}
