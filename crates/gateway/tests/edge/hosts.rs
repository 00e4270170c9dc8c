//! Which host leads where.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use crate::stage::{Stage, ask, empty};

/// People find everything from the one address they know.
#[tokio::test]
async fn the_domain_tells_where_things_are() {
    let stage = Stage::new().await;
    let got = stage.client.send(empty(ask("GET", "", "/"))).await;
    assert_eq!(got.status, 200);
    let document = got.json();
    assert_eq!(document["name"], "Waangu 360");
    assert_eq!(document["api"], "https://api.waangu.localhost:8443");
    assert_eq!(document["login"], "https://login.waangu.localhost:8443");
    assert_eq!(document["admin"], "https://admin.waangu.localhost:8443");
    assert_eq!(
        stage
            .client
            .send(empty(ask("GET", "", "/other")))
            .await
            .code(),
        "route-not-found"
    );
    let post = stage.client.send(empty(ask("POST", "", "/"))).await;
    assert_eq!(
        (post.code().as_str(), post.header("allow")),
        ("method-not-allowed", "GET, HEAD")
    );
    stage.end().await;
}

/// A gateway that says it is ready before it knows anybody gets traffic that it must refuse.
#[tokio::test]
async fn health_waits_for_snapshot_and_keys() {
    let stage = Stage::bare(|_limits| {}).await;
    let got = stage.client.send(empty(ask("GET", "", "/healthz"))).await;
    assert_eq!((got.status.as_u16(), got.header("retry-after")), (503, "1"));
    let early = stage.get("/api/inventory/products").await;
    assert_eq!(
        (early.status.as_u16(), early.code().as_str()),
        (503, "overloaded")
    );
    stage.load();
    for _ in 0..50 {
        if stage
            .client
            .send(empty(ask("GET", "", "/healthz")))
            .await
            .status
            == 200
        {
            return stage.end().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("never healthy");
}

/// Operators reach the control plane at both addresses, with their own token, and it hears from whom.
#[tokio::test]
async fn admin_requests_go_to_the_control_plane_as_they_are() {
    let stage = Stage::new().await;
    for host in ["admin", "api"] {
        let request = ask("POST", host, "/admin/v1/tenants?dry=1")
            .header("authorization", "Bearer operator")
            .header("idempotency-key", "k1")
            .header("prefer", "wait=30")
            .header("waangu-client-ip", "6.6.6.6")
            .header("x-forwarded-for", "6.6.6.6")
            .body(Full::new(Bytes::from("{}")))
            .unwrap();
        let got = stage.client.send(request).await;
        assert_eq!(got.status, 202, "{host}");
        let seen = got.json();
        assert_eq!(seen["target"], "/admin/v1/tenants?dry=1");
        assert_eq!(seen["body"], "{}");
        let headers = &seen["headers"];
        assert_eq!(headers["authorization"], "Bearer operator");
        assert_eq!(headers["idempotency-key"], "k1");
        assert_eq!(headers["prefer"], "wait=30");
        assert_eq!(headers["waangu-client-ip"], "127.0.0.1");
        assert_eq!(headers["waangu-request"], got.header("waangu-request"));
        assert_eq!(headers["x-forwarded-for"], serde_json::Value::Null);
    }
    for (host, path) in [
        ("admin", "/"),
        ("admin", "/login/x"),
        ("admin", "/jwks"),
        ("api", "/admin/v10"),
        ("acme", "/admin/v1/tenants"),
    ] {
        let got = stage.client.send(empty(ask("GET", host, path))).await;
        assert_eq!(got.code(), "route-not-found", "{host}{path}");
    }
    assert_eq!(stage.control_seen.requests.load(Ordering::SeqCst), 2);
    stage.end().await;
}

/// Signing in happens under the directory's own name, and only there.
#[tokio::test]
async fn the_login_host_is_the_directory() {
    let stage = Stage::new().await;
    let got = stage
        .client
        .send(empty(ask(
            "GET",
            "login",
            "/.well-known/openid-configuration?a=1",
        )))
        .await;
    assert_eq!(
        got.json()["target"],
        "/login/.well-known/openid-configuration?a=1"
    );
    let got = stage
        .client
        .send(empty(ask("GET", "login", "/admin/v1/tenants")))
        .await;
    assert_eq!(got.json()["target"], "/login/admin/v1/tenants");
    stage.end().await;
}

/// Guessing passwords must be slow for one address.
#[tokio::test]
async fn the_login_host_is_limited_for_each_address() {
    let stage = Stage::with(|limits| limits.login_rate = waangu_gateway::Rate::new(1, 3)).await;
    let mut codes = Vec::new();
    for _ in 0..6 {
        codes.push(
            stage
                .client
                .send(empty(ask("POST", "login", "/token")))
                .await,
        );
    }
    assert_eq!(codes[0].status, 202);
    let last = &codes[5];
    assert_eq!(
        (last.status.as_u16(), last.code().as_str()),
        (429, "rate-limited")
    );
    assert_ne!(last.header("retry-after"), "");
    stage.end().await;
}

/// A name that is not ours must learn nothing about what runs here.
#[tokio::test]
async fn unknown_hosts_learn_nothing() {
    let stage = Stage::new().await;
    for host in [
        "example.com",
        "127.0.0.1",
        "waangu.localhost.evil.test",
        "a.b.waangu.localhost",
        "www.waangu.localhost",
    ] {
        let request = Request::builder().uri("/").header("host", host);
        let got = stage.client.send(empty(request)).await;
        assert_eq!(
            (got.status.as_u16(), got.code().as_str()),
            (421, "misdirected-request"),
            "{host}"
        );
        let text = String::from_utf8_lossy(&got.body).into_owned();
        assert!(
            !text.contains("127.0.0.1") && !text.contains("waangu.localhost"),
            "{text}"
        );
    }
    stage.end().await;
}
