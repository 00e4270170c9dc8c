//! The way back: moves that find their rows still there.

use std::time::Duration;

use waangu_relocation::{Step, ways_back};
use waangu_tenancy::HomeState;
use waangu_testkit::{Tier, private_cell};

use crate::support::travel::{ADOPTED, COPIED, arrive, fill, leave, rows, settle, travel, write};
use crate::support::{Spot, begin};
use crate::writers::{Writers, found};

const TIERS: [Tier; 3] = [Tier::Shared, Tier::Schema, Tier::Dedicated];

/// What was written at the new place would be lost or doubled on the way back, of any kind of change, from
/// any tier to any other.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_back_brings_what_has_changed_since() {
    let (a, b) = (private_cell().await, private_cell().await);
    for tier in TIERS {
        let home = Spot(&a, tier);
        let mut tenant = settle(home).await;
        let writers = Writers::start(&tenant, 3);
        tokio::time::sleep(Duration::from_millis(200)).await;
        for to in TIERS {
            let away = Spot(&b, to);
            assert_eq!(travel(&mut tenant, away).await, COPIED, "{tier} to {to}");
            writers.follow(&tenant);
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(travel(&mut tenant, home).await, ADOPTED, "{to} to {tier}");
            writers.follow(&tenant);
            tokio::time::sleep(Duration::from_millis(50)).await;
            // The next one goes to another tier there; this one is emptied as after its grace time.
            leave(&b, &tenant, to).await;
        }
        let (ledger, worst) = writers.end().await;
        assert!(ledger.len() > 20, "writers worked: {}", ledger.len());
        assert_eq!(found(&tenant).await, ledger, "{tier}");
        assert_eq!(tenant.rows("movement").await.len(), ledger.len());
        assert!(worst < Duration::from_secs(8), "a write took {worst:?}");
    }
}

/// To and fro without end, each time with the changes alone; nothing piles up.
#[tokio::test(flavor = "multi_thread")]
async fn every_way_back_has_a_way_back() {
    let (a, b) = (private_cell().await, private_cell().await);
    // On one server and between two.
    for (home, away) in [
        (Spot(&a, Tier::Shared), Spot(&a, Tier::Schema)),
        (Spot(&a, Tier::Shared), Spot(&b, Tier::Shared)),
    ] {
        let mut tenant = settle(home).await;
        fill(&tenant, 1, 300).await;
        assert_eq!(travel(&mut tenant, away).await, COPIED);
        for turn in 1..5_i64 {
            write(
                &tenant,
                &format!(
                    "update product set name = 'turn {turn}' where tenant_id = $1 and id % 3 = 0;
                 update product set id = id + 100000 where tenant_id = $1 and id = {turn} * 7;
                 update product set payload = 'short' where tenant_id = $1 and id = {turn} * 11;
                 delete from product where tenant_id = $1 and id = {turn} * 13"
                ),
            )
            .await;
            fill(&tenant, turn * 1000, turn * 1000 + 20).await;
            let before = rows(&tenant).await;
            let to = if turn % 2 == 1 { home } else { away };
            assert_eq!(travel(&mut tenant, to).await, ADOPTED, "turn {turn}");
            assert_eq!(rows(&tenant).await, before, "turn {turn}");
        }
        let mut ways = ways_back(&a.admin_config()).await.expect("look");
        ways.extend(ways_back(&b.admin_config()).await.expect("look"));
        ways.retain(|way| way.tenant == tenant.tenant.number());
        assert_eq!(ways.len(), 1, "one way back: {ways:?}");
        assert_eq!(ways[0].epoch, tenant.placement.epoch);
    }
}

/// A worker that dies when the tenant has left, or has just arrived, would cost the way back; or leave
/// one that has lost a write.
#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_outlives_workers_and_servers() {
    let (a, b) = (private_cell().await, private_cell().await);
    let (home, away) = (Spot(&a, Tier::Shared), Spot(&b, Tier::Shared));
    for cell in [&a, &b] {
        let superuser = waangu_testkit::connect(&cell.superuser_dsn("postgres"))
            .await
            .expect("connect");
        for sql in [
            "alter system set synchronous_commit = on",
            "select pg_reload_conf()",
        ] {
            superuser
                .batch_execute(sql)
                .await
                .expect("what is acknowledged is kept");
        }
    }
    let mut tenant = settle(home).await;
    fill(&tenant, 1, 100).await;
    for steps in [1, 2, 3] {
        let mut relocation = begin(|| tenant.request(away)).await;
        for _step in 0..=steps {
            let step = relocation.next().await.expect("a step");
            relocation.apply(&step).await.expect("done");
        }
        drop(relocation);
        if steps == 2 {
            b.crash().await;
        }
        let mut relocation = begin(|| tenant.request(away)).await;
        loop {
            let step = relocation.next().await.expect("a step");
            if step == Step::Done {
                break;
            }
            relocation.apply(&step).await.expect("done");
        }
        drop(relocation);
        arrive(&mut tenant, away);
        fill(&tenant, steps * 1000, steps * 1000 + 30).await;
        write(
            &tenant,
            &format!("delete from product where tenant_id = $1 and id = {steps}"),
        )
        .await;
        if steps == 3 {
            b.crash().await;
            a.crash().await;
        }
        let before = rows(&tenant).await;
        assert_eq!(
            travel(&mut tenant, home).await,
            ADOPTED,
            "after {steps} steps"
        );
        assert_eq!(rows(&tenant).await, before);
        leave(&b, &tenant, Tier::Shared).await;
    }
}

/// A tenant that does not pay would be open again after a move back.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_tenant_goes_back_suspended() {
    let (a, b) = (private_cell().await, private_cell().await);
    let (home, away) = (Spot(&a, Tier::Shared), Spot(&b, Tier::Shared));
    let mut tenant = settle(home).await;
    fill(&tenant, 1, 20).await;
    travel(&mut tenant, away).await;
    fill(&tenant, 100, 110).await;
    let suspended = b
        .admin
        .put_home(tenant.tenant, &tenant.placement, HomeState::Suspended);
    suspended.await.expect("suspend");
    let before = rows(&tenant).await;
    assert_eq!(travel(&mut tenant, home).await, ADOPTED);
    let seen = a.admin.observe(tenant.tenant, &tenant.placement, &[]).await;
    let closed = Some((HomeState::Suspended, tenant.placement.epoch));
    assert_eq!(seen.expect("look").home, closed);
    assert_eq!(rows(&tenant).await, before);
}
