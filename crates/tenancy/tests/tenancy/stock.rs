//! The stock of databases: taken whole and by one, never seen by a module before. On servers of their
//! own, because a stock is its cell's.

use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;
use waangu_identity::ContextKey;
use waangu_identity::proof::Access;
use waangu_kernel::placement::Tier;
use waangu_kernel::{Placement, TenantId};
use waangu_tenancy::admin::Recipe;
use waangu_tenancy::{CellAdmin, HomeState, ModulePackage, Rules, TenantTx};
use waangu_testkit::{Cell, connect, context, private_cell};

use crate::support::{module, package, stock};

async fn fill(admin: &CellAdmin, packages: &[&ModulePackage], count: usize) {
    let turn = admin.stock_turn().await.unwrap().expect("nobody else's");
    for _ in 0..count {
        assert!(turn.make(packages).await.unwrap());
    }
}

/// What the reconciler does for a new tenant; says whether its database came out of the stock.
async fn onboard(
    admin: &CellAdmin,
    tenant: TenantId,
    placement: &Placement,
    package: &ModulePackage,
) -> bool {
    let mut place = admin.place(tenant, placement);
    let taken = place.take_from_stock(&[package]).await.unwrap();
    if !taken {
        place.ensure().await.unwrap();
    }
    place.set_lineage(&[tenant.number()]).await.unwrap();
    place.ensure_module(package).await.unwrap();
    place.put_home(HomeState::Active).await.unwrap();
    taken
}

async fn works(cell: &Cell, tenant: TenantId, placement: &Placement, key: &ContextKey) {
    let stock = module("stock");
    let context = context(tenant, placement, &stock, Access::Write, key);
    let mut tx = TenantTx::begin(&cell.pools(&stock), &context)
        .await
        .unwrap();
    let sql = "insert into product (id, name) values ($1, 'mine')";
    tx.execute(sql, &[&tenant.number()]).await.unwrap();
    let rows = tx.query("select id from product", &[]).await.unwrap();
    let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(ids, [tenant.number()]);
    tx.commit().await.unwrap();
}

/// Two clients in one database, or a client whose database lacks its tables, is what a stock must
/// never make; and who comes when it is empty must not be turned away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_is_taken_by_one_tenant_and_the_rest_are_made() {
    let cell = private_cell().await;
    fill(&cell.admin, &[&stock()], 3).await;
    let mut workers = JoinSet::new();
    for _ in 0..8 {
        let (admin, (tenant, placement)) = (cell.another_admin(), cell.tenant(Tier::Dedicated));
        workers.spawn(async move {
            let taken = onboard(&admin, tenant, &placement, &stock()).await;
            (taken, tenant, placement)
        });
    }
    let mut from_stock = 0;
    for (taken, tenant, placement) in workers.join_all().await {
        from_stock += i32::from(taken);
        works(&cell, tenant, &placement, &cell.key).await;
    }
    // Who is slower than three others finds those three in use.
    assert!((1..=3).contains(&from_stock), "{from_stock}");
    assert_eq!(
        cell.admin.list_stock().await.unwrap().len(),
        usize::try_from(3 - from_stock).unwrap()
    );
    let drifts = cell.admin.inspect(&rules()).await.unwrap();
    for inspected in drifts {
        assert_eq!(inspected.drifts, [], "{}", inspected.database);
    }
}

/// A worker may die after any step: the next one finds the database under its tenant's name, or makes
/// one; what lies half-made in stock is nobody's.
#[tokio::test]
async fn who_dies_on_the_way_leaves_nothing_that_is_served_half_made() {
    let cell = private_cell().await;
    let server = connect(&cell.superuser_dsn("postgres")).await.unwrap();
    // A maker that died: before it was closed to strangers, if nobody had been kept out.
    let draft = "create database waangu_stock_draft template waangu_template";
    server.batch_execute(draft).await.unwrap();
    let (tenant, placement) = cell.tenant(Tier::Dedicated);
    assert!(!onboard(&cell.admin, tenant, &placement, &stock()).await);
    assert_eq!(cell.admin.list_stock().await.unwrap(), Vec::<String>::new());
    fill(&cell.admin, &[&stock()], 1).await;
    assert_eq!(cell.admin.list_stock().await.unwrap().len(), 1);

    // A taker that died.
    let (tenant, placement) = cell.tenant(Tier::Dedicated);
    let mut place = cell.admin.place(tenant, &placement);
    assert!(place.take_from_stock(&[&stock()]).await.unwrap());
    let next = cell.another_admin();
    let modules = [module("stock")];
    let seen = next.observe(tenant, &placement, &modules).await.unwrap();
    assert!(seen.database && seen.home.is_none());
    assert!(!onboard(&next, tenant, &placement, &stock()).await);
    works(&cell, tenant, &placement, &cell.key).await;
}

