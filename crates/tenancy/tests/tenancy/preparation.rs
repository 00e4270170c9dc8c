//! Preparing a cell: raced, repeated, and with another key. On servers of their own.

use tokio::task::JoinSet;
use waangu_identity::ContextKey;
use waangu_identity::proof::Access;
use waangu_kernel::placement::Tier;
use waangu_tenancy::{HomeState, TenantTx};
use waangu_testkit::{Cell, connect, context, private_cell};

use crate::support::{code, module, stock};

/// Two control planes that start at once must not stop each other from starting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_control_planes_prepare_at_once() {
    let cell = private_cell().await;
    let admin = connect(&cell.superuser_dsn("postgres")).await.unwrap();
    // As if it had never been prepared, but for the roles.
    for sql in [
        "drop database waangu",
        "alter database waangu_template is_template false",
        "drop database waangu_template",
    ] {
        admin.batch_execute(sql).await.unwrap();
    }
    let mut workers = JoinSet::new();
    for _ in 0..6 {
        let (admin, key) = (cell.another_admin(), cell.key.clone());
        workers.spawn(async move { admin.prepare(&Cell::logins(), &[key]).await });
    }
    while let Some(worker) = workers.join_next().await {
        worker.unwrap().unwrap();
    }
    works(&cell, Tier::Shared, &cell.key).await.unwrap();
    // The template is not for visitors: one would stop every onboarding.
    let dsn = cell.module_dsn(&module("stock"), "waangu_template");
    assert!(connect(&dsn).await.is_err());
}

/// After a rotation, tenants that come later must be served, and a stolen old key must not open.
#[tokio::test]
async fn a_rotated_key_reaches_databases_made_before_and_after() {
    let cell = private_cell().await;
    let fresh = ContextKey::new(2, [9; 32]);
    works(&cell, Tier::Shared, &cell.key).await.unwrap();
    let both = [cell.key.clone(), fresh.clone()];
    cell.admin.prepare(&Cell::logins(), &both).await.unwrap();
    for tier in Tier::ALL {
        works(&cell, tier, &cell.key).await.unwrap();
        works(&cell, tier, &fresh).await.unwrap();
    }
    let only = [fresh.clone()];
    cell.admin.prepare(&Cell::logins(), &only).await.unwrap();
    for tier in Tier::ALL {
        works(&cell, tier, &fresh).await.unwrap();
        assert_eq!(code(works(&cell, tier, &cell.key).await), "context-refused");
    }
}

/// A compromised module can change its login's own defaults, for all sessions to come; a restart of
/// the control plane must end that.
#[tokio::test]
async fn preparing_again_undoes_what_a_login_did_to_itself() {
    let cell = private_cell().await;
    let stock = module("stock");
    let outsider = connect(&cell.module_dsn(&stock, "waangu")).await.unwrap();
    for sql in [
        "alter role waangu_stock set default_transaction_read_only = on",
        "alter role waangu_stock set search_path = nowhere",
        "alter role waangu_stock password 'stolen'",
    ] {
        outsider.batch_execute(sql).await.unwrap();
    }
    assert!(connect(&cell.module_dsn(&stock, "waangu")).await.is_err());
    let key = cell.key.clone();
    cell.admin.prepare(&Cell::logins(), &[key]).await.unwrap();
    works(&cell, Tier::Shared, &cell.key).await.unwrap();
}

/// A module that opens connections without end must not keep the others out of the server.
#[tokio::test]
async fn a_stolen_login_leaves_connections_to_others() {
    let cell = private_cell().await;
    let dsn = cell.module_dsn(&module("stock"), "waangu");
    let mut taken = Vec::new();
    let refused = loop {
        match connect(&dsn).await {
            Ok(client) => taken.push(client),
            Err(error) => break error,
        }
    };
    let code = refused.code().map(|code| code.code().to_owned());
    assert_eq!(code.as_deref(), Some("53300"), "{refused:?}");
    let admin = connect(&cell.superuser_dsn("waangu")).await.unwrap();
    let sql = "select current_setting('max_connections')::bigint";
    let all: i64 = admin.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(i64::try_from(taken.len()).unwrap(), all / 2);
    connect(&cell.module_dsn(&module("crm"), "waangu"))
        .await
        .unwrap();

    let unlimited = "alter role waangu_stock connection limit -1";
    admin.batch_execute(unlimited).await.unwrap();
    connect(&dsn).await.expect("it works without the limit");
}

async fn works(cell: &Cell, tier: Tier, key: &ContextKey) -> Result<(), waangu_kernel::Fault> {
    let (tenant, placement) = cell.tenant(tier);
    cell.admin.ensure_place(tenant, &placement).await?;
    cell.admin
        .ensure_module(tenant, &placement, &stock())
        .await?;
    cell.admin
        .put_home(tenant, &placement, HomeState::Active)
        .await?;
    let stock = module("stock");
    let context = context(tenant, &placement, &stock, Access::Write, key);
    let mut tx = TenantTx::begin(&cell.pools(&stock), &context).await?;
    tx.execute("insert into product (id, name) values (1, 'a')", &[])
        .await?;
    tx.commit().await
}
