//! What a control plane does to its registry when it starts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waangu_api::world::World;
use waangu_control::{
    CellSecrets, Config, DirectoryConfig, KEY_GRACE_SECONDS, KeyFiles, MoveLimits, RolloutLimits,
    prepare, serve,
};
use waangu_identity::{KeyRing, SigningKey, TokenIssuer, sha256_hex};
use waangu_kernel::manifest::Manifest;
use waangu_kernel::{Fault, ModuleId, SystemClock};
use waangu_registry::CellState;
use waangu_tenancy::ModulePackage;
use waangu_tenancy::admin::Migration;
use waangu_testkit::{Cell, Control, connect, control, private_cell};

/// A control plane without cells of its own.
fn config(control: &Control, folder: &TempDir, environment: &str, version: &str) -> Config {
    let ring = folder.path().join("ring.json");
    if !ring.exists() {
        let keys = KeyRing::generate(0).expect("keys");
        std::fs::write(&ring, keys.to_json().expect("a ring")).expect("a file");
    }
    let key = SigningKey::generate_pkcs8().expect("a key");
    let manifest = format!(
        "id = 'stock'\nversion = '{version}'\ntitle = {{ en = 'Stock' }}\nroutes = []\n\
         [permissions]\n[roles]\n"
    );
    Config {
        registry_dsn: control.dsn.clone(),
        environment: environment.to_owned(),
        domain: "waangu.localhost".to_owned(),
        public_port: 1,
        name_grace_seconds: 0,
        cells: Vec::new(),
        keys: KeyFiles {
            public: folder.path().join("public.json"),
            ring,
            grace: KEY_GRACE_SECONDS,
        },
        packages: vec![ModulePackage {
            manifest: Manifest::parse(&manifest).expect("a manifest"),
            migrations: Vec::new(),
        }],
        waiting: Vec::new(),
        refused: Vec::new(),
        auto_rollout: false,
        rollouts: RolloutLimits::default(),
        repair_seconds: 0,
        stock_databases: 0,
        stock_schemas: 0,
        move_grace_seconds: 0,
        moves: MoveLimits::default(),
        world: world(),
        operator: ("00".to_owned(), "test".to_owned()),
        directory: DirectoryConfig {
            issuer: "https://login.waangu.localhost:1".to_owned(),
            key: TokenIssuer::new(SigningKey::from_pkcs8(&key).expect("a key")),
            password_grant: false,
        },
    }
}

fn world() -> World {
    let world: Value = json!({
        "version": 1,
        "environments": [{ "id": "dev" }, { "id": "test" }, { "id": "prod" }],
        "regions": [{ "id": "dc", "provider": "dc", "country": "SN", "name": "Dakar" }],
        "countries": [{ "code": "SN", "regions": ["dc"] }],
        "cells": [{ "id": "sn-1", "region": "dc", "capacity": 10 }],
    });
    serde_json::from_value(world).expect("a world")
}

/// Versions of `stock` that the registry has installed.
async fn installed(control: &Control) -> Result<Vec<String>, Fault> {
    let mut session = control.registry.session().await?;
    let modules = session.begin().await?.list_modules().await?;
    Ok(modules
        .into_iter()
        .map(|stored| stored.manifest.version)
        .collect())
}

