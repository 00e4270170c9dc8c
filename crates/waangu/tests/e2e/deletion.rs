//! A client who leaves.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::platform::GRACE;
use crate::support::{Platform, Session, Shop, db::in_database, shared, until};

/// A tenant with one product, and where it stands.
struct Home {
    slug: String,
    number: i64,
    database: String,
    cell_dsn: String,
}

impl Home {
    async fn new(platform: &Platform, slug: &str, tier: &str) -> Self {
        let accepted = platform.tenant(slug, tier).await;
        Shop::open(platform, slug).await.product("LAST").await;
        let view = platform
            .operate("GET", &format!("/tenants/{slug}"), None)
            .await
            .expect(200);
        let id = view["id"].as_str().unwrap().strip_prefix("ten_").unwrap();
        let cell = &accepted["placement"]["cell"];
        let cells = &platform.ready.cells;
        let cell = cells.iter().find(|known| cell == &known.id).unwrap();
        Self {
            slug: slug.to_owned(),
            number: id.parse().unwrap(),
            database: view["placement"]["database"].as_str().unwrap().to_owned(),
            cell_dsn: cell.superuser_dsn.clone(),
        }
    }

    /// What the cell still has of it: databases, schemas, rows, the door.
    async fn remains(&self, tier: &str) -> Vec<String> {
        let mut left = Vec::new();
        let server = Session::open(&self.cell_dsn).await;
        let databases = server.texts("select datname::text from pg_database").await;
        if tier == "dedicated" {
            left.extend(databases.into_iter().filter(|name| *name == self.database));
            return left;
        }
        let place = Session::open(&in_database(&self.cell_dsn, &self.database)).await;
        let schemas = format!(
            "select nspname::text from pg_namespace where nspname like 't\\_{}\\_%'",
            self.number
        );
        left.extend(place.texts(&schemas).await);
        let mut tables = vec!["waangu.home"];
        if tier == "shared" {
            tables.extend(["product", "place", "stock_move", "stock_level"].map(
                |name| match name {
                    "product" => "inventory.product",
                    "place" => "inventory.place",
                    "stock_move" => "inventory.stock_move",
                    _ => "inventory.stock_level",
                },
            ));
        }
        for table in tables {
            let sql = format!(
                "select count(*) from {table} where tenant_id = {}",
                self.number
            );
            if place.number(&sql).await > 0 {
                left.push(table.to_owned());
            }
        }
        left
    }
}

/// A client who leaves may ask a court whether its data is gone, and a client who stays must not even
/// notice. The audit has to tell the story afterwards, and nobody may take over the name while old
/// links still point to it.
#[tokio::test]
async fn a_deleted_tenant_leaves_its_audit_and_nothing_else() {
    let platform = shared().await;
    for tier in ["shared", "schema", "dedicated"] {
        let stays = Home::new(platform, &format!("stays-{tier}"), tier).await;
        let goes = Home::new(platform, &format!("goes-{tier}"), tier).await;
        assert!(!goes.remains(tier).await.is_empty(), "{tier}");
        let before = stays.remains(tier).await;
        let token = Shop::open(platform, &goes.slug).await.token;

        let path = format!("/tenants/{}", goes.slug);
        platform.change("DELETE", &path, None).await;
        check_name(platform, &goes.slug).await;

        assert_eq!(goes.remains(tier).await, Vec::<String>::new(), "{tier}");
        let orphan = Shop::with(platform, &goes.slug, token);
        let refused = orphan.get("/products").await;
        assert!([403, 404].contains(&refused.status), "{}", refused.text);
        refused.problem();

        assert_eq!(stays.remains(tier).await, before, "{tier}");
        let neighbour = Shop::open(platform, &stays.slug).await;
        assert_eq!(neighbour.skus().await, ["LAST"], "{tier}");
        check_audit(platform, &goes.slug).await;
    }
}

