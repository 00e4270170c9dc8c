//! What a cell must hold for one tenant: module schemas, and the home row that opens the door.

use deadpool_postgres::{GenericClient, Object, Transaction};
use futures_util::future::try_join_all;
use futures_util::try_join;
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;
use waangu_kernel::placement::Tier;
use waangu_kernel::{Fault, ModuleId, Placement, TenantId};

use super::package::{ModulePackage, upgrade_sql};
use super::{CellAdmin, database_closed, quoted};
use crate::error::from_driver;

/// How many migrations of a module a schema has.
const MIGRATIONS: &str =
    "select count(*) from waangu.migration where schema_name = $1 and module = $2";

/// Says who the tenant's ancestors are.
const LINEAGE: &str = "
with gone as (
    delete from waangu.closure where descendant = $1 and ancestor <> all ($2)
)
insert into waangu.closure (ancestor, descendant)
select ancestor, $1 from unnest($2::bigint[]) as ancestor
on conflict do nothing";

/// The same in a transaction that does not wait for the disk.
const LINEAGE_LAZILY: &str = "
with gone as (
    delete from waangu.closure where descendant = $1 and ancestor <> all ($2)
)
insert into waangu.closure (ancestor, descendant)
select ancestor, $1 from unnest($2::bigint[]) as ancestor
 where set_config('synchronous_commit', 'off', true) = 'off'
on conflict do nothing";

/// What stays of a place that is removed.
#[derive(Debug, Clone, Copy)]
enum Gravestone {
    /// Nothing.
    None,
    /// A home row that says that the tenant has left.
    Moved,
}

/// State of a tenant's home row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HomeState {
    /// Transactions begin.
    Active,
    /// No transaction begins.
    Suspended,
}

impl HomeState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
        }
    }
}

/// What a cell has for a tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Whether the placement's database exists, closed to strangers.
    pub database: bool,
    /// Number of migrations that each module's schema has.
    pub modules: Vec<(ModuleId, usize)>,
    /// The home row, with its epoch.
    pub home: Option<(HomeState, i64)>,
    /// The numbers of those who may read it besides others' rows: its ancestors, itself included, in
    /// ascending order.
    pub lineage: Vec<i64>,
}

/// A visit to a tenant's place: one connection for all that is done there. To connect to a database
/// of its own costs more than most of what is done.
#[derive(Debug)]
pub struct Place<'a> {
    admin: &'a CellAdmin,
    tenant: TenantId,
    placement: &'a Placement,
    client: Option<Object>,
}

