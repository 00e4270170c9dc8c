//! A head office reads itself and all tenants below it, over tiers and cells; honest about who is
//! missing, and for nobody else.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Folder, Platform, Shop, shared, until};

const STOCK: &str = "/consolidated/stock?limit=200";
const GROUP: [&str; 4] = [
    "sahel-group",
    "sahel-france",
    "sahel-senegal",
    "sahel-abidjan",
];

/// Stock on hand by SKU, from a page of either kind.
fn sums(page: &Value) -> BTreeMap<String, i64> {
    assert_eq!(page["next"], Value::Null, "the test needs all on one page");
    let mut sums = BTreeMap::new();
    for item in page["items"].as_array().unwrap() {
        let sku = item["sku"].as_str().unwrap().to_owned();
        *sums.entry(sku).or_default() += item["on_hand"].as_i64().unwrap();
    }
    sums
}

async fn demo(platform: &Platform, name: &str) -> Shop {
    let (_, slug) = name.split_once('@').unwrap();
    let token = platform.sign_in(name, platform.demo_password()).await;
    Shop::with(platform, slug, token)
}

/// What a board reads must be what the shops have, in France, Senegal and Côte d'Ivoire.
#[tokio::test]
async fn the_demo_group_adds_up_over_two_cells() {
    let platform = shared().await;
    let tenants = platform.tenants().await;
    let cells: Vec<&str> = tenants
        .iter()
        .filter(|tenant| GROUP.contains(&tenant["slug"].as_str().unwrap()))
        .map(|tenant| tenant["placement"]["cell"].as_str().unwrap())
        .collect();
    assert!(cells.iter().any(|cell| *cell != cells[0]), "{cells:?}");

    let claire = demo(platform, "claire@sahel-group").await;
    let answer = claire.get(STOCK).await.expect(200);
    assert_eq!(answer["tenants"], 4, "{answer}");
    assert_eq!(answer["partial"], Value::Null);
    let mut expected = BTreeMap::new();
    for name in [
        "claire@sahel-group",
        "lea@sahel-france",
        "bineta@sahel-senegal",
        "yao@sahel-abidjan",
    ] {
        let shop = demo(platform, name).await;
        for (sku, on_hand) in sums(&shop.get("/stock?limit=200").await.expect(200)) {
            *expected.entry(sku).or_insert(0) += on_hand;
        }
    }
    assert_eq!(sums(&answer), expected);
    let levels = claire
        .get("/consolidated/levels?limit=200")
        .await
        .expect(200);
    assert_eq!(sums(&levels), expected);
    let tenant = |level: &Value| level["tenant"].as_str().unwrap().to_owned();
    let seen: Vec<String> = levels["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(tenant)
        .collect();
    assert!(
        GROUP
            .iter()
            .all(|slug| seen.iter().any(|seen| seen == slug))
    );

    // Those below see neither the group nor each other.
    let bineta = demo(platform, "bineta@sahel-senegal").await;
    let refused = bineta.get(STOCK).await;
    assert_eq!(
        (refused.status, refused.problem().1),
        (403, "permission-denied".to_owned())
    );
}

/// A shop that changes hands is read by its new owner, with all below it, and no more by its old one.
#[tokio::test]
async fn a_shop_that_changes_hands_is_read_by_its_new_owner_only() {
    let platform = shared().await;
    for (slug, tier, parent) in [
        ("tree-a", "shared", None),
        ("tree-b", "shared", None),
        ("tree-mid", "schema", Some("tree-a")),
        ("tree-low", "dedicated", Some("tree-mid")),
    ] {
        let mut wish = json!({ "slug": slug, "name": slug, "country": "SN", "tier": tier });
        wish["parent"] = parent.into();
        platform.change("POST", "/tenants", Some(&wish)).await;
        platform.user(slug, "root", &["tenant-admin"]).await;
        let shop = Shop::open(platform, slug).await;
        shop.sees(200, None).await;
        shop.product(slug).await;
    }
    let (a, b) = (
        Shop::open(platform, "tree-a").await,
        Shop::open(platform, "tree-b").await,
    );
    let counts = async |shop: &Shop, tenants: i64| {
        until(
            "the group is as it should be",
            Duration::from_secs(5),
            async || {
                let page = shop.get(STOCK).await.expect(200);
                let whole = page["partial"] == Value::Null && page["tenants"] == tenants;
                whole.then_some(())
            },
        )
        .await;
    };
    counts(&a, 3).await;
    counts(&b, 1).await;
    let adopt = json!({ "parent": "tree-b" });
    platform
        .operate("PATCH", "/tenants/tree-mid", Some(&adopt))
        .await
        .expect(200);
    counts(&b, 3).await;
    counts(&a, 1).await;
    platform
        .change("POST", "/tenants/tree-mid/suspend", None)
        .await;
    counts(&b, 2).await;
    platform.change("DELETE", "/tenants/tree-low", None).await;
    counts(&b, 1).await;
}

/// A cell that hangs must neither hold up the others nor be left out in silence.
#[tokio::test]
async fn a_cell_that_hangs_is_named() {
    let platform = Platform::start(Folder::new(), &["--demo", "--http-port", "0"]).await;
    let tenants = platform.tenants().await;
    let cell_of = |slug: &str| {
        let tenant = tenants.iter().find(|tenant| tenant["slug"] == slug);
        tenant.unwrap()["placement"]["cell"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let away = cell_of("sahel-senegal");
    assert_ne!(cell_of("sahel-group"), away);
    let at = platform
        .ready
        .cells
        .iter()
        .position(|cell| cell.id == away)
        .unwrap();
    let mut expected: Vec<&str> = GROUP
        .into_iter()
        .filter(|slug| cell_of(slug) == away)
        .collect();
    expected.sort_unstable();
    let claire = demo(&platform, "claire@sahel-group").await;

    let server = platform.postgres(at).unwrap();
    server.signal(Signal::STOP);
    let answer = claire.get(STOCK).await;
    server.signal(Signal::CONT);
    let answer = answer.expect(200);
    let failed = &answer["partial"]["failed"];
    assert_eq!(failed[0]["why"], "database-unavailable", "{answer}");
    let mut missing: Vec<&str> = failed[0]["tenants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|slug| slug.as_str().unwrap())
        .collect();
    missing.sort_unstable();
    assert_eq!(missing, expected);
    assert_eq!(answer["tenants"], 4 - expected.len());
    until("all answer again", Duration::from_secs(10), async || {
        let page = claire.get(STOCK).await.expect(200);
        (page["partial"] == Value::Null && page["tenants"] == 4).then_some(())
    })
    .await;
}
