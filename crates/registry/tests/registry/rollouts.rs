//! Rollouts: what is behind, who works on it, and what is remembered.

use serde_json::json;
use waangu_kernel::{Placement, TenantId, Tier};
use waangu_registry::{
    NewItem, NewRollout, NewTenant, RolloutState, Session, StoredPackage, Tx, UpgradeEnd,
};
use waangu_testkit::Control;

use crate::support::{code, create, new_tenant, parsed, session, stock, world};

fn package(hash: &str, steps: i32) -> StoredPackage {
    StoredPackage {
        module: stock(),
        hash: hash.to_owned(),
        version: format!("0.{steps}.0"),
        steps,
        content: json!({ "steps": steps }),
    }
}

fn placement(tier: Tier) -> Placement {
    Placement {
        cell: parsed("sn-1"),
        tier,
        bucket: i32::from(tier == Tier::Schema),
        epoch: 1,
    }
}

/// Tenants of the schema tier whose tables were made by the first package, and one of the shared tier.
async fn fleet(control: &Control, own: usize) -> Vec<TenantId> {
    let mut session = session(control).await;
    let tx = session.begin().await.unwrap();
    tx.put_package(&package("aa", 1)).await.unwrap();
    let mut ids = Vec::new();
    for number in 0..own {
        let new = NewTenant {
            tier: Tier::Schema,
            bucket: 1,
            ..new_tenant(&format!("own-{number}"))
        };
        ids.push(settle(&tx, &new).await);
    }
    settle(&tx, &new_tenant("sharing")).await;
    tx.commit().await.unwrap();
    ids
}

async fn settle(tx: &Tx<'_>, new: &NewTenant) -> TenantId {
    let id = tx.create_tenant(new, 0).await.unwrap();
    tx.put_activation(id, &stock(), true).await.unwrap();
    let made = [(stock(), "aa".to_owned())];
    tx.record_namespaces(id, &placement(new.tier), &made)
        .await
        .unwrap();
    id
}

/// Begins a rollout of the second package to all that is behind.
async fn begin(session: &mut Session) -> waangu_kernel::RolloutId {
    let tx = session.begin().await.unwrap();
    tx.put_package(&package("bb", 2)).await.unwrap();
    let behind = tx.list_behind(&stock(), "bb").await.unwrap();
    let items = behind.iter().map(|unit| NewItem {
        wave: 1,
        cell: unit.cell.clone(),
        tier: unit.tier,
        tenant: unit.tenant,
    });
    let new = NewRollout {
        module: stock(),
        hash: "bb".to_owned(),
        waves: vec![100],
        stop_percent: 5,
        actor: "test".to_owned(),
        items: items.collect(),
    };
    let id = tx.create_rollout(&new).await.unwrap();
    tx.commit().await.unwrap();
    id
}

/// A deploy that has nothing to migrate must not ask every tenant, and one that has must not miss any.
#[tokio::test]
async fn what_is_behind_is_known_without_asking_tenants() {
    let control = world().await;
    fleet(&control, 3).await;
    let mut session = session(&control).await;
    let tx = session.begin().await.unwrap();
    assert!(tx.list_modules_behind().await.unwrap().is_empty());
    tx.put_package(&package("bb", 2)).await.unwrap();
    assert_eq!(tx.list_modules_behind().await.unwrap(), [stock()]);
    assert_eq!(tx.list_behind(&stock(), "bb").await.unwrap().len(), 4);
    tx.put_package(&package("aa", 1)).await.unwrap();
    assert!(tx.list_modules_behind().await.unwrap().is_empty());
}

/// A tenant that still stands on the last version, and has a table that the next one drops, would be
/// judged, and mended, by rules that were never its own.
#[tokio::test]
async fn rules_of_all_that_stands_are_known() {
    let control = world().await;
    let mut session = session(&control).await;
    let tx = session.begin().await.unwrap();
    let newest = tx.list_modules().await.unwrap().remove(0).manifest;
    assert_eq!(newest.id, stock());
    let mut older = newest.clone();
    older.append_only = vec!["journal".to_owned()];
    let mut first = package("aa", 1);
    first.content = json!({ "manifest": older });
    tx.put_package(&first).await.unwrap();
    let mut second = package("bb", 2);
    second.content = json!({ "manifest": newest });
    tx.put_package(&second).await.unwrap();
    let lists = async || {
        let found = tx.list_manifests_in_use().await.unwrap().into_iter();
        let lists = found.map(|stored| stored.manifest.append_only.join(","));
        let mut lists: Vec<String> = lists.collect();
        lists.sort();
        lists
    };
    assert_eq!(lists().await, [""], "nothing stands on the first one");
    settle(&tx, &new_tenant("behind")).await;
    assert_eq!(lists().await, ["", "journal"]);
}

/// Two workers in one schema, or a worker and somebody who removes the tenant, would leave half of each
/// one's work behind.
#[tokio::test]
async fn a_namespace_has_one_worker_and_no_reconciler_beside_it() {
    let control = world().await;
    fleet(&control, 3).await;
    let (mut one, mut two) = (session(&control).await, session(&control).await);
    begin(&mut one).await;
    let cell = parsed("sn-1");
    let mine = one.claim_upgrades(&cell, 2).await.unwrap();
    let others = two.claim_upgrades(&cell, 9).await.unwrap();
    assert_eq!((mine.len(), others.len()), (2, 2));
    assert!(
        mine.iter()
            .all(|item| !others.iter().any(|o| o.seq == item.seq))
    );
    // No tenant has been reconciled, so all are due; two are in the hands of `one`, one in those of
    // `two`, which may take what it has again.
    let mut three = session(&control).await;
    let free = three.claim().await.unwrap().unwrap();
    let held: Vec<_> = mine
        .iter()
        .chain(&others)
        .filter_map(|i| i.tenant)
        .collect();
    assert!(!held.contains(&free.tenant), "{free:?} of {held:?}");
    assert!(three.claim().await.unwrap().is_none());
}