impl Place<'_> {
    /// Looks at what the cell has for the tenant.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn observe(&mut self, modules: &[ModuleId]) -> Result<Observed, Fault> {
        let (tenant, placement) = (self.tenant, self.placement);
        let database = placement.database(tenant);
        let mut closed = true;
        if placement.tier != Tier::Shared {
            let client = self.admin.client("postgres").await?;
            match database_closed(&client, &database).await? {
                None => return Ok(Observed::default()),
                // Its maker may have been killed before it was closed to strangers: it is not made yet.
                Some(found) => closed = found,
            }
        }
        let client = self.client().await?;
        let mut observed = Observed {
            database: closed,
            ..Observed::default()
        };
        let counted = prepared(client, MIGRATIONS).await?;
        let sql = "select state, epoch from waangu.home where tenant_id = $1";
        let home = prepared(client, sql).await?;
        let sql = "select ancestor from waangu.closure where descendant = $1 order by ancestor";
        let lineage = prepared(client, sql).await?;
        let number: [&(dyn ToSql + Sync); 1] = [&tenant.number()];
        let counts = modules.iter().map(async |module| {
            let schema = placement.schema(tenant, module);
            let params: [&(dyn ToSql + Sync); 2] = [&schema, &module.as_str()];
            client.query_one(&counted, &params).await
        });
        // All in one flight.
        let (counts, row, rows) = try_join!(
            try_join_all(counts),
            client.query_opt(&home, &number),
            client.query(&lineage, &number),
        )
        .map_err(from_driver)?;
        for (module, row) in modules.iter().zip(counts) {
            let count: i64 = row.try_get(0).map_err(from_driver)?;
            let count = usize::try_from(count).unwrap_or(0);
            observed.modules.push((module.clone(), count));
        }
        if let Some(row) = row {
            let state: &str = row.try_get(0).map_err(from_driver)?;
            let state = if state == "active" {
                HomeState::Active
            } else {
                HomeState::Suspended
            };
            observed.home = Some((state, row.try_get(1).map_err(from_driver)?));
        }
        for row in rows {
            observed.lineage.push(row.try_get(0).map_err(from_driver)?);
        }
        Ok(observed)
    }

    /// Says who may read the tenant as part of a subtree: its ancestors, itself included.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn set_lineage(&mut self, ancestors: &[i64]) -> Result<(), Fault> {
        self.write_lineage(ancestors, LINEAGE).await
    }

    /// The same without waiting for the disk, for one who goes on to do what does: PostgreSQL writes in the
    /// order of commits, so that this is not lost when that is kept.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn set_lineage_lazily(&mut self, ancestors: &[i64]) -> Result<(), Fault> {
        self.write_lineage(ancestors, LINEAGE_LAZILY).await
    }

    async fn write_lineage(&mut self, ancestors: &[i64], sql: &str) -> Result<(), Fault> {
        let tenant = self.tenant;
        let client = self.client().await?;
        let statement = prepared(client, sql).await?;
        client
            .execute(&statement, &[&tenant.number(), &ancestors])
            .await
            .map(drop)
            .map_err(from_driver)
    }

    /// Takes a database in stock for a dedicated tenant that has none yet; says whether there was one.
    /// It may have some of these packages' tables already, and has no others.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn take_from_stock(&mut self, packages: &[&ModulePackage]) -> Result<bool, Fault> {
        if self.placement.tier != Tier::Dedicated {
            return Ok(false);
        }
        let database = self.placement.database(self.tenant);
        self.admin.take_from_stock(packages, &database).await
    }

    /// Takes a schema in stock with exactly this package's tables for a tenant of the schema tier; says
    /// whether the module's tables stand now. If so they are whole, whoever has brought them in.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn take_schema_from_stock(&mut self, package: &ModulePackage) -> Result<bool, Fault> {
        if self.placement.tier != Tier::Schema {
            return Ok(false);
        }
        let database = self.placement.database(self.tenant);
        let schema = self.placement.schema(self.tenant, package.id());
        self.admin.take_schema(&database, package, &schema).await
    }

    /// Creates the placement's database if need be.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn ensure(&mut self) -> Result<(), Fault> {
        let database = self.placement.database(self.tenant);
        self.admin.ensure_database(&database).await
    }

    /// Brings a module's schema to the package's last migration and puts the uniform rules on it.
    /// All in one transaction: a schema is whole or absent.
    ///
    /// # Errors
    /// `module-manifest-invalid` when a migration breaks a rule of isolation; `internal` when its
    /// SQL fails; `database-unavailable`.
    pub async fn ensure_module(&mut self, package: &ModulePackage) -> Result<(), Fault> {
        let schema = self.placement.schema(self.tenant, package.id());
        let client = self.client().await?;
        let done = install(client, &schema, package).await;
        if !matches!(done, Ok(Installed::AlreadyThere)) {
            // What a migration has set, prepared or listens to stays in the session, mostly also when its
            // transaction is undone.
            drop(self.client.take().map(Object::take));
        }
        done.map(drop)
    }

    /// Opens or closes the tenant's door at this epoch.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn put_home(&mut self, state: HomeState) -> Result<(), Fault> {
        let (tenant, epoch) = (self.tenant, self.placement.epoch);
        let client = self.client().await?;
        let sql = "insert into waangu.home (tenant_id, state, epoch) values ($1, $2, $3)
                   on conflict (tenant_id) do update
                   set state = excluded.state
                     , epoch = excluded.epoch
                   where waangu.home.epoch <= excluded.epoch";
        let statement = prepared(client, sql).await?;
        client
            .execute(&statement, &[&tenant.number(), &state.as_str(), &epoch])
            .await
            .map(drop)
            .map_err(from_driver)
    }

    /// Removes everything of the tenant: its database, its schemas, or its rows in every table.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn remove(&mut self) -> Result<(), Fault> {
        self.client = None;
        self.admin.remove_tenant(self.tenant, self.placement).await
    }

    async fn client(&mut self) -> Result<&mut Object, Fault> {
        let database = self.placement.database(self.tenant);
        let client = match self.client.take() {
            Some(client) => client,
            None if self.placement.tier == Tier::Dedicated => self.admin.visit(&database).await?,
            None => self.admin.client(&database).await?,
        };
        Ok(self.client.insert(client))
    }
}

