//! Flags and limits at the edge: OFREP, what a module is told, and the requests a tenant may send.

use std::collections::HashMap;

use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};
use waangu_kernel::entitlement::Values;
use waangu_kernel::manifest::Manifest;
use waangu_registry::{Sets, StoredModule};

use crate::client::Got;
use crate::stage::{MANIFEST, Stage, ask, put};

const FLAGS: &str = "/ofrep/v1/evaluate/flags";

const DECLARED: &str = r#"
    [flags.batch]
    type = "bool"
    default = false
    description = "Many at once"
    [flags.theme]
    type = "json"
    default = { colour = "blue" }
    description = "Colours"
    [limits.products]
    default = 100
    unit = "products"
    description = "Products"
"#;

fn values(json: Value) -> Values {
    serde_json::from_value(json).unwrap()
}

/// `acme` has the plan `gold`, the profile `sme` and one value of its own; `beta` has nothing.
async fn stage() -> Stage {
    let stage = Stage::new().await;
    let with_flags = format!("{MANIFEST}{DECLARED}");
    let manifests = [
        with_flags.clone(),
        with_flags.replace("inventory", "ledger"),
    ];
    let modules = manifests.map(|text| StoredModule {
        manifest: Manifest::parse(&text).unwrap(),
    });
    let snapshot = stage.edge.snapshot();
    snapshot.install(&modules);
    snapshot.furnish(Sets {
        plans: HashMap::from([(
            "gold".parse().unwrap(),
            values(json!({ "inventory.batch": true, "inventory.products": 500, "users": 9 })),
        )]),
        profiles: HashMap::from([("sme".parse().unwrap(), values(json!({ "users": 5 })))]),
    });
    let mut acme = stage.acme();
    acme.plan = Some("gold".parse().unwrap());
    acme.profile = Some("sme".parse().unwrap());
    acme.own = Some(values(
        json!({ "inventory.products": 7, "requests_per_minute": 600 }),
    ));
    snapshot.apply(vec![put(acme)]);
    stage
}

async fn evaluate(stage: &Stage, host: &str, path: &str, body: &str, tag: &str) -> Got {
    let token = match host {
        "beta" => stage.token(stage.people.other, "beta"),
        _ => stage.token(stage.people.guest, "acme"),
    };
    let request = ask("POST", host, &format!("{FLAGS}{path}"))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json; charset=utf-8")
        .header("if-none-match", tag)
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap();
    stage.client.send(request).await
}

