//! Who may do what: tokens, tenants, modules, permissions.

use std::sync::atomic::Ordering;

use base64_url::encode;
use waangu_identity::{AccessClaims, TokenIssuer};
use waangu_registry::RouteChange;

use crate::stage::{Stage, ask, empty, put, signing_key};

const PRODUCTS: &str = "/api/inventory/products";

/// Just enough base64url (RFC 4648 §5) to forge a token.
mod base64_url {
    pub(super) fn encode(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        bytes
            .chunks(3)
            .flat_map(|chunk| {
                let word = (0..3).fold(0_usize, |word, place| {
                    word << 8 | chunk.get(place).map_or(0, |byte| usize::from(*byte))
                });
                (0..=chunk.len())
                    .map(move |digit| char::from(DIGITS[word >> (18 - 6 * digit) & 63]))
            })
            .collect()
    }
}

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

/// Each of these would let in somebody who has no token, or made one.
#[tokio::test]
async fn requests_without_a_good_token_are_refused() {
    let stage = Stage::new().await;
    let claims = stage.claims(stage.people.admin, "acme");
    let good = stage.issuer.issue(&claims).unwrap();
    let parts: Vec<&str> = good.split('.').collect();
    let payload = parts[1];
    let with_header =
        |header: &str, rest: &str| format!("{}.{payload}.{rest}", encode(header.as_bytes()));
    let changed = |claims: AccessClaims| stage.issuer.issue(&claims).unwrap();
    let forged_body = encode(
        serde_json::to_string(&AccessClaims {
            tenant: "beta".into(),
            ..claims.clone()
        })
        .unwrap()
        .as_bytes(),
    );
    for (what, token) in [
        ("empty", String::new()),
        ("garbage", "a.b.c".to_owned()),
        ("none", with_header(r#"{"alg":"none","typ":"at+jwt"}"#, "")),
        (
            "None",
            with_header(r#"{"alg":"None","typ":"at+jwt"}"#, parts[2]),
        ),
        (
            "hmac",
            with_header(r#"{"alg":"HS256","typ":"at+jwt","kid":"x"}"#, parts[2]),
        ),
        (
            "kid path",
            with_header(
                r#"{"alg":"EdDSA","typ":"at+jwt","kid":"../../dev/null"}"#,
                parts[2],
            ),
        ),
        (
            "no kid",
            with_header(r#"{"alg":"EdDSA","typ":"at+jwt"}"#, parts[2]),
        ),
        (
            "other body",
            format!("{}.{forged_body}.{}", parts[0], parts[2]),
        ),
        ("no signature", format!("{}.{payload}.", parts[0])),
        ("id token", stage.issuer.issue_id_token(&claims).unwrap()),
        (
            "stranger's key",
            TokenIssuer::new(signing_key()).issue(&claims).unwrap(),
        ),
        (
            "other issuer",
            changed(AccessClaims {
                iss: "https://evil.test".into(),
                ..claims.clone()
            }),
        ),
        (
            "other audience",
            changed(AccessClaims {
                aud: "other".into(),
                ..claims.clone()
            }),
        ),
        (
            "from the future",
            changed(AccessClaims {
                iat: claims.iat + 3600,
                ..claims.clone()
            }),
        ),
        (
            "not a user",
            changed(AccessClaims {
                sub: "root".into(),
                ..claims.clone()
            }),
        ),
        (
            "not a tenant",
            changed(AccessClaims {
                tenant: "../acme".into(),
                ..claims.clone()
            }),
        ),
        ("huge", "a".repeat(9000)),
    ] {
        let got = stage.as_user(&token, "GET", "acme", PRODUCTS).await;
        assert_eq!(
            (got.status.as_u16(), got.code().as_str()),
            (401, "unauthenticated"),
            "{what}"
        );
        assert_eq!(got.header("www-authenticate"), "Bearer", "{what}");
    }
    let expired = changed(AccessClaims {
        exp: claims.iat - 60,
        iat: claims.iat - 400,
        ..claims.clone()
    });
    let got = stage.as_user(&expired, "GET", "acme", PRODUCTS).await;
    assert_eq!(
        (got.status.as_u16(), got.code().as_str()),
        (401, "token-expired")
    );
    assert_eq!(got.header("www-authenticate"), "Bearer");

    let none = stage.client.send(empty(ask("GET", "acme", PRODUCTS))).await;
    assert_eq!(none.code(), "unauthenticated");
    let basic = ask("GET", "acme", PRODUCTS).header("authorization", "Basic YTpi");
    assert_eq!(
        stage.client.send(empty(basic)).await.code(),
        "unauthenticated"
    );
    let twice = stage
        .request("GET", PRODUCTS)
        .header("authorization", format!("Bearer {good}"));
    assert_eq!(
        stage.client.send(empty(twice)).await.code(),
        "unauthenticated"
    );
    assert_eq!(stage.module_seen.requests.load(Ordering::SeqCst), 0);
    stage.end().await;
}

/// A token that was good a moment ago is remembered; it must still end when its time is over.
#[tokio::test]
async fn a_remembered_token_still_expires() {
    let stage = Stage::new().await;
    let mut claims = stage.claims(stage.people.admin, "acme");
    // Within the accepted clock difference of 30 s for three more seconds.
    claims.exp = claims.iat - 28;
    claims.iat -= 300;
    let token = stage.issuer.issue(&claims).unwrap();
    assert_eq!(
        stage.as_user(&token, "GET", "acme", PRODUCTS).await.status,
        200
    );
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    assert_eq!(
        stage.as_user(&token, "GET", "acme", PRODUCTS).await.code(),
        "token-expired"
    );
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
