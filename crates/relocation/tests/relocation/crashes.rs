//! Workers that vanish at any moment, and others that go on.

use std::time::Duration;

use waangu_relocation::{Error, Relocation, debris, sweep};
use waangu_testkit::{Tier, cell, private_cell};

use crate::support::{Spot, TABLES, Traveller, run};
use crate::writers::{Writers, found};

/// A control plane killed at the wrong moment would lose writes, or leave the tenant without a place.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_survives_workers_that_vanish_anywhere() {
    let (a, b) = (cell().await, private_cell().await);
    let mut tenant = Traveller::settle(Spot(&a, Tier::Shared), TABLES).await;
    let writers = Writers::start(&tenant, 3);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut random = 20_261_123_u64;
    let mut vanished = 0;
    for to in [
        Spot(&b, Tier::Schema),
        Spot(&a, Tier::Dedicated),
        Spot(&b, Tier::Shared),
        Spot(&a, Tier::Schema),
    ] {
        // Shorter than a move at first, so that it is cut everywhere.
        for attempt in 0_u64.. {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let patience = Duration::from_millis(60 + (random >> 33) % (150 + attempt * 250));
            match tokio::time::timeout(patience, run(tenant.request(to))).await {
                Ok(Ok(_arrived)) => break,
                // The one before has not quite gone.
                Ok(Err(Error::Busy | Error::Pause(_) | Error::Database(_))) => {}
                Ok(Err(other)) => unreachable!("{other}"),
                Err(_elapsed) => vanished += 1,
            }
        }
        tenant.placement = tenant.placement_at(to.1);
        tenant.cell = to.0;
        writers.follow(&tenant);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (ledger, _) = writers.end().await;
    assert!(vanished >= 4, "only {vanished} vanished");
    assert_eq!(found(&tenant).await, ledger);
}

/// An aborted move would leave a slot that fills the disk, or rows in two places.
#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_move_leaves_nothing_and_a_sweep_finds_orphans() {
    let a = private_cell().await;
    let tenant = Traveller::settle(Spot(&a, Tier::Shared), TABLES).await;
    let config = a.admin_config();
    let to = Spot(&a, Tier::Dedicated);
    let mut relocation = Relocation::begin(tenant.request(to)).await.expect("begin");
    let step = relocation.next().await.expect("a step");
    relocation.apply(&step).await.expect("copy");
    let second = Relocation::begin(tenant.request(to)).await;
    assert!(matches!(second, Err(Error::Busy)), "one worker at a time");
    assert_eq!(
        debris(&config).await.expect("look").len(),
        3,
        "slot, publication, copy"
    );
    let kept = sweep(&config, &[tenant.tenant]).await.expect("sweep");
    assert!(kept.is_empty(), "a living move is left alone: {kept:?}");
    relocation.abort().await.expect("abort");
    drop(relocation);
    assert!(debris(&config).await.expect("look").is_empty());
    let superuser = tenant.superuser().await;
    let sql = "select count(*) from pg_database where datname = $1";
    let database = tenant.placement_at(Tier::Dedicated).database(tenant.tenant);
    let row = superuser
        .query_one(sql, &[&database])
        .await
        .expect("count databases");
    assert_eq!(row.get::<_, i64>(0), 0, "the target's database is gone");

    let mut relocation = Relocation::begin(tenant.request(to))
        .await
        .expect("begin again");
    relocation
        .apply(&waangu_relocation::Step::Copy)
        .await
        .expect("copy");
    drop(relocation);
    let swept = sweep(&config, &[]).await.expect("sweep");
    assert_eq!(swept.len(), 3, "{swept:?}");
    let row = superuser.query_one(sql, &[&database]).await;
    let left: i64 = row.expect("count databases").get(0);
    assert_eq!(left, 0, "nobody is at home in the swept database");
    assert!(debris(&config).await.expect("look").is_empty());
    run(tenant.request(to))
        .await
        .expect("a move whose slot was swept begins anew");
}
