//! Tenants in other states than the usual one, neighbours, and moves that are told to stop.

use std::time::Duration;

use tokio::time::Instant;
use waangu_relocation::{Error, Phase, Relocation, Step, debris, stranded};
use waangu_tenancy::{HomeState, Rules};
use waangu_testkit::{Tier, cell, private_cell};

use crate::support::{Spot, TABLES, Traveller, at, begin, fill, run};

/// A tenant that does not pay would be open again after a move.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_tenant_arrives_suspended() {
    let a = cell().await;
    let mut tenant = Traveller::settle(Spot(&a, Tier::Shared), TABLES).await;
    fill(&tenant, 10).await;
    let suspended = a
        .admin
        .put_home(tenant.tenant, &tenant.placement, HomeState::Suspended);
    suspended.await.expect("suspend");
    let to = Spot(&a, Tier::Schema);
    run(tenant.request(to)).await.expect("a move");
    let there = tenant.placement_at(to.1);
    let seen = a
        .admin
        .observe(tenant.tenant, &there, &[])
        .await
        .expect("look");
    assert_eq!(seen.home, Some((HomeState::Suspended, there.epoch)));
    tenant.placement = there;
    assert_eq!(tenant.rows("product").await.len(), 10);
}

/// Cancelled, a move would go on, or leave a slot, a database or a lock behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_told_to_stop_leaves_nothing() {
    let a = private_cell().await;
    let mut tenant = Traveller::settle(Spot(&a, Tier::Shared), TABLES).await;
    fill(&tenant, 20_000).await;
    // So slow that it would take minutes.
    tenant.options.rate = Some(10_000);
    for tier in [Tier::Dedicated, Tier::Schema] {
        let mut relocation = begin(|| tenant.request(Spot(&a, tier))).await;
        let (stop, mut told) = (relocation.stop_token(), relocation.progress());
        let cancel = async {
            let copying =
                told.wait_for(|progress| progress.phase == Phase::Copy && progress.rows > 0);
            drop(copying.await.expect("progress is told"));
            stop.cancel();
            Instant::now()
        };
        let (done, since) = tokio::join!(relocation.apply(&Step::Copy), cancel);
        assert!(matches!(done, Err(Error::Cancelled)), "{done:?}");
        assert!(
            since.elapsed() < Duration::from_secs(2),
            "{:?}",
            since.elapsed()
        );
        relocation.abort().await.expect("abort");
        let left = debris(&a.admin_config()).await.expect("look");
        assert!(left.is_empty(), "{left:?}");
    }
    // Between the copy and the fence.
    tenant.options.rate = None;
    let to = Spot(&a, Tier::Dedicated);
    let mut relocation = Relocation::begin(tenant.request(to)).await.expect("begin");
    relocation.apply(&Step::Copy).await.expect("copy");
    relocation.stop_token().cancel();
    let done = relocation.apply(&Step::CutOver).await;
    assert!(matches!(done, Err(Error::Cancelled)), "{done:?}");
    relocation.abort().await.expect("abort");
    drop(relocation);
    assert!(debris(&a.admin_config()).await.expect("look").is_empty());
    run(tenant.request(to)).await.expect("a later move");
}

/// A tenant that nobody serves would be noticed by its users only; a move's notes would be taken for drift.
#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_tenant_is_seen_until_it_has_arrived() {
    let a = private_cell().await;
    let tenant = Traveller::settle(Spot(&a, Tier::Shared), TABLES).await;
    let mut relocation = Relocation::begin(tenant.request(Spot(&a, Tier::Dedicated)))
        .await
        .expect("begin");
    for step in [Step::Copy, Step::CutOver] {
        relocation.apply(&step).await.expect("a step");
    }
    let seen = stranded(&a.admin_config()).await.expect("look");
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!((seen[0].tenant, seen[0].epoch), (tenant.tenant.number(), 2));
    assert!(seen[0].since < Duration::from_mins(1));
    let refused = relocation.abort().await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    assert_eq!(relocation.next().await.expect("a step"), Step::Open);
    for step in [Step::Open, Step::Finish] {
        relocation.apply(&step).await.expect("a step");
    }
    assert!(stranded(&a.admin_config()).await.expect("look").is_empty());
    let inspected = a
        .admin
        .inspect(&Rules::new([&tenant.package.manifest]))
        .await
        .expect("inspect");
    let drifts: Vec<_> = inspected
        .iter()
        .flat_map(|database| &database.drifts)
        .collect();
    assert!(drifts.is_empty(), "{drifts:?}");
}

/// Of a head office and its subsidiary in one table, each moves alone, and the other stays as it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_in_the_same_tables_stays_as_it_is() {
    let a = cell().await;
    let mut office = Traveller::settle(Spot(&a, Tier::Shared), TABLES).await;
    let branch = Traveller::settle(Spot(&a, Tier::Shared), TABLES).await;
    let lineage = [office.tenant.number(), branch.tenant.number()];
    let set = a
        .admin
        .set_lineage(branch.tenant, &branch.placement, &lineage)
        .await;
    set.expect("the branch belongs to the office");
    fill(&office, 30).await;
    fill(&branch, 40).await;
    let (before, to) = (branch.rows("product").await, Spot(&a, Tier::Dedicated));
    let relocation = run(office.request(to)).await.expect("a move");
    relocation
        .empty_source(7, Duration::ZERO)
        .await
        .expect("the old place is emptied");
    assert!(
        office.rows("product").await.is_empty(),
        "nothing is left behind"
    );
    office.placement = office.placement_at(to.1);
    assert_eq!(office.rows("product").await.len(), 30);
    assert_eq!(branch.rows("product").await, before);
    let seen = a
        .admin
        .observe(branch.tenant, &branch.placement, &[])
        .await
        .expect("look");
    assert_eq!(seen.lineage, lineage);
}

/// What differed would be gone with the copy, and nobody could find out why.
#[tokio::test(flavor = "multi_thread")]
async fn evidence_of_a_difference_outlives_the_copy() {
    let a = private_cell().await;
    let tenant = Traveller::settle(Spot(&a, Tier::Shared), TABLES).await;
    fill(&tenant, 500).await;
    let to = Spot(&a, Tier::Dedicated);
    let mut relocation = Relocation::begin(tenant.request(to)).await.expect("begin");
    relocation.apply(&Step::Copy).await.expect("copy");
    let target = at(&a, tenant.tenant, &tenant.placement_at(to.1)).await;
    let damage =
        "delete from stock.product where id = 7; update stock.product set name = 'y' where id = 9";
    target.batch_execute(damage).await.expect("damage");
    drop(target);
    let text = relocation
        .apply(&Step::CutOver)
        .await
        .expect_err("found")
        .to_string();
    assert!(text.contains("500 rows became 499; 2 rows"), "{text}");
    relocation.abort().await.expect("abort");
    let sql =
        "select count(*), count(source_row), count(target_row) from waangu_relocation.evidence";
    let row = tenant
        .superuser()
        .await
        .query_one(sql, &[])
        .await
        .expect("evidence");
    let counts: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
    assert_eq!(counts, [2, 2, 1]);
}