/// Not found, not to be had, and free after the grace time for a tenant that inherits nothing.
async fn check_name(platform: &Platform, slug: &str) {
    let wish = json!({ "slug": slug, "name": "Heir", "country": "SN", "tier": "shared" });
    let taken = platform.operate("POST", "/tenants", Some(&wish)).await;
    taken.refused(409, "slug-taken");
    let gone = platform
        .operate("GET", &format!("/tenants/{slug}"), None)
        .await;
    gone.refused(404, "tenant-not-found");
    let login = platform
        .token(&format!("root@{slug}"), "correct horse 12")
        .await;
    assert_eq!(login.status, 400, "{}", login.text);
    let limit = Duration::from_secs(GRACE + 4);
    until("the name is free", limit, async || {
        let answer = platform.operate("POST", "/tenants", Some(&wish)).await;
        (answer.status == 202).then_some(())
    })
    .await;
    platform.user(slug, "heir", &["tenant-admin"]).await;
    let signed_in = platform
        .sign_in(&format!("heir@{slug}"), "correct horse 12")
        .await;
    let heir = Shop::with(platform, slug, signed_in);
    assert_eq!(heir.skus().await, Vec::<String>::new());
    platform
        .change("DELETE", &format!("/tenants/{slug}"), None)
        .await;
}

async fn check_audit(platform: &Platform, slug: &str) {
    let path = format!("/audit?tenant={slug}");
    let audited = platform.operate("GET", &path, None).await.expect(200);
    let actions: Vec<&str> = audited["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["action"].as_str().unwrap())
        .collect();
    // Newest first: the heir's short life, then the first one's.
    let life = ["tenant.delete", "user.create", "tenant.create"];
    assert_eq!(actions, [life, life].concat(), "{audited}");
}

/// A head office that is deleted by mistake would take its subsidiaries' parent away.
#[tokio::test]
async fn a_tenant_with_children_stays() {
    let platform = shared().await;
    platform.tenant("head", "shared").await;
    let child = json!({ "slug": "branch", "name": "Branch", "country": "SN", "parent": "head" });
    platform.change("POST", "/tenants", Some(&child)).await;
    let refused = platform.operate("DELETE", "/tenants/head", None).await;
    refused.refused(409, "tenant-has-children");
    Shop::open(platform, "head").await.product("STILL").await;
    platform.change("DELETE", "/tenants/branch", None).await;
    platform.change("DELETE", "/tenants/head", None).await;
}

/// While a tenant is on its way out nobody can be hung below it: it would have no parent tomorrow.
#[tokio::test]
async fn nobody_is_adopted_by_a_tenant_on_its_way_out() {
    let platform = shared().await;
    for number in 0..3 {
        let parent = format!("leaving-{number}");
        let child = format!("orphan-{number}");
        let wish = |slug: &str, tier: &str| json!({ "slug": slug, "name": slug, "country": "SN", "tier": tier });
        platform
            .change("POST", "/tenants", Some(&wish(&parent, "dedicated")))
            .await;
        platform
            .change("POST", "/tenants", Some(&wish(&child, "shared")))
            .await;
        let http = platform.http();
        let token = &platform.ready.admin.token;
        let url = platform.admin(&format!("/tenants/{parent}"));
        http.call("DELETE", &url)
            .token(token)
            .send()
            .await
            .expect(202);
        let adopt = json!({ "parent": parent });
        let url = platform.admin(&format!("/tenants/{child}"));
        let adopted = http
            .call("PATCH", &url)
            .token(token)
            .json(&adopt)
            .send()
            .await;
        assert_ne!(adopted.status, 200, "{}", adopted.text);
        adopted.problem();
    }
}

/// A client who does not pay is locked out in moments, and loses nothing by it.
#[tokio::test]
async fn a_suspended_tenant_is_locked_out_and_comes_back_whole() {
    let platform = shared().await;
    for tier in ["shared", "schema", "dedicated"] {
        let slug = format!("paused-{tier}");
        platform.tenant(&slug, tier).await;
        let shop = Shop::open(platform, &slug).await;
        shop.product("KEPT").await;
        platform
            .change("POST", &format!("/tenants/{slug}/suspend"), None)
            .await;
        shop.sees(403, Some("tenant-not-active")).await;
        let body: Value = json!({ "sku": "NO", "name": "no" });
        shop.post("/products", &body)
            .await
            .refused(403, "tenant-not-active");
        platform
            .change("POST", &format!("/tenants/{slug}/resume"), None)
            .await;
        shop.sees(200, None).await;
        assert_eq!(shop.skus().await, ["KEPT"], "{tier}");
    }
}
