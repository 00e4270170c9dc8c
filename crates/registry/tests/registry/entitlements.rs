//! Plans and values: what is stored, who hears of it, and what can't be taken away.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use waangu_kernel::entitlement::Values;
use waangu_kernel::{PlanId, TenantId};
use waangu_registry::{Feed, RouteChange, Session, Tenant, TenantRoute};

use crate::support::{code, create, parsed, session, slug, world};

fn values(json: serde_json::Value) -> Values {
    serde_json::from_value(json).expect("the registry answers")
}

async fn put_plan(session: &mut Session, id: &PlanId, held: &Values) -> bool {
    let tx = session.begin().await.expect("the registry answers");
    let new = tx
        .put_plan(id, &BTreeMap::new(), held)
        .await
        .expect("the registry answers");
    tx.commit().await.expect("the registry answers");
    new
}

async fn tenant(session: &mut Session) -> Tenant {
    let tx = session.begin().await.expect("the registry answers");
    tx.get_tenant(&slug("acme"))
        .await
        .expect("the registry answers")
}

async fn route(feed: &mut Feed, id: TenantId) -> Option<TenantRoute> {
    let changes = feed.read().await.expect("the registry answers");
    changes.into_iter().find_map(|change| match change {
        RouteChange::Put(route) if route.id == id => Some(*route),
        RouteChange::Put(_) | RouteChange::Gone(..) => None,
    })
}

/// Two operators who change one tenant's limits at once would overwrite each other unseen, and the
/// gateways would go on with the old ones.
#[tokio::test]
async fn a_change_of_values_is_a_new_version_and_reaches_the_feed() {
    let control = world().await;
    let mut session = session(&control).await;
    let id = create(&mut session, "acme").await.unwrap();
    let mut feed = Feed::connect(&control.gateway_dsn).await.unwrap();
    assert_eq!(route(&mut feed, id).await.unwrap().own, None);
    let mut last = tenant(&mut session).await;
    let plan: PlanId = parsed("gold");
    put_plan(&mut session, &plan, &values(json!({ "users": 5 }))).await;
    for step in 0..4 {
        let tx = session.begin().await.unwrap();
        match step {
            0 => tx.put_entitlement(id, "users", &json!(7)).await.unwrap(),
            1 => tx.put_entitlement(id, "users", &json!(null)).await.unwrap(),
            2 => assert!(tx.delete_entitlement(id, "users").await.unwrap()),
            _ => tx.put_tenant_plan(id, Some(&plan)).await.unwrap(),
        }
        tx.commit().await.unwrap();
        let now = tenant(&mut session).await;
        assert!(now.revision > last.revision, "step {step}");
        assert_eq!(now.generation, last.generation, "no work for the cells");
        last = now;
        let route = route(&mut feed, id).await.expect("marked");
        let own = match step {
            0 => Some(values(json!({ "users": 7 }))),
            1 => Some(values(json!({ "users": null }))),
            _ => None,
        };
        assert_eq!(route.own, own, "step {step}");
        assert_eq!(route.plan, (step == 3).then(|| plan.clone()));
    }
    let tx = session.begin().await.unwrap();
    let held = tx.get_held(id).await.unwrap();
    assert_eq!(held.plan, Some(values(json!({ "users": 5 }))));
    assert_eq!(held.own, None);
}

/// A plan that is made better must reach ten thousand tenants without touching one of them.
#[tokio::test]
async fn a_plan_wakes_the_readers_and_marks_no_tenant() {
    let control = world().await;
    let mut session = session(&control).await;
    create(&mut session, "acme").await.unwrap();
    let mut feed = Feed::connect(&control.gateway_dsn).await.unwrap();
    feed.read().await.unwrap();
    let before = tenant(&mut session).await.revision;
    let plan: PlanId = parsed("gold");
    assert!(put_plan(&mut session, &plan, &values(json!({ "users": 5 }))).await);
    let woken = tokio::time::timeout(Duration::from_secs(2), feed.changed()).await;
    woken.expect("woken before the poll").unwrap();
    assert!(!put_plan(&mut session, &plan, &values(json!({ "users": 6 }))).await);
    let sets = feed.sets().await.unwrap();
    assert_eq!(sets.plans[&plan], values(json!({ "users": 6 })));
    assert_eq!(tenant(&mut session).await.revision, before);
}

/// A plan removed under a tenant's feet would silently lift or set its limits.
#[tokio::test]
async fn a_plan_in_use_stays() {
    let control = world().await;
    let mut session = session(&control).await;
    let id = create(&mut session, "acme").await.unwrap();
    let plan: PlanId = parsed("gold");
    let tx = session.begin().await.unwrap();
    let unknown = tx.put_tenant_plan(id, Some(&plan)).await;
    assert_eq!(code(unknown), "plan-unknown");
    drop(tx);
    put_plan(&mut session, &plan, &Values::new()).await;
    let tx = session.begin().await.unwrap();
    tx.put_tenant_plan(id, Some(&plan)).await.unwrap();
    tx.commit().await.unwrap();
    let tx = session.begin().await.unwrap();
    assert_eq!(tx.get_plan(&plan).await.unwrap().unwrap().tenants, 1);
    assert_eq!(code(tx.delete_plan(&plan).await), "plan-in-use");
    drop(tx);
    let tx = session.begin().await.unwrap();
    tx.put_tenant_plan(id, None).await.unwrap();
    assert!(tx.delete_plan(&plan).await.unwrap());
    assert!(!tx.delete_plan(&plan).await.unwrap());
}