/// After a kill the next worker goes on with what is left: nothing twice, nothing forgotten.
#[tokio::test]
async fn what_is_recorded_is_not_done_again() {
    let control = world().await;
    let tenants = fleet(&control, 3).await;
    let cell = parsed("sn-1");
    let mut one = session(&control).await;
    let id = begin(&mut one).await;
    let items = one.claim_upgrades(&cell, 9).await.unwrap();
    assert_eq!(items.len(), 4);
    let ends = [
        UpgradeEnd::Done,
        UpgradeEnd::Failed("no".to_owned()),
        UpgradeEnd::Again("later".to_owned()),
    ];
    for (item, end) in items.iter().zip(&ends) {
        assert_eq!(item.steps, 1);
        let state = one.record_upgrade(item, end).await.unwrap();
        assert_eq!(state, RolloutState::Running);
    }
    // Dropped with its claims, as by SIGKILL.
    drop(one);
    let mut two = session(&control).await;
    let left = async {
        loop {
            let left = two.claim_upgrades(&cell, 9).await.unwrap();
            if !left.is_empty() {
                break left;
            }
        }
    };
    let left = tokio::time::timeout(std::time::Duration::from_secs(5), left);
    let left = left.await.unwrap();
    assert_eq!(left.len(), 1, "one is done, one has failed, one waits");
    assert_eq!(left[0].seq, items[3].seq);
    let tx = two.begin().await.unwrap();
    let counts = tx.count_waves(id).await.unwrap();
    assert_eq!(
        (counts[0].pending, counts[0].done, counts[0].failed),
        (2, 1, 1)
    );
    assert_eq!(tx.list_failed_items(id, 9).await.unwrap().len(), 2);
    let done = items[0].tenant;
    for tenant in tenants {
        let placement = placement(Tier::Schema);
        let known = tx.list_namespaces(tenant, &placement).await.unwrap();
        let hash = if Some(tenant) == done { "bb" } else { "aa" };
        assert_eq!(known[0].hash, hash, "{tenant}");
        let version = &tx.list_activations(tenant).await.unwrap()[0].version;
        let wanted = if hash == "bb" { "0.2.0" } else { "0.1.0" };
        assert_eq!(version, wanted, "the version of {tenant}");
    }
    let (failed, wave) = tx.retry_items(id).await.unwrap();
    assert_eq!((failed, wave), (1, Some(1)));
}

/// Two rollouts of one module at once would overtake each other in the middle of the fleet.
#[tokio::test]
async fn a_module_has_one_open_rollout() {
    let control = world().await;
    fleet(&control, 1).await;
    let mut session = session(&control).await;
    let id = begin(&mut session).await;
    let new = NewRollout {
        module: stock(),
        hash: "bb".to_owned(),
        waves: vec![100],
        stop_percent: 5,
        actor: "test".to_owned(),
        items: Vec::new(),
    };
    let tx = session.begin().await.unwrap();
    assert_eq!(code(tx.create_rollout(&new).await), "rollout-open");
    drop(tx);
    let tx = session.begin().await.unwrap();
    tx.move_rollout(id, RolloutState::Paused, 1, "held")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let cell = parsed("sn-1");
    assert!(session.claim_upgrades(&cell, 9).await.unwrap().is_empty());
    let tx = session.begin().await.unwrap();
    tx.move_rollout(id, RolloutState::Cancelled, 1, "given up")
        .await
        .unwrap();
    // What is over stays over.
    tx.move_rollout(id, RolloutState::Running, 1, "again")
        .await
        .unwrap();
    assert_eq!(
        tx.get_rollout(id).await.unwrap().state,
        RolloutState::Cancelled
    );
    tx.create_rollout(&new).await.unwrap();
}

/// Several control processes would otherwise open so many connections to a cell each.
#[tokio::test]
async fn lanes_are_counted_over_all_processes() {
    let control = world().await;
    let (mut one, mut two) = (session(&control).await, session(&control).await);
    let mut three = session(&control).await;
    let cell = parsed("sn-1");
    assert!(one.claim_lane(&cell, 2).await.unwrap());
    assert!(two.claim_lane(&cell, 2).await.unwrap());
    assert!(!three.claim_lane(&cell, 2).await.unwrap());
    assert!(three.claim_lane(&parsed("other"), 2).await.unwrap());
    one.release_all().await.unwrap();
    assert!(three.claim_lane(&cell, 2).await.unwrap());
}

/// A tenant whose cell is away must not be tried again and again in the place of those that could be.
#[tokio::test]
async fn tenants_of_an_avoided_cell_wait_and_are_woken() {
    let control = world().await;
    let mut session = session(&control).await;
    let id = create(&mut session, "acme").await.unwrap();
    let cell = parsed("sn-1");
    let avoided = std::slice::from_ref(&cell);
    assert!(session.claim_elsewhere(avoided).await.unwrap().is_none());
    let tx = session.begin().await.unwrap();
    tx.record_failure(id, 1, "away").await.unwrap();
    tx.commit().await.unwrap();
    assert!(session.claim().await.unwrap().is_none(), "it waits");
    let tx = session.begin().await.unwrap();
    tx.wake_cell(&cell).await.unwrap();
    tx.commit().await.unwrap();
    assert!(session.claim().await.unwrap().is_some());
}
