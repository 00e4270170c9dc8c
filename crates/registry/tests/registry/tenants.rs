//! Tenants: names, generations, and what a failed statement does to its transaction.

use std::collections::HashMap;

use tokio::task::JoinSet;
use waangu_registry::{Desired, Feed, RouteChange, State, TenantPatch};

use crate::support::{code, create, new_tenant, parsed, session, slug, stock, world};

/// Two clients with one address would be served each other's data.
#[tokio::test]
async fn a_slug_belongs_to_one_tenant() {
    let control = world().await;
    let mut workers = JoinSet::new();
    for _ in 0..8 {
        let registry = control.registry.clone();
        workers.spawn(async move { create(&mut registry.session().await?, "acme").await });
    }
    let mut made = 0;
    while let Some(worker) = workers.join_next().await {
        match worker.unwrap() {
            Ok(_) => made += 1,
            Err(fault) => assert_eq!(fault.code(), "slug-taken"),
        }
    }
    assert_eq!(made, 1);
}

/// A deleted client's address must not go to somebody else while old links still point there, and
/// must not be lost for ever either.
#[tokio::test]
async fn a_slug_is_free_again_after_the_grace_time() {
    let control = world().await;
    let mut session = session(&control).await;
    let old = create(&mut session, "acme").await.unwrap();
    let tx = session.begin().await.unwrap();
    let generation = tx.want_tenant(old, Desired::Deleted).await.unwrap();
    tx.commit().await.unwrap();

    let tx = session.begin().await.unwrap();
    let result = tx.create_tenant(&new_tenant("acme"), 0).await;
    assert_eq!(code(result), "slug-taken", "not deleted yet");
    drop(tx);

    let tx = session.begin().await.unwrap();
    tx.record_reached(old, generation, State::Deleted, &[], &[])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let tx = session.begin().await.unwrap();
    assert_eq!(code(tx.get_tenant(&slug("acme")).await), "tenant-not-found");
    let result = tx.create_tenant(&new_tenant("acme"), 60).await;
    assert_eq!(code(result), "slug-taken", "within the grace time");
    drop(tx);

    let new = create(&mut session, "acme").await.unwrap();
    assert!(new > old, "numbers are never used again");
    let tx = session.begin().await.unwrap();
    assert_eq!(tx.get_tenant(&slug("acme")).await.unwrap().id, new);
}

/// PostgreSQL answers COMMIT after an error with a silent rollback: the operator would be told that
/// the tenant exists.
#[tokio::test]
async fn commit_after_a_failure_is_an_error() {
    let control = world().await;
    let mut session = session(&control).await;
    create(&mut session, "acme").await.unwrap();
    let tx = session.begin().await.unwrap();
    tx.create_tenant(&new_tenant("other"), 0).await.unwrap();
    let result = tx.create_tenant(&new_tenant("acme"), 0).await;
    assert_eq!(code(result), "slug-taken");
    assert_eq!(code(tx.commit().await), "internal");
    let tx = session.begin().await.unwrap();
    assert_eq!(
        code(tx.get_tenant(&slug("other")).await),
        "tenant-not-found"
    );
}

/// A worker that lost its claim and speaks late would bring a deleted tenant back to life.
#[tokio::test]
async fn a_late_worker_cannot_undo_a_newer_generation() {
    let control = world().await;
    let mut session = session(&control).await;
    let id = create(&mut session, "acme").await.unwrap();
    let tx = session.begin().await.unwrap();
    let generation = tx.want_tenant(id, Desired::Deleted).await.unwrap();
    tx.record_reached(id, generation, State::Deleted, &[], &[])
        .await
        .unwrap();
    tx.record_reached(id, generation - 1, State::Active, &[stock()], &[])
        .await
        .unwrap();
    let tenant = tx.get_tenant_by_id(id).await.unwrap();
    assert_eq!(tenant.state, State::Deleted);
    assert_eq!(tenant.observed_generation, generation);
}

/// A module that is not installed would look switched on, and never work.
#[tokio::test]
async fn an_unknown_module_is_not_switched_on() {
    let control = world().await;
    let mut session = session(&control).await;
    let id = create(&mut session, "acme").await.unwrap();
    let tx = session.begin().await.unwrap();
    let result = tx.put_activation(id, &parsed("nothing"), true).await;
    assert_eq!(code(result), "module-unknown");
    tx.put_activation(id, &stock(), true).await.unwrap();
    tx.put_activation(id, &stock(), false).await.unwrap();
    assert!(!tx.list_activations(id).await.unwrap()[0].enabled);
}

/// A role granted under the wrong tenant would let one client's user into another client.
#[tokio::test]
async fn a_role_is_held_in_the_users_own_tenant_only() {
    let control = world().await;
    let mut session = session(&control).await;
    let one = create(&mut session, "one").await.unwrap();
    let two = create(&mut session, "two").await.unwrap();
    let tx = session.begin().await.unwrap();
    let user = tx
        .create_user(one, &parsed("awa"), "Awa", "hash")
        .await
        .unwrap();
    tx.put_roles(one, user, &[parsed("stock.clerk")])
        .await
        .unwrap();
    let result = tx.put_roles(two, user, &[parsed("tenant-admin")]).await;
    assert_eq!(code(result), "internal");
}

/// Whoever changes its parent takes all below along: each of them has to reach its cell again, or
/// the old head office would go on reading it.
#[tokio::test]
async fn a_new_parent_touches_everybody_below() {
    let control = world().await;
    let mut session = session(&control).await;
    let mut ids = Vec::new();
    for (name, parent) in [
        ("top", None),
        ("other", None),
        ("mid", Some(0)),
        ("low", Some(2)),
    ] {
        let mut new = new_tenant(name);
        new.parent = parent.map(|at: usize| ids[at]);
        let tx = session.begin().await.unwrap();
        ids.push(tx.create_tenant(&new, 0).await.unwrap());
        tx.commit().await.unwrap();
    }
    let [top, other, mid, low] = ids[..] else {
        unreachable!("four were made");
    };
    let tx = session.begin().await.unwrap();
    let name = TenantPatch {
        name: Some("Middle".to_owned()),
        parent: None,
    };
    tx.patch_tenant(mid, &name).await.unwrap();
    let generation = async |id| tx.get_tenant_by_id(id).await.unwrap().generation;
    assert_eq!(generation(low).await, 1, "a name concerns nobody below");
    let parent = TenantPatch {
        name: None,
        parent: Some(Some(other)),
    };
    assert_eq!(tx.patch_tenant(mid, &parent).await.unwrap(), 3);
    assert_eq!(generation(low).await, 2);
    assert_eq!((generation(top).await, generation(other).await), (1, 1));
    let numbers = |ids: &[waangu_kernel::TenantId]| -> Vec<i64> {
        ids.iter().map(|id| id.number()).collect()
    };
    assert_eq!(
        tx.list_ancestors(low).await.unwrap(),
        numbers(&[low, mid, other])
    );
    tx.commit().await.unwrap();
    // Gateways hear of it, too.
    let mut feed = Feed::connect(&control.gateway_dsn).await.unwrap();
    let parents: HashMap<_, _> = feed
        .read()
        .await
        .unwrap()
        .into_iter()
        .filter_map(|change| match change {
            RouteChange::Put(route) => Some((route.id, route.parent)),
            RouteChange::Gone(..) => None,
        })
        .collect();
    assert_eq!((parents[&mid], parents[&other]), (Some(other), None));
}
