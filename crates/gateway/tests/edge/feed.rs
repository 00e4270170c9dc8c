//! The change feed with a real PostgreSQL: what the registry says is what the gateway serves, and a
//! control database that is down stops nobody.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waangu_gateway::{Config, serve};
use waangu_kernel::manifest::Manifest;
use waangu_kernel::{SystemClock, UserId};
use waangu_pgserver::{
    Binaries, Cluster, Config as Server, Durability, Fallback, Search, Shutdown,
};
use waangu_registry::Registry;

use crate::client::Client;
use crate::stage::{MANIFEST, Stage, ask, empty};
use crate::upstream;

const PRODUCTS: &str = "/api/inventory/products";
/// Suspending a tenant takes effect within this time (security design §2.3).
const EFFECT: Duration = Duration::from_secs(5);

/// A private server; `None` when this machine has no PostgreSQL.
async fn server(folder: &Path) -> Option<Cluster> {
    let path = OsString::from("/usr/local/bin:/usr/bin:/bin");
    let search = Search {
        chosen: None,
        path: &path,
        cache: folder,
        major: None,
        fallback: Fallback::Nothing,
    };
    let binaries = match Binaries::find(&search, &|_step| {}).await {
        Ok(binaries) => binaries,
        Err(why) => {
            println!("skipped: {why}");
            return None;
        }
    };
    let mut config = Server::new("gateway-test", folder.join("pg"), "postgres", "secret");
    config.durability = Durability::Throwaway;
    let made = Cluster::create_or_open(binaries, config, &|_step| {}).await;
    let mut cluster = made.unwrap();
    cluster.start().await.unwrap();
    Some(cluster)
}

async fn execute(dsn: &str, sql: &str) {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await.unwrap();
    let tasks = TaskTracker::new();
    tasks.spawn(connection);
    client.batch_execute(sql).await.unwrap();
}

/// The control database with one cell and one module.
async fn control_database(cluster: &Cluster) -> String {
    let sql = "create role waangu_gateway login password 'secret'";
    execute(&cluster.superuser_dsn("postgres"), sql).await;
    execute(
        &cluster.superuser_dsn("postgres"),
        "create database waangu_control",
    )
    .await;
    let dsn = cluster.superuser_dsn("waangu_control");
    let registry = Registry::new(&dsn, 1).unwrap();
    registry.session().await.unwrap().migrate().await.unwrap();
    let manifest = serde_json::to_string(&Manifest::parse(MANIFEST).unwrap()).unwrap();
    let sql = format!(
        "insert into registry.environment values ('dev', 1);
         insert into registry.region values ('dc-sn-dakar', 'dc', 'SN', 'Dakar');
         insert into registry.country values ('SN', 'Senegal', false);
         insert into registry.cell (id, region, environment, host, port, capacity)
         values ('cell-1', 'dc-sn-dakar', 'dev', '127.0.0.1', 1, 100);
         insert into registry.module values ('inventory', '0.1.0', '{manifest}');"
    );
    execute(&dsn, &sql).await;
    dsn
}

/// Births `acme` with one administrator, in one transaction.
async fn birth(dsn: &str, user: UserId) {
    let user = user.uuid();
    let sql = format!(
        "begin;
         insert into registry.tenant (slug, name, country, tier, cell, reasons, state)
         values ('acme', 'Acme', 'SN', 'shared', 'cell-1', '{{}}', 'active');
         insert into registry.activation (tenant_id, module, version, enabled, ready)
         select max(id), 'inventory', '0.1.0', true, true from registry.tenant;
         insert into registry.app_user (id, tenant_id, username, display_name, password_hash)
         select '{user}', max(id), 'awa', 'Awa', '-' from registry.tenant;
         insert into registry.user_role (tenant_id, user_id, role)
         select max(id), '{user}', 'tenant-admin' from registry.tenant;
         commit;"
    );
    execute(dsn, &sql).await;
}

/// Asks until the answer is as expected, for as long as a change may take to have its effect.
async fn becomes(client: &Client, token: &str, wanted: &str) {
    let begun = Instant::now();
    loop {
        let request =
            ask("GET", "acme", PRODUCTS).header("authorization", format!("Bearer {token}"));
        let got = client.send(empty(request)).await;
        let code = match got.status.as_u16() {
            200 => "ok".to_owned(),
            _ => got.code(),
        };
        if code == wanted {
            return;
        }
        assert!(begun.elapsed() < EFFECT, "still {code} instead of {wanted}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// If this broke, a suspended client would go on working, a new one would wait, or the whole platform
/// would stop with its control database.
#[tokio::test]
async fn changes_take_effect_and_an_outage_of_the_registry_stops_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut cluster) = server(folder.path()).await else {
        return;
    };
    let dsn = control_database(&cluster).await;
    let stage = Stage::bare(|_limits| {}).await;
    let (listener, address) = upstream::listen().await;
    let config = Config {
        registry_dsn: cluster.dsn("waangu_gateway", "secret", "waangu_control"),
        ..stage.config.clone()
    };
    let shutdown = CancellationToken::new();
    let gateway = TaskTracker::new();
    let served = gateway.spawn(serve(
        config,
        stage.keys(),
        listener,
        Arc::new(SystemClock),
        shutdown.clone(),
    ));
    gateway.close();
    let client = Client {
        address,
        ..stage.client.clone()
    };
    let admin = stage.token(stage.people.admin, "acme");

    birth(&dsn, stage.people.admin).await;
    becomes(&client, &admin, "ok").await;
    let tenant = "update registry.tenant set";
    execute(&dsn, &format!("{tenant} desired = 'suspended'")).await;
    becomes(&client, &admin, "tenant-not-active").await;
    execute(&dsn, &format!("{tenant} desired = 'active'")).await;
    becomes(&client, &admin, "ok").await;
    execute(&dsn, "update registry.app_user set disabled = true").await;
    becomes(&client, &admin, "permission-denied").await;
    execute(&dsn, "update registry.app_user set disabled = false").await;
    becomes(&client, &admin, "ok").await;

    // Not `Immediate`: a throw-away server would forget what it has not written.
    cluster.stop(Shutdown::Fast, EFFECT).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    for _ in 0..5 {
        becomes(&client, &admin, "ok").await;
    }
    cluster.start().await.unwrap();
    execute(&dsn, "update registry.activation set enabled = false").await;
    becomes(&client, &admin, "module-not-active").await;

    // The name passes to a new client; the old one's people don't get in.
    let gone = "state = 'deleted', desired = 'deleted', name_released = true";
    execute(&dsn, &format!("{tenant} {gone}")).await;
    becomes(&client, &admin, "tenant-not-found").await;
    birth(&dsn, stage.people.other).await;
    becomes(&client, &stage.token(stage.people.other, "acme"), "ok").await;
    becomes(&client, &admin, "permission-denied").await;

    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), gateway.wait())
        .await
        .unwrap();
    served.await.unwrap().unwrap();
    stage.end().await;
    cluster.stop(Shutdown::Fast, EFFECT).await.unwrap();
}
