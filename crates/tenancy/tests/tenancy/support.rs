//! What the tests share: a module with an ordinary and an append-only table, and provisioned homes.

use std::fmt::Debug;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error};
use waangu_identity::RequestContext;
use waangu_identity::proof::Access;
use waangu_kernel::placement::Tier;
use waangu_kernel::{Fault, ModuleId, Placement, TenantId};
use waangu_tenancy::admin::Migration;
use waangu_tenancy::{HomeState, ModulePackage, Pools, TenantTx};
use waangu_testkit::{Cell, cell, connect};

/// `product` is ordinary, `movement` append-only and points at it.
const TABLES: &str = "
create table product (
    tenant_id bigint not null default waangu.tenant()
  , id bigint not null
  , name text not null
  , primary key (tenant_id, id)
);
create table movement (
    tenant_id bigint not null default waangu.tenant()
  , id bigint not null
  , product_id bigint not null
  , primary key (tenant_id, id)
  , constraint movement_product_fkey foreign key (tenant_id, product_id) references product
);
create index movement_product on movement (tenant_id, product_id)";

pub(crate) const TABLE_NAMES: [&str; 2] = ["product", "movement"];

pub(crate) fn module(id: &str) -> ModuleId {
    id.parse().expect("a module id")
}

pub(crate) fn stock() -> ModulePackage {
    package("stock", &["movement"], &[TABLES])
}

pub(crate) fn package(id: &str, append_only: &[&str], migrations: &[&str]) -> ModulePackage {
    let manifest = format!(
        "id = '{id}'\nversion = '0.1.0'\ntitle = {{ en = 'Test' }}\nroutes = []\n\
         append_only = {append_only:?}\n[permissions]\n[roles]\n"
    );
    ModulePackage {
        manifest: waangu_kernel::manifest::Manifest::parse(&manifest).expect("a manifest"),
        migrations: migrations
            .iter()
            .map(|sql| Migration {
                name: "step".to_owned(),
                sql: (*sql).to_owned(),
            })
            .collect(),
    }
}

/// One tenant with the module `stock`, ready to work.
pub(crate) struct Home {
    pub(crate) cell: Cell,
    pub(crate) tenant: TenantId,
    pub(crate) placement: Placement,
    pub(crate) pools: Pools,
}

impl Home {
    pub(crate) async fn new(tier: Tier) -> Self {
        let home = Self::bare(tier).await;
        home.provision().await.expect("provision a tenant");
        home
    }

    /// Nothing is made yet.
    pub(crate) async fn bare(tier: Tier) -> Self {
        let cell = cell().await;
        let (tenant, placement) = cell.tenant(tier);
        let pools = cell.pools(&module("stock"));
        Self {
            cell,
            tenant,
            placement,
            pools,
        }
    }

    /// A second tenant of the same tier, over the same connections wherever that is possible: in the
    /// schema tier it is in the same bucket database.
    pub(crate) async fn neighbour(&self) -> Self {
        let mut other = Self::bare(self.placement.tier).await;
        other.placement.bucket = self.placement.bucket;
        other.pools = self.pools.clone();
        other.provision().await.expect("provision a neighbour");
        other
    }

    pub(crate) async fn provision(&self) -> Result<(), Fault> {
        let (tenant, placement, admin) = (self.tenant, &self.placement, &self.cell.admin);
        admin.ensure_place(tenant, placement).await?;
        admin.ensure_module(tenant, placement, &stock()).await?;
        admin.put_home(tenant, placement, HomeState::Active).await
    }

    pub(crate) fn context(&self, access: Access) -> RequestContext {
        let stock = module("stock");
        waangu_testkit::context(self.tenant, &self.placement, &stock, access, &self.cell.key)
    }

    pub(crate) async fn begin(&self, access: Access) -> Result<TenantTx, Fault> {
        TenantTx::begin(&self.pools, &self.context(access)).await
    }

    pub(crate) async fn write(&self) -> TenantTx {
        self.begin(Access::Write).await.expect("begin to write")
    }

    /// Adds a product with a movement, and commits.
    pub(crate) async fn stock_up(&self, id: i64, name: &str) {
        let mut tx = self.write().await;
        tx.execute(
            "insert into product (id, name) values ($1, $2)",
            &[&id, &name],
        )
        .await
        .expect("add a product");
        tx.execute(
            "insert into movement (id, product_id) values ($1, $1)",
            &[&id],
        )
        .await
        .expect("add a movement");
        tx.commit().await.expect("commit");
    }

    /// The names of the products, as a request sees them.
    pub(crate) async fn names(&self) -> Vec<String> {
        let mut tx = self.begin(Access::Read).await.expect("begin to read");
        names(&mut tx).await.expect("read the products")
    }

    pub(crate) fn database(&self) -> String {
        self.placement.database(self.tenant)
    }

    pub(crate) fn schema(&self) -> String {
        self.placement.schema(self.tenant, &module("stock"))
    }

    /// A session with the module's own login and no context, as `psql` would have it.
    pub(crate) async fn outsider(&self) -> Client {
        let dsn = self.cell.module_dsn(&module("stock"), &self.database());
        let client = connect(&dsn)
            .await
            .expect("connect with the module's login");
        let path = format!("set search_path = {}", self.schema());
        client.batch_execute(&path).await.expect("set the path");
        client
    }

    pub(crate) async fn superuser(&self) -> Client {
        connect(&self.cell.superuser_dsn(&self.database()))
            .await
            .expect("connect as superuser")
    }

    /// Rows of this tenant that are really there, per table.
    pub(crate) async fn rows(&self) -> Vec<i64> {
        let client = self.superuser().await;
        let mut counts = Vec::new();
        for table in TABLE_NAMES {
            let sql = format!(
                "select count(*) from {}.{table} where tenant_id = $1",
                self.schema()
            );
            let row = client
                .query_one(&sql, &[&self.tenant.number()])
                .await
                .expect("count rows");
            counts.push(row.get(0));
        }
        counts
    }
}

pub(crate) async fn names(tx: &mut TenantTx) -> Result<Vec<String>, Fault> {
    let rows = tx
        .query("select name from product order by id", &[])
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// What the pool does at the beginning of a request, by hand.
pub(crate) async fn enter(client: &Client, context: &RequestContext) -> Result<(), Error> {
    let proof = &context.proof;
    let params: [&(dyn ToSql + Sync); 3] = [&proof.claims, &proof.kid, &proof.mac];
    let sql = "select waangu.enter($1, $2, $3)";
    client.query_one(sql, &params).await.map(drop)
}

pub(crate) async fn count(client: &Client, table: &str) -> Result<i64, Error> {
    let sql = format!("select count(*) from {table}");
    Ok(client.query_one(&sql, &[]).await?.get(0))
}

/// The SQLSTATE of an error that had to come.
pub(crate) fn state<T: Debug>(result: Result<T, Error>) -> String {
    let error = result.expect_err("PostgreSQL refuses");
    let code = error.code().unwrap_or_else(|| panic_on(&error));
    code.code().to_owned()
}

fn panic_on(error: &Error) -> ! {
    unreachable!("not an answer of PostgreSQL: {error}")
}

pub(crate) fn code<T: Debug>(result: Result<T, Fault>) -> &'static str {
    result.expect_err("a fault").code()
}