/// What was to be done to bring in a module.
#[derive(Debug, Clone, Copy)]
enum Installed {
    /// Migrations ran.
    Migrated,
    /// All had run before.
    AlreadyThere,
}

async fn install(
    client: &mut Object,
    schema: &str,
    package: &ModulePackage,
) -> Result<Installed, Fault> {
    let tx = client.transaction().await.map_err(from_driver)?;
    // Two workers may bring in the first two tenants of a shared schema at once.
    tx.execute("select pg_advisory_xact_lock(-3, hashtext($1))", &[&schema])
        .await
        .map_err(from_driver)?;
    let row = tx
        .query_one(MIGRATIONS, &[&schema, &package.id().as_str()])
        .await
        .map_err(from_driver)?;
    let have: i64 = row.try_get(0).map_err(from_driver)?;
    let have = usize::try_from(have).unwrap_or(0);
    let installed = if have < package.migrations.len() {
        tx.batch_execute(&upgrade_sql(schema, package, have))
            .await
            .map_err(from_driver)?;
        Installed::Migrated
    } else {
        Installed::AlreadyThere
    };
    tx.commit().await.map_err(from_driver)?;
    Ok(installed)
}

/// A statement, prepared once in the life of the connection: those of a place are the same for all
/// tenants of a database.
async fn prepared(client: &Object, sql: &str) -> Result<Statement, Fault> {
    client.prepare_cached(sql).await.map_err(from_driver)
}

impl CellAdmin {
    /// A visit to a tenant's place.
    pub fn place<'a>(&'a self, tenant: TenantId, placement: &'a Placement) -> Place<'a> {
        Place {
            admin: self,
            tenant,
            placement,
            client: None,
        }
    }

    /// [`Place::observe`], on a visit of its own; so are those below.
    ///
    /// # Errors
    /// The same.
    pub async fn observe(
        &self,
        tenant: TenantId,
        placement: &Placement,
        modules: &[ModuleId],
    ) -> Result<Observed, Fault> {
        self.place(tenant, placement).observe(modules).await
    }

    /// [`Place::set_lineage`].
    ///
    /// # Errors
    /// The same.
    pub async fn set_lineage(
        &self,
        tenant: TenantId,
        placement: &Placement,
        ancestors: &[i64],
    ) -> Result<(), Fault> {
        self.place(tenant, placement).set_lineage(ancestors).await
    }

    /// [`Place::ensure`].
    ///
    /// # Errors
    /// The same.
    pub async fn ensure_place(&self, tenant: TenantId, placement: &Placement) -> Result<(), Fault> {
        self.place(tenant, placement).ensure().await
    }

    /// [`Place::ensure_module`].
    ///
    /// # Errors
    /// The same.
    pub async fn ensure_module(
        &self,
        tenant: TenantId,
        placement: &Placement,
        package: &ModulePackage,
    ) -> Result<(), Fault> {
        self.place(tenant, placement).ensure_module(package).await
    }

    /// [`Place::put_home`].
    ///
    /// # Errors
    /// The same.
    pub async fn put_home(
        &self,
        tenant: TenantId,
        placement: &Placement,
        state: HomeState,
    ) -> Result<(), Fault> {
        self.place(tenant, placement).put_home(state).await
    }

    /// [`Place::remove`].
    ///
    /// # Errors
    /// The same.
    pub async fn remove_tenant(
        &self,
        tenant: TenantId,
        placement: &Placement,
    ) -> Result<(), Fault> {
        self.remove_place(tenant, placement, Gravestone::None).await
    }

    /// The same of a place that the tenant does not live in; if its home row says that it has left, that
    /// stays. So a registry that is older than the move can't have the place opened again.
    ///
    /// # Errors
    /// The same.
    pub async fn clear_place(&self, tenant: TenantId, placement: &Placement) -> Result<(), Fault> {
        self.remove_place(tenant, placement, Gravestone::Moved)
            .await
    }

