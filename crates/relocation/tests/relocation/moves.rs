//! Moves under writers, and what happens without their protections.

use std::time::Duration;

use waangu_relocation::{Relocation, Safety, Step, debris};
use waangu_testkit::{Access, Tier, cell, connect, context, private_cell};

use crate::support::{Spot, TABLES, Traveller, run, stock};
use crate::writers::{Writers, found};

/// Acknowledged writes would be lost or doubled on one of the ways between tiers and cells.
#[tokio::test(flavor = "multi_thread")]
async fn every_pair_of_tiers_keeps_every_acknowledged_write() {
    let (a, b) = (cell().await, private_cell().await);
    let mut tenant = Traveller::settle(Spot(&a, Tier::Shared), TABLES).await;
    let writers = Writers::start(&tenant, 8);
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
async fn without_the_lock_a_write_is_lost() {
    let a = cell().await;
    let mut tenant = Traveller::settle(Spot(&a, Tier::Shared), TABLES).await;
    tenant.options.safety = Safety::WithoutLock;
    let to = Spot(&a, Tier::Dedicated);
    let mut relocation = Relocation::begin(tenant.request(to)).await.expect("begin");
    relocation.apply(&Step::Copy).await.expect("copy");
    // A transaction that is open while the move ends. With the lock, the move waits for it or backs
    // off (`a_long_transaction_makes_the_move_back_off`).
    let dsn = a.module_dsn(&stock(), &tenant.placement.database(tenant.tenant));
    let client = connect(&dsn).await.expect("connect");
    let proof = context(
        tenant.tenant,
        &tenant.placement,
        &stock(),
        Access::Write,
        &a.key,
    )
    .proof;
    let write = format!(
        "begin; select waangu.enter('{}', {}, '{}'); insert into stock.product (id, name) values (1, 'x')",
        proof.claims, proof.kid, proof.mac
    );
    client.batch_execute(&write).await.expect("write");
    relocation.apply(&Step::CutOver).await.expect("cut over");
    client.batch_execute("commit").await.expect("acknowledged");
    relocation.apply(&Step::Open).await.expect("open");
    relocation.apply(&Step::Finish).await.expect("clean up");
    tenant.placement = tenant.placement_at(to.1);
    assert!(
        tenant.rows("product").await.is_empty(),
        "the write would be there"
    );
}

/// As above, with routers that learn late.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_fence_writes_are_lost() {
    let a = cell().await;
    let mut tenant = Traveller::settle(Spot(&a, Tier::Shared), TABLES).await;
    tenant.options.safety = Safety::WithoutFence;
    let writers = Writers::start(&tenant, 8);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let to = Spot(&a, Tier::Dedicated);
    let mut relocation = Relocation::begin(tenant.request(to)).await.expect("begin");
    for step in [Step::Copy, Step::CutOver, Step::Open] {
        relocation.apply(&step).await.expect("a step");
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    tenant.placement = tenant.placement_at(to.1);
    writers.follow(&tenant);
    let (ledger, _) = writers.end().await;
    relocation.apply(&Step::Finish).await.expect("clean up");
    assert_ne!(found(&tenant).await, ledger);
}
