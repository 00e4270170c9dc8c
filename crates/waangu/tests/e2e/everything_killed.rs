//! The power goes: every process dies at once, or the supervisor alone, and somebody types the command
//! again.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::process::{alive, descendants};
use crate::support::{Folder, Platform, Session, Shop, db::in_database, until};

const DEMO: &[&str] = &["--demo", "--http-port", "0"];

/// Everything that has to be there again.
#[derive(Debug, PartialEq)]
struct Memory {
    ready: Value,
    certificate: Vec<u8>,
    keys: Value,
    tenants: Vec<Value>,
    rows: BTreeMap<String, i64>,
}

impl Memory {
    async fn of(platform: &Platform) -> Self {
        let mut ready = serde_json::to_value(&platform.ready).unwrap();
        ready["pid"] = Value::Null;
        let keys = platform.http().get(&platform.login("/jwks")).send().await;
        Self {
            ready,
            certificate: fs::read(&platform.ready.ca).unwrap(),
            keys: keys.expect(200),
            tenants: platform.tenants().await,
            rows: rows(platform).await,
        }
    }
}

/// How many rows there are in every table of tenants and in the registry's own, but for what is made
/// ahead or written by the clock.
async fn rows(platform: &Platform) -> BTreeMap<String, i64> {
    let mut all = BTreeMap::new();
    let databases = "select datname::text from pg_database
          where datname like 'waangu%' and datname not like 'waangu\\_stock%' and datallowconn";
    let tables = "select format('%I.%I', schemaname, tablename) from pg_tables
                   where schemaname ~ '(inventory|registry)' and schemaname !~ '^stock_'
                     and tablename <> all ('{login_attempt, cell_usage, tenant_traffic, tenant_volume,
                                             advisor_round, advice, repair, repair_finding}')";
    for cell in &platform.ready.cells {
        let server = Session::open(&cell.superuser_dsn).await;
        for database in server.texts(databases).await {
            let place = Session::open(&in_database(&cell.superuser_dsn, &database)).await;
            for table in place.texts(tables).await {
                let count = place.number(&format!("select count(*) from {table}")).await;
                all.insert(format!("{} {database} {table}", cell.id), count);
            }
        }
    }
    all
}

/// A power cut costs a client nothing: the same data, the same people still signed in, no manual step;
/// and the demo fleet is not there twice.
#[tokio::test]
async fn a_power_cut_loses_nothing() {
    let mut platform = Platform::start(Folder::new(), DEMO).await;
    let password = platform.demo_password().to_owned();
    let token = platform.sign_in("awa@teranga-market", &password).await;
    let shop = Shop::with(&platform, "teranga-market", token.clone());
    // The last acknowledged word before the lights go out.
    shop.product("LAST-SECOND").await;
    let before = Memory::of(&platform).await;
    let total: i64 = before.rows.values().sum();
    assert!(total > 3000, "{:?}", before.rows);

    platform.kill_everything().await;
    platform.again(DEMO).await;
    assert_eq!(Memory::of(&platform).await, before);
    let shop = Shop::with(&platform, "teranga-market", token);
    assert!(shop.skus().await.contains(&"LAST-SECOND".to_owned()));
    platform.sign_in("awa@teranga-market", &password).await;
}

/// The supervisor is one process among many, and may be the one that dies: the others must not live on
/// in the dark, holding the port and the data, and the next start has to find its way by itself.
#[tokio::test]
async fn without_its_supervisor_a_platform_ends_and_starts_again() {
    let mut platform = Platform::start(Folder::new(), &["--http-port", "0"]).await;
    platform.tenant("kept", "schema").await;
    let token = Shop::open(&platform, "kept").await.token;
    let before = Memory::of(&platform).await;
    let all = descendants(platform.pid());
    let servers = all
        .iter()
        .filter(|process| process.command.contains("postgres -D "));
    let servers: Vec<_> = servers.cloned().collect();
    assert_eq!(servers.len(), 2, "{all:?}");
    platform.signal(Signal::KILL);
    platform.ended(Duration::from_secs(5)).await;

    // At once, while the old processes are still on their way out.
    platform.again(&["--http-port", "0"]).await;
    let left = alive(&all);
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(Memory::of(&platform).await, before);

    // And left alone, they end without anybody's help.
    let all = descendants(platform.pid());
    let (servers, services): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|process| process.command.contains("postgres"));
    assert_eq!(services.len(), 3, "{services:?}");
    platform.signal(Signal::KILL);
    platform.ended(Duration::from_secs(5)).await;
    until("the services end", Duration::from_secs(5), async || {
        alive(&services).is_empty().then_some(())
    })
    .await;
    assert!(!alive(&servers).is_empty());
    platform.again(&["--http-port", "0"]).await;
    let shop = Shop::with(&platform, "kept", token);
    let body = json!({ "sku": "A", "name": "a" });
    shop.post("/products", &body).await.expect(201);
}
