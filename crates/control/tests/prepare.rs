//! What a control plane does to its registry when it starts.

use serde_json::{Value, json};
use tempfile::TempDir;
use waangu_api::world::World;
use waangu_control::{
    CellSecrets, Config, DirectoryConfig, KEY_GRACE_SECONDS, KeyFiles, RolloutLimits, prepare,
};
use waangu_identity::{KeyRing, SigningKey, TokenIssuer};
use waangu_kernel::manifest::Manifest;
use waangu_kernel::{Fault, ModuleId};
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
        auto_rollout: false,
        rollouts: RolloutLimits::default(),
        repair_seconds: 0,
        stock_databases: 0,
        stock_schemas: 0,
        move_grace_seconds: 0,
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
        config.cells = vec![CellSecrets {
            admin: cell.admin_config(),
            logins: Cell::logins(),
        }];
        let package = &mut config.packages[0];
        package.manifest.contract = contract;
        package.migrations = migrations
            .iter()
            .map(|sql| Migration {
                name: "step".to_owned(),
                sql: (*sql).to_owned(),
            })
            .collect();
        prepare(&mut config).await
    };
    attempt("1.0.0", &[TABLE], false).await.unwrap();
    let refused = attempt("2.0.0", &[TABLE, CONTRACT], false)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), "package-incompatible");
    assert!(
        refused.detail().contains("column product.note is gone"),
        "{refused}"
    );
    assert_eq!(installed(&control).await.unwrap(), ["1.0.0"]);
    attempt("1.1.0", &[TABLE, EXPAND], false).await.unwrap();

    // Somebody's tables are still those of before.
    let registry = connect(&control.dsn).await.unwrap();
    let behind = "insert into registry.namespace (module, cell, tier, package_hash)
                  values ('stock', 'sn-1', 'shared', 'of-1.0.0')";
    registry.batch_execute(behind).await.unwrap();
    let all = [TABLE, EXPAND, CONTRACT];
    let refused = attempt("2.0.0", &all, true).await.unwrap_err();
    assert_eq!(refused.code(), "package-early", "{refused}");
    let upgraded = "update registry.namespace
                       set package_hash = (select package_hash from registry.module)";
    registry.batch_execute(upgraded).await.unwrap();
    attempt("2.0.0", &all, true).await.unwrap();
    assert_eq!(installed(&control).await.unwrap(), ["2.0.0"]);
    // A restart of the version that just runs has nothing to try.
    attempt("2.0.0", &all, true).await.unwrap();
}
