//! What the tests share: a tenant with a module, and a move of it.

use std::time::Duration;

use tokio_postgres::Client;
use waangu_kernel::{ModuleId, Placement, TenantId};
use waangu_relocation::{Error, Options, Relocation, Request, Side, Step};
use waangu_tenancy::admin::Migration;
use waangu_tenancy::{HomeState, ModulePackage};
use waangu_testkit::{Cell, Tier, connect};

pub(crate) mod travel;

/// `movement` is named so that it is copied before what it points at.
pub(crate) const TABLES: &str = "
create table product (
    tenant_id bigint not null default waangu.tenant()
  , id bigint not null
  , name text not null
  , payload text
  , loud text generated always as (upper(name)) stored
  , primary key (tenant_id, id)
);
create table movement (
    tenant_id bigint not null default waangu.tenant()
  , id bigint not null
  , product_id bigint not null
  , primary key (tenant_id, id)
  , constraint movement_product_fkey foreign key (tenant_id, product_id) references product
      on update cascade on delete cascade
);
create table nothing (
    tenant_id bigint not null
  , id bigint not null
  , primary key (tenant_id, id)
)";

pub(crate) fn stock() -> ModuleId {
    "stock".parse().expect("a module id")
}

pub(crate) fn package(sql: &str) -> ModulePackage {
    let manifest = "id = 'stock'\nversion = '0.1.0'\ntitle = { en = 'Test' }\nroutes = []\n\
                    [permissions]\n[roles]\n";
    ModulePackage {
        manifest: waangu_kernel::manifest::Manifest::parse(manifest).expect("a manifest"),
        migrations: vec![Migration {
            name: "step".to_owned(),
            sql: sql.to_owned(),
        }],
    }
}

/// A place on a cell.
#[derive(Clone, Copy)]
pub(crate) struct Spot<'a>(pub(crate) &'a Cell, pub(crate) Tier);

/// A tenant that knows where it is.
pub(crate) struct Traveller<'a> {
    pub(crate) tenant: TenantId,
    pub(crate) cell: &'a Cell,
    pub(crate) placement: Placement,
    pub(crate) package: ModulePackage,
    pub(crate) options: Options,
}

impl<'a> Traveller<'a> {
    pub(crate) async fn settle(at: Spot<'a>, sql: &str) -> Self {
        let (tenant, placement) = at.0.tenant(at.1);
        let package = package(sql);
        let admin = &at.0.admin;
        admin
            .ensure_place(tenant, &placement)
            .await
            .expect("a place");
        admin
            .ensure_module(tenant, &placement, &package)
            .await
            .expect("tables");
        let open = admin.put_home(tenant, &placement, HomeState::Active).await;
        open.expect("a home");
        let options = Options {
            max_pause: Duration::from_secs(3),
            ..Options::default()
        };
        Self {
            tenant,
            cell: at.0,
            placement,
            package,
            options,
        }
    }

    /// The placement that a move to there would give.
    pub(crate) fn placement_at(&self, tier: Tier) -> Placement {
        let bucket = i32::try_from(self.tenant.number()).expect("few tenants");
        Placement {
            cell: self.placement.cell.clone(),
            tier,
            bucket: if tier == Tier::Schema { bucket } else { 0 },
            epoch: self.placement.epoch + 1,
        }
    }

    pub(crate) fn request(&self, to: Spot<'_>) -> Request {
        let side = |cell: &Cell, placement| Side {
            cell: cell.admin_config(),
            placement,
        };
        Request {
            tenant: self.tenant,
            source: side(self.cell, self.placement.clone()),
            target: side(to.0, self.placement_at(to.1)),
            packages: vec![self.package.clone()],
            lineage: vec![self.tenant.number()],
            options: self.options.clone(),
        }
    }

    pub(crate) async fn superuser(&self) -> Client {
        at(self.cell, self.tenant, &self.placement).await
    }

    /// A table's rows as text, in order.
    pub(crate) async fn rows(&self, table: &str) -> Vec<String> {
        let schema = self.placement.schema(self.tenant, &stock());
        let sql = format!("select t::text from {schema}.{table} t where tenant_id = $1 order by 1");
        let rows = self
            .superuser()
            .await
            .query(&sql, &[&self.tenant.number()])
            .await;
        rows.expect("read rows")
            .iter()
            .map(|row| row.get(0))
            .collect()
    }
}

pub(crate) async fn at(cell: &Cell, tenant: TenantId, placement: &Placement) -> Client {
    let dsn = cell.superuser_dsn(&placement.database(tenant));
    connect(&dsn).await.expect("connect as superuser")
}

/// So many products.
pub(crate) async fn fill(tenant: &Traveller<'_>, rows: i64) {
    let (number, schema) = (
        tenant.tenant.number(),
        tenant.placement.schema(tenant.tenant, &stock()),
    );
    let sql = format!(
        "insert into {schema}.product (tenant_id, id, name) select {number}, g, 'x' from generate_series(1, {rows}) g"
    );
    tenant
        .superuser()
        .await
        .batch_execute(&sql)
        .await
        .expect("rows");
}

/// Does steps until the move is over.
pub(crate) async fn run(request: Request) -> Result<Relocation, Error> {
    let mut relocation = Relocation::begin(request).await?;
    loop {
        let step = relocation.next().await?;
        if step == Step::Done {
            return Ok(relocation);
        }
        relocation.apply(&step).await?;
    }
}

/// Begins a move; the server may take a moment to notice that whoever had the tenant before is gone.
pub(crate) async fn begin(request: impl Fn() -> Request) -> Relocation {
    let mut begun = Relocation::begin(request()).await;
    for _ in 0..100 {
        if !matches!(begun, Err(Error::Busy)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        begun = Relocation::begin(request()).await;
    }
    begun.expect("begin")
}