/// A version that nobody has tried would reach production with the next restart.
#[tokio::test]
async fn a_version_runs_after_its_promotion_only() {
    let (control, folder) = (control().await, TempDir::new().unwrap());
    let stock: ModuleId = "stock".parse().unwrap();
    let mut prod = config(&control, &folder, "prod", "1.0.0");
    prepare(&mut prod).await.unwrap();
    assert_eq!(installed(&control).await.unwrap(), Vec::<String>::new());
    assert_eq!(prod.waiting, [(stock.clone(), "1.0.0".to_owned())]);
    assert!(prod.packages.is_empty());

    let mut session = control.registry.session().await.unwrap();
    let tx = session.begin().await.unwrap();
    tx.put_promotion("prod", &stock, "1.0.0", "test")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut prod = config(&control, &folder, "prod", "1.0.0");
    prepare(&mut prod).await.unwrap();
    assert_eq!(installed(&control).await.unwrap(), ["1.0.0"]);

    // The next one waits again, and takes nothing from the one that runs.
    let mut prod = config(&control, &folder, "prod", "2.0.0");
    prepare(&mut prod).await.unwrap();
    assert_eq!(installed(&control).await.unwrap(), ["1.0.0"]);
    let runs = session
        .begin()
        .await
        .unwrap()
        .list_module_runs()
        .await
        .unwrap();
    let ran: Vec<&str> = runs.iter().map(|run| run.version.as_str()).collect();
    assert_eq!(ran, ["1.0.0"]);
}

/// A restart would undo what operators have declared since.
#[tokio::test]
async fn a_restart_takes_nothing_back() {
    let (control, folder) = (control().await, TempDir::new().unwrap());
    prepare(&mut config(&control, &folder, "dev", "1.0.0"))
        .await
        .unwrap();
    assert_eq!(
        installed(&control).await.unwrap(),
        ["1.0.0"],
        "the first environment"
    );
    let mut session = control.registry.session().await.unwrap();
    let tx = session.begin().await.unwrap();
    let mut cell = tx.list_cells().await.unwrap().remove(0);
    assert_eq!((cell.environment.as_str(), cell.capacity), ("dev", 10));
    (cell.capacity, cell.state) = (99, CellState::Draining);
    tx.put_cell(&cell).await.unwrap();
    tx.commit().await.unwrap();
    prepare(&mut config(&control, &folder, "dev", "1.0.0"))
        .await
        .unwrap();
    let tx = session.begin().await.unwrap();
    assert_eq!(tx.list_cells().await.unwrap(), [cell]);
}

const TABLE: &str = "create table product (tenant_id bigint not null, id bigint not null
                                         , note text, primary key (tenant_id, id))";
const EXPAND: &str = "alter table product add column remark text";
const CONTRACT: &str = "alter table product drop column note";

/// A deployment that would break the running version's processes, tenant by tenant, is refused before
/// the first one; and one that is meant to clean up waits until everybody has what came before.
#[tokio::test]
async fn a_package_leaves_the_running_version_its_tables() {
    let (control, folder) = (control().await, TempDir::new().unwrap());
    let cell = private_cell().await;
    let attempt = async |version: &str, migrations: &[&str], contract: bool| {
        let mut config = config(&control, &folder, "dev", version);
        config.cells = own(&cell);
        write(&mut config, migrations, contract);
        prepare(&mut config).await.unwrap();
        let why = config
            .refused
            .pop()
            .map(|refused| refused.why().to_string());
        assert_eq!(config.packages.is_empty(), why.is_some());
        why.unwrap_or_default()
    };
    assert_eq!(attempt("1.0.0", &[TABLE], false).await, "");
    let why = attempt("2.0.0", &[TABLE, CONTRACT], false).await;
    assert!(why.contains("column product.note is gone"), "{why}");
    assert_eq!(installed(&control).await.unwrap(), ["1.0.0"]);
    assert_eq!(refused(&control).await, ["package-incompatible"]);
    // Brought along by each start, told once.
    attempt("2.0.0", &[TABLE, CONTRACT], false).await;
    let registry = connect(&control.dsn).await.unwrap();
    let told = "select count(*) from registry.audit_event where action = 'package.refuse'";
    let told: i64 = registry.query_one(told, &[]).await.unwrap().get(0);
    assert_eq!(told, 1);
    let why = attempt("2.0.0", &["create table other (id bigint)"], false).await;
    assert!(why.contains("is not the one that was installed"), "{why}");
    let why = attempt("2.0.0", &[TABLE, "alter table nobody add x text"], false).await;
    assert!(why.contains("a migration fails"), "{why}");
    assert_eq!(attempt("1.1.0", &[TABLE, EXPAND], false).await, "");

    // Somebody's tables are still those of before.
    let behind = "insert into registry.namespace (module, cell, tier, package_hash)
                  values ('stock', 'sn-1', 'shared', 'of-1.0.0')";
    registry.batch_execute(behind).await.unwrap();
    let all = [TABLE, EXPAND, CONTRACT];
    let why = attempt("2.0.0", &all, true).await;
    assert!(why.contains("namespaces don't have"), "{why}");
    registry.batch_execute(UPGRADED).await.unwrap();
    assert_eq!(attempt("2.0.0", &all, true).await, "");
    assert_eq!(installed(&control).await.unwrap(), ["2.0.0"]);
    // A restart of the version that just runs has nothing to try.
    assert_eq!(attempt("2.0.0", &all, true).await, "");
}

