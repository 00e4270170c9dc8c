//! Who may do what: tenants, modules, permissions.

use std::sync::atomic::Ordering;

use waangu_registry::RouteChange;

use crate::stage::{Stage, ask, empty, put};

const PRODUCTS: &str = "/api/inventory/products";

/// The way of every good request: the module hears who acts, where, and what it may do.
#[tokio::test]
async fn a_good_request_reaches_the_module_with_a_signed_context() {
    let stage = Stage::new().await;
    for (host, path) in [
        ("acme", PRODUCTS),
        ("api", PRODUCTS),
        ("ACME", "/api/inventory"),
    ] {
        let token = stage.token(stage.people.viewer, "acme");
        let got = stage.as_user(&token, "GET", host, path).await;
        assert_eq!(got.status, 200, "{host}: {got:?}");
        let context = got.json()["context"].clone();
        assert_eq!(context["module"], "inventory");
        assert_eq!(context["slug"], "acme");
        assert_eq!(context["tenant"], "ten_1");
        assert_eq!(context["access"], "read");
        assert_eq!(context["actor"], stage.people.viewer.to_string());
        assert_eq!(
            context["permissions"],
            serde_json::json!(["inventory:product.read"])
        );
        assert_eq!(context["request"], got.header("waangu-request"));
        assert_eq!(context["proof"]["kid"], 7);
        let claims = context["proof"]["claims"].as_str().unwrap();
        let begin = "v1|waangu_inventory|1|3|";
        let end = format!(
            "|r|{}|{}",
            stage.people.viewer,
            got.header("waangu-request")
        );
        assert!(
            claims.starts_with(begin) && claims.ends_with(&end),
            "{claims}"
        );
        assert!(claims.contains(&context["expires"].to_string()), "{claims}");
    }
    assert_eq!(
        stage.get(PRODUCTS).await.json()["context"]["heading"],
        serde_json::Value::Null
    );
    let mut leaving = stage.acme();
    leaving.heading = Some(leaving.placement.clone());
    stage.edge.snapshot().apply(vec![put(leaving.clone())]);
    let context = stage.get(PRODUCTS).await.json()["context"].clone();
    assert_eq!(context["heading"], context["placement"]);
    let root = stage.get("/api/inventory?x=1").await;
    assert_eq!(root.json()["target"], "/?x=1");
    let write = stage
        .client
        .send(empty(stage.request("PUT", "/api/inventory/products/7")))
        .await;
    assert_eq!(write.json()["context"]["access"], "write");
    let head = stage
        .client
        .send(empty(stage.request("HEAD", PRODUCTS)))
        .await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    stage.end().await;
}

/// The worst that can happen to a client: another tenant's token opens its door.
#[tokio::test]
async fn a_token_of_another_tenant_is_refused() {
    let stage = Stage::new().await;
    let token = stage.token(stage.people.other, "beta");
    let got = stage.as_user(&token, "GET", "acme", PRODUCTS).await;
    assert_eq!(
        (got.status.as_u16(), got.code().as_str()),
        (403, "tenant-mismatch")
    );
    // The same person with a token for a tenant where it holds nothing.
    let token = stage.token(stage.people.other, "acme");
    let got = stage.as_user(&token, "GET", "acme", PRODUCTS).await;
    assert_eq!(
        (got.status.as_u16(), got.code().as_str()),
        (403, "permission-denied")
    );
    assert_eq!(stage.module_seen.requests.load(Ordering::SeqCst), 0);
    stage.end().await;
}

/// Strangers must not be able to find out which modules a tenant has.
#[tokio::test]
async fn modules_and_permissions_are_told_to_members_only() {
    let stage = Stage::new().await;
    for path in [
        PRODUCTS,
        "/api/ledger/products",
        "/api/nothing/products",
        "/api/inventory/none",
    ] {
        let got = stage.client.send(empty(ask("GET", "acme", path))).await;
        assert_eq!(got.code(), "unauthenticated", "{path}");
    }
    let got = stage.get("/api/ledger/products").await;
    assert_eq!(
        (got.status.as_u16(), got.code().as_str()),
        (403, "module-not-active")
    );
    for nothing in [
        "/api/nothing/products",
        "/api/In-valid/x",
        "/api/inventory/none",
        "/api/inventory/products/",
    ] {
        let got = stage.get(nothing).await;
        assert_eq!(
            (got.status.as_u16(), got.code().as_str()),
            (404, "route-not-found"),
            "{nothing}"
        );
    }
    let got = stage
        .client
        .send(empty(stage.request("DELETE", PRODUCTS)))
        .await;
    assert_eq!(
        (got.status.as_u16(), got.code().as_str()),
        (405, "method-not-allowed")
    );
    assert_eq!(got.header("allow"), "GET, POST, HEAD");
    assert_eq!(stage.module_seen.requests.load(Ordering::SeqCst), 0);
    stage.end().await;
}

/// A viewer who can write, or a guest who can read, makes roles worthless.
#[tokio::test]
async fn permissions_come_from_the_registry_and_are_needed() {
    let stage = Stage::new().await;
    let viewer = stage.token(stage.people.viewer, "acme");
    assert_eq!(
        stage.as_user(&viewer, "GET", "acme", PRODUCTS).await.status,
        200
    );
    let got = stage.as_user(&viewer, "POST", "acme", PRODUCTS).await;
    assert_eq!(
        (got.status.as_u16(), got.code().as_str()),
        (403, "permission-denied")
    );
    assert!(
        got.json()["detail"]
            .as_str()
            .unwrap()
            .contains("inventory:product.write")
    );
    let guest = stage.token(stage.people.guest, "acme");
    assert_eq!(
        stage.as_user(&guest, "GET", "acme", PRODUCTS).await.code(),
        "permission-denied"
    );

    // A role taken away works at once, with the token still in the cache.
    let mut without = stage.acme();
    without.grants.remove(&stage.people.viewer);
    stage.edge.snapshot().apply(vec![put(without)]);
    assert_eq!(
        stage.as_user(&viewer, "GET", "acme", PRODUCTS).await.code(),
        "permission-denied"
    );
    stage.end().await;
}

/// A suspended client's people must stay out, and a deleted one's name must lead nowhere.
#[tokio::test]
async fn tenants_that_are_not_active_are_not_served() {
    let stage = Stage::new().await;
    let token = stage.token(stage.people.admin, "asleep");
    for host in ["asleep", "api"] {
        let got = stage.as_user(&token, "GET", host, PRODUCTS).await;
        assert_eq!(
            (got.status.as_u16(), got.code().as_str()),
            (403, "tenant-not-active"),
            "{host}"
        );
    }
    let stranger = stage
        .client
        .send(empty(ask("GET", "asleep", PRODUCTS)))
        .await;
    assert_eq!(stranger.code(), "unauthenticated");
    let nobody = stage
        .client
        .send(empty(ask("GET", "nobody", PRODUCTS)))
        .await;
    assert_eq!(
        (nobody.status.as_u16(), nobody.code().as_str()),
        (404, "tenant-not-found")
    );

    let beta = stage.token(stage.people.other, "beta");
    assert_eq!(
        stage.as_user(&beta, "GET", "beta", PRODUCTS).await.status,
        200
    );
    let gone = stage.beta();
    stage
        .edge
        .snapshot()
        .apply(vec![RouteChange::Gone(gone.id, gone.slug)]);
    for host in ["beta", "api"] {
        let got = stage.as_user(&beta, "GET", host, PRODUCTS).await;
        assert_eq!(
            (got.status.as_u16(), got.code().as_str()),
            (404, "tenant-not-found"),
            "{host}"
        );
    }
    stage.end().await;
}
