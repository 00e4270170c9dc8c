//! Subtree scope: what a head office's request tells a module, and what it can't.

use std::sync::atomic::Ordering;

use serde_json::json;
use waangu_kernel::placement::Tier;
use waangu_kernel::{TenantId, UserId};
use waangu_registry::{RouteChange, TenantRoute};

use crate::stage::{Stage, ask, empty, put, route};

const ALL: &str = "/api/inventory/all";

fn below(id: i64, parent: i64, tier: Tier, bucket: i32) -> TenantRoute {
    let mut route = route(id, &format!("t{id}"), &[]);
    route.parent = Some(TenantId::new(parent).expect("a tenant number"));
    (route.placement.tier, route.placement.bucket) = (tier, bucket);
    route
}

/// `acme` with shops in all tiers and two cells below it, two of which are not served.
fn load(stage: &Stage) {
    stage.load();
    let mut asleep = below(13, 1, Tier::Shared, 0);
    asleep.active = false;
    let mut without = below(14, 1, Tier::Shared, 0);
    without.modules.clear();
    let mut abroad = below(18, 17, Tier::Shared, 0);
    abroad.placement.cell = "cell-2".parse().expect("a cell id");
    let routes = [
        below(11, 1, Tier::Shared, 0),
        below(12, 13, Tier::Shared, 0),
        asleep,
        without,
        below(15, 1, Tier::Schema, 4),
        below(16, 11, Tier::Schema, 4),
        below(17, 16, Tier::Dedicated, 0),
        abroad,
        below(19, 2, Tier::Shared, 0),
    ];
    stage.edge.snapshot().apply(routes.map(put).to_vec());
}

/// The module gets one proof, for the login that only reads, and all places of the subtree that are
/// served, grouped; nothing of a tenant beside or above.
#[tokio::test]
async fn a_subtree_request_names_all_places_once() {
    let stage = Stage::new().await;
    load(&stage);
    let got = stage.get(ALL).await;
    assert_eq!(got.status, 200, "{got:?}");
    let context = got.json()["context"].clone();
    assert_eq!(context["access"], "tree");
    assert_eq!(context["tenant"], "ten_1");
    let claims = context["proof"]["claims"].as_str().unwrap();
    assert!(
        claims.starts_with("v1|waangu_inventory_tree|1|3|"),
        "{claims}"
    );
    assert!(claims.contains("|t|"), "{claims}");
    let place = |cell: &str, tier: &str, bucket: i32, tenants: &[(&str, &str)]| json!({ "cell": cell, "tier": tier, "bucket": bucket, "tenants": tenants });
    let expected = json!([
        place(
            "cell-1",
            "shared",
            0,
            &[("ten_1", "acme"), ("ten_11", "t11"), ("ten_12", "t12")]
        ),
        place(
            "cell-1",
            "schema",
            4,
            &[("ten_15", "t15"), ("ten_16", "t16")]
        ),
        place("cell-1", "dedicated", 0, &[("ten_17", "t17")]),
        place("cell-2", "shared", 0, &[("ten_18", "t18")]),
    ]);
    assert_eq!(context["places"], expected);
    // An ordinary request says nothing of anybody else.
    let got = stage.get("/api/inventory/products").await;
    assert!(got.json()["context"].get("places").is_none());
    stage.end().await;
}

/// A shop's clerk must not see the whole group, nor a tenant one above it.
#[tokio::test]
async fn a_subtree_is_for_those_with_the_permission_and_begins_with_the_caller() {
    let stage = Stage::new().await;
    load(&stage);
    let viewer = stage.token(stage.people.viewer, "acme");
    let got = stage.as_user(&viewer, "GET", "acme", ALL).await;
    assert_eq!(got.code(), "permission-denied");
    for method in ["POST", "PUT", "DELETE"] {
        let got = stage.client.send(empty(stage.request(method, ALL))).await;
        assert_eq!(got.code(), "method-not-allowed", "{method}");
    }
    let boss = UserId::generate();
    let mut shop = below(11, 1, Tier::Shared, 0);
    shop.grants
        .insert(boss, vec!["tenant-admin".parse().unwrap()]);
    stage.edge.snapshot().apply(vec![put(shop)]);
    let got = stage
        .as_user(&stage.token(boss, "t11"), "GET", "t11", ALL)
        .await;
    let context = got.json()["context"].clone();
    assert_eq!(context["tenant"], "ten_11");
    let tenants = context["places"].to_string();
    for (id, seen) in [
        (1, false),
        (2, false),
        (11, true),
        (12, false),
        (15, false),
        (16, true),
        (18, true),
    ] {
        assert_eq!(
            tenants.contains(&format!("\"ten_{id}\"")),
            seen,
            "{id}: {tenants}"
        );
    }
    // And it changes with the tree.
    let shop = TenantId::new(16).unwrap();
    stage
        .edge
        .snapshot()
        .apply(vec![RouteChange::Gone(shop, "t16".parse().unwrap())]);
    let token = stage.token(boss, "t11");
    let got = stage.as_user(&token, "GET", "t11", ALL).await;
    assert!(
        !got.json()["context"]["places"]
            .to_string()
            .contains("ten_16")
    );
    stage.end().await;
}

/// A group that no request can hold is told so; what fits arrives whole.
#[tokio::test]
async fn a_subtree_has_its_limits() {
    let stage = Stage::new().await;
    load(&stage);
    let long = |n: i64| {
        let mut route = below(1_000 + n, 1, Tier::Shared, 0);
        route.slug = format!("a-shop-with-a-rather-long-name-{n}")
            .parse()
            .unwrap();
        put(route)
    };
    stage.edge.snapshot().apply((0..450).map(long).collect());
    let got = stage.get(ALL).await;
    assert_eq!(got.status, 200, "{:?}", got.code());
    let seen = got.json()["context"]["places"]
        .to_string()
        .matches("ten_")
        .count();
    assert_eq!(seen, 450 + 7);

    stage.edge.snapshot().apply((450..700).map(long).collect());
    let got = stage.get(ALL).await;
    assert_eq!(
        (got.status.as_u16(), got.code().as_str()),
        (422, "subtree-too-large")
    );
    let own = |n: i64| put(below(1_000 + n, 1, Tier::Dedicated, 0));
    stage.edge.snapshot().apply((0..700).map(own).collect());
    assert_eq!(stage.get(ALL).await.code(), "subtree-too-large");
    let before = stage.module_seen.requests.load(Ordering::SeqCst);
    let token = stage.token(stage.people.admin, "acme");
    let request = ask("GET", "acme", ALL).header("authorization", format!("Bearer {token}"));
    assert_eq!(
        stage.client.send(empty(request)).await.code(),
        "subtree-too-large"
    );
    assert_eq!(stage.module_seen.requests.load(Ordering::SeqCst), before);
    stage.end().await;
}
