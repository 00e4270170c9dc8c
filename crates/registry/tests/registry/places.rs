//! Places under pressure: buckets that fill, locks that are held, things that are in use.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::JoinSet;
use waangu_kernel::{Fault, Tier};
use waangu_registry::{Hold, Kind, Registry};

use crate::support::{create, new_tenant, parsed, session, world};

/// Chooses a bucket and settles there, as onboarding does.
async fn settle(registry: Registry, slug: String) -> Result<i32, Fault> {
    let mut session = registry.session().await?;
    let tx = session.begin().await?;
    let bucket = tx.choose_bucket(&parsed("sn-1")).await?;
    let mut new = new_tenant(&slug);
    (new.tier, new.bucket) = (Tier::Schema, bucket);
    tx.create_tenant(&new, 0).await?;
    tx.commit().await?;
    Ok(bucket)
}

/// Catalogues grow with every schema: a bucket over its bound slows all who live in it.
#[tokio::test]
async fn no_bucket_goes_over_its_bound() {
    let control = world().await;
    let mut births = JoinSet::new();
    for n in 0..9 {
        births.spawn(settle(control.registry.clone(), format!("t{n}")));
    }
    let mut sizes = BTreeMap::new();
    while let Some(bucket) = births.join_next().await {
        *sizes.entry(bucket.unwrap().unwrap()).or_insert(0) += 1;
    }
    // The test world allows two to a bucket.
    assert_eq!(
        sizes,
        BTreeMap::from([(1, 2), (2, 2), (3, 2), (4, 2), (5, 1)])
    );
}

/// A creation that goes on while its cell is being removed would leave a tenant nowhere.
#[tokio::test]
async fn whoever_removes_a_place_waits_for_creations() {
    let control = world().await;
    let (mut one, mut other) = (session(&control).await, session(&control).await);
    let creation = one.begin().await.unwrap();
    creation.savepoint().await.unwrap();
    creation.lock_placement(Hold::Shared).await.unwrap();
    let removal = other.begin().await.unwrap();
    let waited = removal.lock_placement(Hold::Exclusive);
    let early = tokio::time::timeout(Duration::from_millis(200), waited).await;
    assert!(early.is_err(), "it has to wait");
    drop(removal);
    // Going back gives the lock back, so that a creation can ask to be alone.
    creation.back_to_savepoint().await.unwrap();
    let mut third = session(&control).await;
    let removal = third.begin().await.unwrap();
    removal.lock_placement(Hold::Exclusive).await.unwrap();
}

/// What is taken away while it is used takes its users with it.
#[tokio::test]
async fn what_uses_a_place_is_named() {
    let control = world().await;
    let mut session = session(&control).await;
    create(&mut session, "acme").await.unwrap();
    let tx = session.begin().await.unwrap();
    for (kind, id, users) in [
        (Kind::Environment, "dev", vec!["1 cells"]),
        (Kind::Region, "dc-sn-dakar", vec!["1 cells", "1 countries"]),
        (Kind::Country, "SN", vec!["1 tenants"]),
        (Kind::Cell, "sn-1", vec!["1 tenants"]),
        (Kind::Profile, "sme", vec![]),
    ] {
        assert_eq!(tx.list_uses(kind, id).await.unwrap(), users, "{kind:?}");
    }
    tx.remove_declared(Kind::Profile, "sme").await.unwrap();
    assert!(tx.list_misplaced().await.unwrap().is_empty());
}

/// Placement would decide on a guess.
#[tokio::test]
async fn a_measure_is_kept_and_grows_old() {
    let control = world().await;
    let mut session = session(&control).await;
    let tx = session.begin().await.unwrap();
    let id = parsed("sn-1");
    assert_eq!(
        tx.list_unmeasured_cells(60).await.unwrap(),
        [parsed("sn-1")]
    );
    tx.put_cell_usage(&id, 5_000_000_000, 12).await.unwrap();
    assert!(tx.list_unmeasured_cells(60).await.unwrap().is_empty());
    let usage = tx.list_cells().await.unwrap()[0].usage.unwrap();
    assert_eq!((usage.bytes, usage.connections), (5_000_000_000, 12));
}