/// A front end that shows one client another client's features, or misses its own, is what flags are
/// there to prevent; the browser's own words about who it is must count for nothing.
#[tokio::test]
async fn ofrep_gives_each_tenant_its_own_values_with_their_origin() {
    let stage = stage().await;
    let lie = r#"{"context":{"targetingKey":"beta","tenant":"beta","plan":"none"}}"#;
    let got = evaluate(&stage, "acme", "", lie, "").await;
    assert_eq!(got.status, 200);
    assert_eq!(got.header("content-type"), "application/json");
    let flags = got.json()["flags"].clone();
    let told: Vec<(String, Value, String, String)> = flags
        .as_array()
        .unwrap()
        .iter()
        .map(|flag| {
            let text = |name: &str| flag[name].as_str().unwrap().to_owned();
            assert_eq!(flag["metadata"]["origin"], flag["variant"]);
            (
                text("key"),
                flag["value"].clone(),
                text("reason"),
                text("variant"),
            )
        })
        .collect();
    let wanted = [
        ("inventory.batch", json!(true), "TARGETING_MATCH", "plan"),
        (
            "inventory.products",
            json!(7),
            "TARGETING_MATCH",
            "override",
        ),
        (
            "inventory.theme",
            json!({ "colour": "blue" }),
            "STATIC",
            "default",
        ),
        (
            "requests_per_minute",
            json!(600),
            "TARGETING_MATCH",
            "override",
        ),
        ("users", json!(5), "TARGETING_MATCH", "profile"),
    ];
    let wanted = wanted.map(|(key, value, reason, origin)| {
        (key.to_owned(), value, reason.to_owned(), origin.to_owned())
    });
    assert_eq!(told, wanted);

    let other = evaluate(&stage, "beta", "/users", r#"{"context":{}}"#, "").await;
    assert_eq!(other.status, 200);
    let other = other.json();
    assert_eq!(other["variant"], "default");
    assert!(
        other.get("value").is_none(),
        "no limit is no value: {other}"
    );
    // On the common address the token alone says who it is.
    let common = evaluate(&stage, "api", "/users", lie, "").await.json();
    assert_eq!(common["value"], 5);
    stage.end().await;
}

/// A client that polls must hear "nothing new" for nothing, and of a change at once.
#[tokio::test]
async fn a_known_answer_is_304_until_something_changes() {
    let stage = stage().await;
    let body = r#"{"context":{}}"#;
    let first = evaluate(&stage, "acme", "", body, "\"x\"").await;
    let tag = first.header("etag").to_owned();
    assert!(tag.starts_with('"') && tag.len() == 66, "{tag}");
    for known in [
        tag.clone(),
        format!("W/{tag}"),
        format!("\"x\", {tag}"),
        "*".to_owned(),
    ] {
        let again = evaluate(&stage, "acme", "", body, &known).await;
        assert_eq!(again.status, 304, "{known}");
        assert!(again.body.is_empty());
        assert_eq!(again.header("etag"), tag);
    }
    stage.edge.snapshot().furnish(Sets::default());
    let changed = evaluate(&stage, "acme", "", body, &tag).await;
    assert_eq!(changed.status, 200);
    assert_ne!(changed.header("etag"), tag);
    stage.end().await;
}

/// OpenFeature's clients branch on these codes; another shape is to them a broken server.
#[tokio::test]
async fn mistakes_have_the_shape_that_openfeature_expects() {
    let stage = stage().await;
    let code = |got: &Got| {
        assert_eq!(got.header("content-type"), "application/json", "{got:?}");
        (
            got.status.as_u16(),
            got.json()["errorCode"].as_str().unwrap().to_owned(),
        )
    };
    let fine = r#"{"context":{}}"#;
    for key in ["nothing", "ledger.batch", "inventory."] {
        let got = evaluate(&stage, "acme", &format!("/{key}"), fine, "").await;
        assert_eq!(code(&got), (404, "FLAG_NOT_FOUND".to_owned()), "{key}");
        assert_eq!(got.json()["key"], key);
    }
    for (body, wanted) in [
        ("{", "PARSE_ERROR"),
        ("{}", "INVALID_CONTEXT"),
        (r#"{"context":{"targetingKey":1}}"#, "INVALID_CONTEXT"),
    ] {
        for path in ["", "/users"] {
            let got = evaluate(&stage, "acme", path, body, "").await;
            assert_eq!(code(&got), (400, wanted.to_owned()), "{path} {body}");
        }
    }
    let large = format!(r#"{{"context":{{"x":"{}"}}}}"#, "x".repeat(70_000));
    let got = evaluate(&stage, "acme", "", &large, "").await;
    assert_eq!(
        (got.status.as_u16(), got.code().as_str()),
        (413, "body-too-large")
    );

    let stranger = ask("POST", "acme", FLAGS)
        .body(Full::new(Bytes::from(fine)))
        .unwrap();
    assert_eq!(stage.client.send(stranger).await.status, 401);
    let token = stage.token(stage.people.other, "beta");
    let got = stage.as_user(&token, "POST", "acme", FLAGS).await;
    assert_eq!(got.code(), "tenant-mismatch");
    let token = stage.token(stage.people.admin, "asleep");
    let got = stage.as_user(&token, "POST", "asleep", FLAGS).await;
    assert_eq!(got.code(), "tenant-not-active");
    let token = stage.token(stage.people.guest, "acme");
    let got = stage.as_user(&token, "GET", "acme", FLAGS).await;
    assert_eq!((got.status.as_u16(), got.header("allow")), (405, "POST"));
    let got = stage
        .as_user(&token, "POST", "acme", "/ofrep/v1/configuration")
        .await;
    assert_eq!(got.status, 404);
    stage.end().await;
}

/// A module learns what differs from its own manifest, of itself alone: anything more is weight in
/// each request, anything less a feature that was paid for and is off.
#[tokio::test]
async fn a_module_is_told_its_own_flags_that_are_not_the_default() {
    let stage = stage().await;
    let told = stage.get("/api/inventory/products").await.json();
    let wanted = json!({ "inventory.batch": true, "inventory.products": 7 });
    assert_eq!(told["context"]["flags"], wanted);
    let token = stage.token(stage.people.other, "beta");
    let got = stage
        .as_user(&token, "GET", "beta", "/api/inventory/products")
        .await;
    let context = got.json()["context"].clone();
    assert!(
        context.is_object() && context.get("flags").is_none(),
        "{context}"
    );
    stage.end().await;
}

/// A client on a small plan gets what it pays for, hears when to come back, and slows down nobody.
#[tokio::test]
async fn requests_per_minute_hold_one_tenant() {
    let stage = stage().await;
    let mut acme = stage.acme();
    acme.own = Some(values(json!({ "requests_per_minute": 3 })));
    stage.edge.snapshot().apply(vec![put(acme)]);
    for _ in 0..2 {
        assert_eq!(stage.get("/api/inventory/products").await.status, 200);
    }
    let got = evaluate(&stage, "acme", "/users", r#"{"context":{}}"#, "").await;
    assert_eq!(got.status, 200);
    let got = stage.get("/api/inventory/products").await;
    assert_eq!(
        (got.status.as_u16(), got.code().as_str()),
        (429, "rate-limited")
    );
    let wait: u64 = got.header("retry-after").parse().unwrap();
    assert!((1..=20).contains(&wait), "{wait}");
    let got = evaluate(&stage, "acme", "", r#"{"context":{}}"#, "").await;
    assert_eq!(got.status, 429);
    let token = stage.token(stage.people.other, "beta");
    for _ in 0..5 {
        let got = stage
            .as_user(&token, "GET", "beta", "/api/inventory/products")
            .await;
        assert_eq!(got.status, 200);
    }
    stage.end().await;
}