/// A tenant with yesterday's tables, or with the tables of a module it does not have, is a tenant that
/// nobody has described.
#[tokio::test]
async fn a_stock_of_another_recipe_is_not_taken() {
    let cell = private_cell().await;
    let (old, crm) = (
        package("stock", &[], &["select 1"]),
        package("crm", &[], &["select 1"]),
    );
    fill(&cell.admin, &[&old], 1).await;
    fill(&cell.admin, &[&crm, &stock()], 1).await;
    let (tenant, placement) = cell.tenant(Tier::Dedicated);
    assert!(!onboard(&cell.admin, tenant, &placement, &stock()).await);
    // One without tables is good for everybody.
    fill(&cell.admin, &[], 1).await;
    let (tenant, placement) = cell.tenant(Tier::Dedicated);
    assert!(onboard(&cell.admin, tenant, &placement, &stock()).await);
    works(&cell, tenant, &placement, &cell.key).await;

    let turn = cell.admin.stock_turn().await.unwrap().unwrap();
    assert!(cell.another_admin().stock_turn().await.unwrap().is_none());
    for database in cell.admin.list_stock().await.unwrap() {
        assert!(!Recipe::new(&[&stock()]).made(&database));
        turn.discard(&database).await.unwrap();
    }
    assert_eq!(cell.admin.list_stock().await.unwrap(), Vec::<String>::new());
}

/// A database that did not hear of a new key would refuse every request of the tenant that gets it.
#[tokio::test]
async fn what_is_in_stock_hears_of_new_keys() {
    let cell = private_cell().await;
    fill(&cell.admin, &[&stock()], 2).await;
    let new = ContextKey::new(2, [9; 32]);
    let keys = [new.clone()];
    cell.admin.replace_keys(&keys).await.unwrap();
    let (tenant, placement) = cell.tenant(Tier::Dedicated);
    assert!(onboard(&cell.admin, tenant, &placement, &stock()).await);
    works(&cell, tenant, &placement, &new).await;

    // Nor may one be taken, or made, between two that are told.
    let server = connect(&cell.superuser_dsn("postgres")).await.unwrap();
    let lock = "select pg_advisory_lock(-4, hashtext('prepare'))";
    server.query_one(lock, &[]).await.unwrap();
    let (tenant, placement) = cell.tenant(Tier::Dedicated);
    assert!(!onboard(&cell.admin, tenant, &placement, &stock()).await);
    works(&cell, tenant, &placement, &new).await;
    let turn = cell.admin.stock_turn().await.unwrap().unwrap();
    assert!(!turn.make(&[&stock()]).await.unwrap());
}

/// A module that is broken into must not find databases whose tenants are still to come.
#[tokio::test]
async fn no_module_can_connect_and_an_open_one_is_found() {
    let cell = private_cell().await;
    fill(&cell.admin, &[&stock()], 1).await;
    let database = cell.admin.list_stock().await.unwrap().remove(0);
    for dsn in [
        cell.module_dsn(&module("stock"), &database),
        cell.tree_dsn(&module("stock"), &database),
    ] {
        let refused = connect(&dsn).await.expect_err("it is not open");
        assert_eq!(refused.code().map(SqlState::code), Some("42501"));
    }
    let clean = cell.admin.inspect(&rules()).await.unwrap();
    assert!(clean.iter().all(|inspected| inspected.drifts.is_empty()));
    let server = connect(&cell.superuser_dsn("postgres")).await.unwrap();
    let open = format!("grant connect on database {database} to waangu_stock");
    server.batch_execute(&open).await.unwrap();
    let drifts = cell.admin.inspect(&rules()).await.unwrap().remove(0).drifts;
    assert_eq!(drifts.len(), 1, "{drifts:?}");
    assert!(drifts[0].object.contains(&database), "{drifts:?}");
}

fn rules() -> Rules {
    Rules::new([&stock().manifest])
}