/// One bad release of one module would keep everybody's control plane from starting, at the next crash
/// at the latest; or would have to be deployed again once what it waits for is done.
#[tokio::test]
async fn a_refused_package_stops_nobody_and_is_tried_again() {
    let (control, folder) = (control().await, TempDir::new().unwrap());
    let cell = private_cell().await;
    let with = |version: &str, migrations: &[&str], contract: bool| {
        let mut config = config(&control, &folder, "dev", version);
        config.cells = own(&cell);
        config.operator = (sha256_hex(b"secret"), "test".to_owned());
        write(&mut config, migrations, contract);
        config
    };
    let mut first = with("1.0.0", &[TABLE, EXPAND], false);
    prepare(&mut first).await.unwrap();
    let registry = connect(&control.dsn).await.unwrap();
    let behind = "insert into registry.namespace (module, cell, tier, package_hash)
                  values ('stock', 'sn-1', 'shared', 'of-before')";
    registry.batch_execute(behind).await.unwrap();

    let mut early = with("2.0.0", &[TABLE, EXPAND, CONTRACT], true);
    prepare(&mut early).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = serve(early, listener, Arc::new(SystemClock), stop.clone());
    let serving = TaskTracker::new().spawn(serving);
    let fleet = fleet(address).await;
    assert!(
        fleet.contains("200 OK") && fleet.contains("package-early"),
        "{fleet}"
    );
    assert_eq!(installed(&control).await.unwrap(), ["1.0.0"]);

    registry.batch_execute(UPGRADED).await.unwrap();
    let installs = async {
        while installed(&control).await.unwrap() != ["2.0.0"] {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(40), installs).await;
    in_time.expect("it is tried again");
    assert_eq!(refused(&control).await, Vec::<String>::new());
    stop.cancel();
    serving.await.unwrap().unwrap();
}

const UPGRADED: &str = "update registry.namespace
                           set package_hash = (select package_hash from registry.module)";

fn own(cell: &Cell) -> Vec<CellSecrets> {
    vec![CellSecrets {
        admin: cell.admin_config(),
        logins: Cell::logins(),
    }]
}

fn write(config: &mut Config, migrations: &[&str], contract: bool) {
    let step = |sql: &&str| Migration {
        name: "step".to_owned(),
        sql: (*sql).to_owned(),
    };
    for package in &mut config.packages {
        package.manifest.contract = contract;
        package.migrations = migrations.iter().map(step).collect();
    }
}

/// The codes of what is refused now.
async fn refused(control: &Control) -> Vec<String> {
    let mut session = control.registry.session().await.expect("a session");
    let refused = session
        .begin()
        .await
        .expect("a transaction")
        .list_refusals()
        .await;
    let codes = refused
        .expect("a list")
        .into_iter()
        .map(|refused| refused.code);
    codes.collect()
}

/// What the operator's `GET /fleet` is answered.
async fn fleet(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = "GET /admin/v1/fleet HTTP/1.1\r\nHost: control\r\n\
                   Authorization: Bearer secret\r\nConnection: close\r\n\r\n";
    let sent = stream.write_all(request.as_bytes()).await;
    sent.expect("it is sent");
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer).await;
    read.expect("an answer");
    answer
}
