//! What somebody sees who has just typed the one command.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use reqwest::Version;
use serde_json::{Value, json};

use crate::support::{Http, PASSWORD, Platform, Session, Shop, shared};

fn keys(value: &Value) -> BTreeSet<&str> {
    let object = value.as_object().unwrap();
    object.keys().map(String::as_str).collect()
}

/// Every script and every outside check begins with this file: a field that goes missing breaks all
/// of them, and one that others may read gives the platform away.
#[tokio::test]
async fn the_ready_file_keeps_its_contract() {
    let platform = shared().await;
    for path in [
        platform.folder.join("ready.json"),
        platform.folder.state().join("ready.json"),
    ] {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
    let text = fs::read(platform.folder.join("ready.json")).unwrap();
    let ready: Value = serde_json::from_slice(&text).unwrap();
    // `login` is one more than architecture §5 has; readers of version 1 pass it over.
    let contract = [
        "version",
        "pid",
        "gateway",
        "api",
        "login",
        "domain",
        "ca",
        "admin",
        "control_dsn",
        "cells",
        "demo",
    ];
    assert_eq!(keys(&ready), BTreeSet::from(contract));
    assert_eq!(ready["version"], 1);
    assert_eq!(ready["pid"], platform.pid());
    assert_eq!(ready["domain"], "waangu.localhost");
    assert_eq!(keys(&ready["admin"]), BTreeSet::from(["url", "token"]));
    assert_eq!(
        keys(&ready["demo"]),
        BTreeSet::from(["password", "tenants"])
    );
    for tenant in ready["demo"]["tenants"].as_array().unwrap() {
        assert_eq!(keys(tenant), BTreeSet::from(["slug", "tier", "users"]));
        for user in tenant["users"].as_array().unwrap() {
            assert_eq!(keys(user), BTreeSet::from(["username", "roles"]));
        }
    }
    let cells = ready["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 2, "two servers stand for two regions");
    for cell in cells {
        let fields = ["id", "region", "superuser_dsn", "module_dsns"];
        assert_eq!(keys(cell), BTreeSet::from(fields));
        assert_eq!(
            keys(&cell["module_dsns"]),
            BTreeSet::from(["inventory", "inventory_tree"])
        );
        Session::open(cell["superuser_dsn"].as_str().unwrap()).await;
        Session::open(cell["module_dsns"]["inventory"].as_str().unwrap()).await;
    }
    Session::open(ready["control_dsn"].as_str().unwrap()).await;
}

/// The promise of the first minute: four kinds of organisations in all three isolation models, each
/// where its country allows, and a ministry's data at home.
#[tokio::test]
async fn the_demo_fleet_has_every_kind_and_every_tier() {
    let platform = shared().await;
    let demo = &platform.ready.demo.as_ref().unwrap().tenants;
    assert!(demo.len() >= 8, "{demo:?}");
    let mut profiles = BTreeSet::new();
    let mut tiers = BTreeSet::new();
    for tenant in demo {
        let view = platform
            .operate("GET", &format!("/tenants/{}", tenant.slug), None)
            .await
            .expect(200);
        assert_eq!(view["state"], "active", "{view}");
        assert_eq!(view["placement"]["tier"], tenant.tier.as_str());
        let reasons = view["placement"]["reasons"].as_array().unwrap();
        assert!(!reasons.is_empty(), "{view}");
        profiles.insert(view["profile"].as_str().unwrap().to_owned());
        tiers.insert(tenant.tier.clone());
        if view["profile"] == "government" {
            assert_eq!(view["placement"]["region"], "dc-sn-dakar", "{view}");
        }
    }
    let kinds = ["fintech", "government", "multisite", "sme"].map(str::to_owned);
    assert_eq!(profiles, BTreeSet::from(kinds));
    let all = ["dedicated", "schema", "shared"].map(str::to_owned);
    assert_eq!(tiers, BTreeSet::from(all));
}

/// Signing in and working is what all of it is for; a token that opens a neighbour's door would end
/// the company.
#[tokio::test]
async fn each_tenant_is_served_under_its_own_name_and_no_other() {
    let platform = shared().await;
    let demo = &platform.ready.demo.as_ref().unwrap().tenants;
    for (number, tenant) in demo.iter().enumerate() {
        let stranger = &demo[(number + 1) % demo.len()].slug;
        let able = |role: &String| role == "tenant-admin" || role == "inventory.manager";
        let user = tenant
            .users
            .iter()
            .find(|user| user.roles.iter().any(able))
            .unwrap();
        let token = platform
            .sign_in(&user.username, platform.demo_password())
            .await;
        let shop = Shop::with(platform, &tenant.slug, token);
        let sku = format!("E2E-{}", tenant.slug.to_uppercase());
        let body = json!({ "sku": sku, "name": "Café Touba", "price_minor": 5, "currency": "XOF" });
        let created = shop.post("/products", &body).await.expect(201);
        assert_eq!(created["name"], "Café Touba");
        assert!(shop.skus().await.contains(&sku), "{}", tenant.slug);

        let api = format!("{}/api/inventory/products?limit=200", platform.ready.api);
        let listed = platform.http().get(&api).token(&shop.token).send().await;
        listed.expect(200);
        assert!(listed.text.contains(&sku), "{}", listed.text);

        let elsewhere = platform.at(stranger, "/api/inventory/products");
        let refused = platform
            .http()
            .get(&elsewhere)
            .token(&shop.token)
            .send()
            .await;
        refused.refused(403, "tenant-mismatch");
        assert!(!refused.text.contains("items"), "{}", refused.text);
        let theirs = Shop::with(platform, stranger, shop.token.clone());
        theirs
            .post("/products", &body)
            .await
            .refused(403, "tenant-mismatch");
    }
}

/// Old tills speak HTTP/1.1, browsers HTTP/2; both must be served.
#[tokio::test]
async fn both_versions_of_http_are_spoken() {
    let platform = shared().await;
    let url = format!("{}/healthz", platform.ready.gateway);
    let new = platform.http().get(&url).send().await;
    assert_eq!((new.status, new.version), (200, Version::HTTP_2));
    let old = Http::one_point_one(&platform.ready.ca)
        .get(&url)
        .send()
        .await;
    assert_eq!((old.status, old.version), (200, Version::HTTP_11));
}

/// A client who has not paid for a module must not reach it, and must be told why in words that a
/// program can read; switched on again, it has its data.
#[tokio::test]
async fn a_module_that_is_off_says_so() {
    let platform = shared().await;
    platform.tenant("switcher", "shared").await;
    let shop = Shop::open(platform, "switcher").await;
    shop.product("KEPT").await;
    let path = "/tenants/switcher/modules/inventory";
    platform.change("DELETE", path, None).await;
    shop.sees(403, Some("module-not-active")).await;
    let body = json!({ "sku": "LATE", "name": "late" });
    shop.post("/products", &body)
        .await
        .refused(403, "module-not-active");
    platform.change("PUT", path, None).await;
    shop.sees(200, None).await;
    assert_eq!(shop.skus().await, ["KEPT"]);
}

/// A role is what keeps a clerk from changing prices.
#[tokio::test]
async fn a_role_allows_what_it_names_and_no_more() {
    let platform = shared().await;
    platform.tenant("roles", "shared").await;
    platform
        .user("roles", "viewer", &["inventory.viewer"])
        .await;
    platform.user("roles", "nobody", &[]).await;
    let body = json!({ "sku": "A", "name": "a" });
    let viewer = platform.sign_in("viewer@roles", PASSWORD).await;
    let viewer = Shop::with(platform, "roles", viewer);
    viewer.get("/products").await.expect(200);
    viewer
        .post("/products", &body)
        .await
        .refused(403, "permission-denied");
    let nobody = platform.sign_in("nobody@roles", PASSWORD).await;
    let nobody = Shop::with(platform, "roles", nobody);
    nobody
        .get("/products")
        .await
        .refused(403, "permission-denied");
    let grant = json!({ "roles": ["inventory.manager"] });
    platform
        .operate("PUT", "/tenants/roles/users/nobody/roles", Some(&grant))
        .await
        .expect(200);
    nobody.sees(200, None).await;
}

/// The next client on the phone wants to start now, in whichever tier.
#[tokio::test]
async fn a_tenant_made_on_the_command_line_works_at_once() {
    let platform = shared().await;
    for tier in ["shared", "schema", "dedicated"] {
        let slug = format!("fresh-{tier}");
        onboard(platform, &slug, tier).await;
        let token = platform.sign_in(&format!("root@{slug}"), PASSWORD).await;
        let shop = Shop::with(platform, &slug, token);
        shop.product("FIRST").await;
        assert_eq!(shop.skus().await, ["FIRST"]);
    }
}

async fn onboard(platform: &Platform, slug: &str, tier: &str) {
    let create = ["tenant", "create", slug, "--country", "SN", "--tier", tier];
    let ran = platform
        .cli(&[&create[..], &["--output", "json"]].concat())
        .await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let view: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (&view["state"], &view["placement"]["tier"]),
        (&json!("active"), &json!(tier))
    );
    let user = ["user", "create", slug, "root", "--role", "tenant-admin"];
    let ran = platform
        .cli(&[&user[..], &["--password", PASSWORD]].concat())
        .await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
}
