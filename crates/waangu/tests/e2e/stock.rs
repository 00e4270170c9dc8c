//! Databases and schemas that are ready before their tenants come.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::support::{Folder, Platform, Session, Shop, db::in_database, until};

const STOCK: &str =
    "select count(*) from pg_database where datname ~ '^waangu_stock_[0-9a-f]{16}_'";

/// Waits until a cell has so many.
pub(crate) async fn holds(platform: &Platform, cell: &str, count: i64) {
    let cells = &platform.ready.cells;
    let found = cells.iter().find(|ready| ready.id == cell).unwrap();
    let server = Session::open(&found.superuser_dsn).await;
    let right = async || (server.number(STOCK).await == count).then_some(());
    until(
        "the stock is as it should be",
        Duration::from_mins(1),
        right,
    )
    .await;
}

/// A client who waits for a database waits for what could have been done the night before; and a
/// stock on a cell that is being emptied keeps it from ever being empty.
#[tokio::test]
async fn a_dedicated_tenant_takes_a_ready_database() {
    let platform = Platform::start(Folder::new(), &["--http-port", "0", "--stock", "2"]).await;
    let cells: Vec<String> = platform
        .ready
        .cells
        .iter()
        .map(|cell| cell.id.clone())
        .collect();
    for cell in &cells {
        holds(&platform, cell, 2).await;
    }
    let began = Instant::now();
    let wish = json!({ "slug": "quick", "name": "quick", "country": "SN", "tier": "dedicated" });
    let accepted = platform.change("POST", "/tenants", Some(&wish)).await;
    println!("onboarded in {:?}", began.elapsed());
    let home = platform
        .operate("GET", "/tenants/quick", None)
        .await
        .expect(200);
    let home = home["placement"]["cell"]
        .as_str()
        .unwrap_or_else(|| panic!("{accepted}"))
        .to_owned();
    platform.user("quick", "root", &["tenant-admin"]).await;
    let shop = Shop::open(&platform, "quick").await;
    shop.product("FIRST").await;
    assert_eq!(shop.skus().await, ["FIRST"]);

    holds(&platform, &home, 2).await;
    let path = format!("/cells/{home}/drain");
    platform.operate("POST", &path, None).await;
    holds(&platform, &home, 0).await;
}

/// The same for a client with tables of its own in a database of many; and an auditor who looks while
/// schemas wait for their clients must find nothing amiss.
#[tokio::test]
async fn a_tenant_of_the_schema_tier_takes_a_ready_schema() {
    let platform = Platform::start(Folder::new(), &["--http-port", "0", "--stock", "2"]).await;
    let onboard = async |slug: &str| {
        let wish = json!({ "slug": slug, "name": slug, "country": "IE", "tier": "schema" });
        platform.change("POST", "/tenants", Some(&wish)).await;
        platform.user(slug, "root", &["tenant-admin"]).await;
        let shop = Shop::open(&platform, slug).await;
        shop.product("FIRST").await;
        assert_eq!(shop.skus().await, ["FIRST"]);
    };
    onboard("first").await;
    let registry = Session::open(&platform.ready.control_dsn).await;
    let place = "select cell, 'waangu_schema_' || bucket from registry.tenant where slug = 'first'";
    let place = registry.rows(place, &[]).await.remove(0);
    let (cell, bucket): (String, String) = (place.get(0), place.get(1));
    let cells = &platform.ready.cells;
    let cell = cells.iter().find(|ready| ready.id == cell).unwrap();
    let bucket = Session::open(&in_database(&cell.superuser_dsn, &bucket)).await;
    let stock = "select oid::text from pg_namespace where nspname ~ '^stock_[0-9a-f]{16}_[0-9]+_inventory$'";
    let full = async || {
        let there = bucket.texts(stock).await;
        (there.len() == 2).then_some(there)
    };
    let before = until("the stock is full", Duration::from_mins(1), full).await;
    for look in [["doctor", "isolation"], ["fleet", "repair"]] {
        let fine = platform.cli(&look).await;
        assert_eq!(fine.code, Some(0), "{fine:?}");
    }

    onboard("second").await;
    let number = "select id from registry.tenant where slug = 'second'";
    let number = registry.number(number).await;
    let own = format!("select oid::text from pg_namespace where nspname = 't_{number}_inventory'");
    let own = bucket.texts(&own).await;
    assert!(before.contains(&own[0]), "{own:?} was none of {before:?}");
    until("the stock is full again", Duration::from_mins(1), full).await;
    let fine = platform.cli(&["doctor", "isolation"]).await;
    assert_eq!(fine.code, Some(0), "{fine:?}");
}