    async fn remove_place(
        &self,
        tenant: TenantId,
        placement: &Placement,
        stays: Gravestone,
    ) -> Result<(), Fault> {
        let database = placement.database(tenant);
        match placement.tier {
            Tier::Dedicated => self.drop_database(&database).await,
            Tier::Schema => {
                let client = self.client("postgres").await?;
                if database_closed(&client, &database).await?.is_none() {
                    return Ok(());
                }
                self.remove_schemas(tenant, &database, stays).await
            }
            Tier::Shared => self.remove_rows(tenant, &database, stays).await,
        }
    }

    async fn remove_schemas(
        &self,
        tenant: TenantId,
        database: &str,
        stays: Gravestone,
    ) -> Result<(), Fault> {
        let mut client = self.client(database).await?;
        let tx = client.transaction().await.map_err(from_driver)?;
        leave_home(&tx, tenant, stays).await?;
        let sql = "select nspname from pg_namespace where starts_with(nspname, $1)";
        let prefix = format!("t_{}_", tenant.number());
        for row in tx.query(sql, &[&prefix]).await.map_err(from_driver)? {
            let schema: &str = row.try_get(0).map_err(from_driver)?;
            let sql = format!("drop schema {} cascade", quoted(schema));
            tx.batch_execute(&sql).await.map_err(from_driver)?;
            tx.execute(
                "delete from waangu.migration where schema_name = $1",
                &[&schema],
            )
            .await
            .map_err(from_driver)?;
        }
        tx.commit().await.map_err(from_driver)
    }

    async fn remove_rows(
        &self,
        tenant: TenantId,
        database: &str,
        stays: Gravestone,
    ) -> Result<(), Fault> {
        let mut client = self.client(database).await?;
        let tx = client.transaction().await.map_err(from_driver)?;
        leave_home(&tx, tenant, stays).await?;
        // The administrator's role bypasses row-level security; triggers of foreign keys are left out
        // because all of the tenant's rows go at once, whatever points at what.
        tx.batch_execute("set local session_replication_role = replica")
            .await
            .map_err(from_driver)?;
        let sql = "select distinct n.nspname, c.relname
                     from waangu.migration m
                     join pg_namespace n on n.nspname = m.schema_name
                     join pg_class c on c.relnamespace = n.oid and c.relkind in ('r', 'p')";
        for row in tx.query(sql, &[]).await.map_err(from_driver)? {
            let schema: &str = row.try_get(0).map_err(from_driver)?;
            let table: &str = row.try_get(1).map_err(from_driver)?;
            let sql = format!(
                "delete from {}.{} where tenant_id = $1",
                quoted(schema),
                quoted(table)
            );
            tx.execute(&sql, &[&tenant.number()])
                .await
                .map_err(from_driver)?;
        }
        tx.commit().await.map_err(from_driver)
    }
}

/// Closes the tenant's door and waits for the writers inside: what they write after we have looked
/// would stay behind.
async fn leave_home(
    tx: &Transaction<'_>,
    tenant: TenantId,
    stays: Gravestone,
) -> Result<(), Fault> {
    let door = match stays {
        Gravestone::None => "delete from waangu.home where tenant_id = $1",
        Gravestone::Moved => "delete from waangu.home where tenant_id = $1 and state <> 'moved'",
    };
    tx.batch_execute("set local lock_timeout = '10s'")
        .await
        .map_err(from_driver)?;
    for sql in [
        "select pg_advisory_xact_lock($1)",
        door,
        "delete from waangu.closure where descendant = $1",
    ] {
        tx.execute(sql, &[&tenant.number()])
            .await
            .map_err(from_driver)?;
    }
    // Rows that a move has kept because both ends differed, and its word for those that are here.
    for note in ["evidence", "kept"] {
        forget(tx, tenant, note).await?;
    }
    Ok(())
}

/// Deletes what moves have noted of a tenant, if there ever were any here.
pub(super) async fn forget(
    client: &impl GenericClient,
    tenant: TenantId,
    note: &str,
) -> Result<(), Fault> {
    let sql = "select to_regclass('waangu_relocation.' || $1) is not null";
    let row = client.query_one(sql, &[&note]).await.map_err(from_driver)?;
    if row.try_get(0).map_err(from_driver)? {
        let sql = format!("delete from waangu_relocation.{note} where tenant_id = $1");
        let deleted = client.execute(&sql, &[&tenant.number()]).await;
        deleted.map_err(from_driver)?;
    }
    Ok(())
}
