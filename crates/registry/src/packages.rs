//! Packages and namespaces: which tables of which module stand where, made by which package.
//!
//! Invariants: a namespace's row is written when its tables are whole, never before; a module's
//! current package is the one whose migrations continue all others'.
//!
//! Left out: what a package contains; to the registry it is a document with a hash.

use serde_json::Value;
use waangu_kernel::{CellId, Fault, ModuleId, Placement, TenantId, Tier, fault};

use crate::StoredModule;
use crate::db::{Tx, column, internal, parsed};
use crate::places::module_from;

/// A package as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredPackage {
    /// Its module.
    pub module: ModuleId,
    /// The hash of what it makes of a database.
    pub hash: String,
    /// The module's version.
    pub version: String,
    /// Number of its migrations.
    pub steps: i32,
    /// The package itself.
    pub content: Value,
}

/// Tables that stand somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Whose.
    pub module: ModuleId,
    /// The package that made them; empty if that was before anybody wrote it down.
    pub hash: String,
    /// Number of its migrations; 0 if that is not known.
    pub steps: i32,
}

/// A namespace that stands on another package than the current one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// Where.
    pub cell: CellId,
    /// In which tier.
    pub tier: Tier,
    /// Whose, unless it is shared by all tenants of the cell's shared tier.
    pub tenant: Option<TenantId>,
    /// The bucket database in the schema tier, else 0.
    pub bucket: i32,
    /// How many tenants have their rows in it.
    pub tenants: i64,
}

/// How many namespaces of a module stand on one package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The module.
    pub module: ModuleId,
    /// The package's version; `None` if it is not known.
    pub version: Option<String>,
    /// The package.
    pub hash: String,
    /// Whether it is the one that new namespaces get.
    pub current: bool,
    /// How many.
    pub namespaces: i64,
}

/// Whether any namespace of a module stands on another package than the current one: two looks into
/// an index for each module, however many namespaces there are.
const ANY_BEHIND: &str = "
select m.id
  from registry.module m
 where m.package_hash <> ''
   and (exists (select from registry.namespace n
                 where n.module = m.id and n.package_hash < m.package_hash)
        or exists (select from registry.namespace n
                    where n.module = m.id and n.package_hash > m.package_hash))
 order by m.id";

/// Those whose tenant is being removed are nobody's any more. `tenants` of the shared tier are counted
/// once for each cell.
const BEHIND: &str = "
with sharing as (
    select t.cell, count(*) as tenants
      from registry.tenant t
      join registry.activation a on a.tenant_id = t.id and a.module = $1
     where t.tier = 'shared' and t.state <> 'deleted'
     group by t.cell
)
select n.cell, n.tier, n.tenant_id, coalesce(t.bucket, 0) as bucket
     , case when n.tenant_id is null then coalesce(s.tenants, 0) else 1 end as tenants
  from registry.namespace n
  left join registry.tenant t on t.id = n.tenant_id
  left join sharing s on n.tenant_id is null and s.cell = n.cell
 where n.module = $1
   and n.package_hash <> $2
   and (n.tenant_id is null or t.desired <> 'deleted')
 order by n.cell, n.tier, t.bucket, n.tenant_id";

impl Tx<'_> {
    /// Keeps a package, and makes it the current one of its module.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn put_package(&self, package: &StoredPackage) -> Result<(), Fault> {
        let StoredPackage {
            module,
            hash,
            version,
            steps,
            content,
        } = package;
        let sql = "insert into registry.package (module, hash, version, steps, content)
                   values ($1, $2, $3, $4, $5)
                   on conflict (module, hash) do update
                   set version = excluded.version
                     , content = excluded.content
                   where registry.package.content <> excluded.content";
        self.execute(sql, &[&module.as_str(), hash, version, steps, content])
            .await?;
        let sql =
            "update registry.module set package_hash = $2 where id = $1 and package_hash <> $2";
        self.execute(sql, &[&module.as_str(), hash]).await.map(drop)
    }

    /// The current package of each module that has one. Other control processes that bring theirs wait
    /// until this transaction ends.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn lock_packages(&self) -> Result<Vec<StoredPackage>, Fault> {
        self.execute("select pg_advisory_xact_lock(-3)", &[])
            .await?;
        self.list_packages().await
    }

    /// The current package of each module that has one.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_packages(&self) -> Result<Vec<StoredPackage>, Fault> {
        let sql = "select p.* from registry.package p
                     join registry.module m on m.id = p.module and m.package_hash = p.hash
                    order by p.module";
        let rows = self.rows(sql, &[]).await?;
        rows.iter().map(package_from).collect()
    }

    /// A module's current package.
    ///
    /// # Errors
    /// `module-unknown` when it is not installed; `database-unavailable`.
    pub async fn get_current_package(&self, module: &ModuleId) -> Result<StoredPackage, Fault> {
        let sql = "select p.* from registry.package p
                     join registry.module m on m.id = p.module and m.package_hash = p.hash
                    where m.id = $1";
        let row = self.row(sql, &[&module.as_str()]).await?;
        row.as_ref().map(package_from).transpose()?.ok_or_else(|| {
            fault::MODULE_UNKNOWN
                .fault(format!("module `{module}` is not installed"))
                .field("module")
        })
    }

    /// One package.
    ///
    /// # Errors
    /// `internal` when it was never kept; `database-unavailable`.
    pub async fn get_package(&self, module: &ModuleId, hash: &str) -> Result<StoredPackage, Fault> {
        let sql = "select * from registry.package where module = $1 and hash = $2";
        let row = self.row(sql, &[&module.as_str(), &hash]).await?;
        row.as_ref()
            .map(package_from)
            .transpose()?
            .ok_or_else(|| internal(format!("no package {hash} of module {module}")))
    }

    /// The namespaces that a tenant's rows are in: its own, or those it shares.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_namespaces(
        &self,
        tenant: TenantId,
        placement: &Placement,
    ) -> Result<Vec<Namespace>, Fault> {
        let sql = "select n.module, n.package_hash, coalesce(p.steps, 0) as steps
                     from registry.namespace n
                     left join registry.package p on p.module = n.module and p.hash = n.package_hash
                    where n.cell = $1
                      and n.tier = $2
                      and n.tenant_id is not distinct from $3
                    order by n.module";
        let owner = owner(tenant, placement);
        let (cell, tier) = (placement.cell.as_str(), placement.tier.as_str());
        let rows = self.rows(sql, &[&cell, &tier, &owner]).await?;
        rows.iter()
            .map(|row| {
                Ok(Namespace {
                    module: parsed(row, "module")?,
                    hash: column(row, "package_hash")?,
                    steps: column(row, "steps")?,
                })
            })
            .collect()
    }

    /// Records which package made the tables of a tenant's place; a row that is there stays as it is.
    /// What the tenant had in another place before is forgotten.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn record_namespaces(
        &self,
        tenant: TenantId,
        placement: &Placement,
        made: &[(ModuleId, String)],
    ) -> Result<(), Fault> {
        let (cell, tier) = (placement.cell.as_str(), placement.tier.as_str());
        let sql = "delete from registry.namespace
                    where tenant_id = $1 and (cell, tier) <> ($2, $3)";
        self.execute(sql, &[&tenant.number(), &cell, &tier]).await?;
        if made.is_empty() {
            return Ok(());
        }
        let modules: Vec<&str> = made.iter().map(|(module, _)| module.as_str()).collect();
        let hashes: Vec<&str> = made.iter().map(|(_, hash)| hash.as_str()).collect();
        let sql = "insert into registry.namespace (module, cell, tier, tenant_id, package_hash)
                   select module, $1, $2, $3, hash
                     from unnest($4::text[], $5::text[]) as made (module, hash)
                   on conflict do nothing";
        self.execute(
            sql,
            &[&cell, &tier, &owner(tenant, placement), &modules, &hashes],
        )
        .await
        .map(drop)
    }

    /// Forgets the namespaces of a tenant that is gone.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn forget_namespaces(&self, tenant: TenantId) -> Result<(), Fault> {
        let sql = "delete from registry.namespace where tenant_id = $1";
        self.execute(sql, &[&tenant.number()]).await.map(drop)
    }

    /// The modules of which some namespace stands on another package than the current one.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_modules_behind(&self) -> Result<Vec<ModuleId>, Fault> {
        let rows = self.rows(ANY_BEHIND, &[]).await?;
        rows.iter().map(|row| parsed(row, "id")).collect()
    }

    /// The manifests of all packages that some namespace stands on, and of those that new ones get.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_manifests_in_use(&self) -> Result<Vec<StoredModule>, Fault> {
        let sql = "select manifest from registry.module
                    union
                   select p.content -> 'manifest' from registry.package p
                    where exists (select from registry.namespace n
                                   where n.module = p.module and n.package_hash = p.hash)";
        let rows = self.rows(sql, &[]).await?;
        rows.iter().map(module_from).collect()
    }

    /// A module's namespaces that stand on another package than this one.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_behind(&self, module: &ModuleId, hash: &str) -> Result<Vec<Behind>, Fault> {
        let rows = self.rows(BEHIND, &[&module.as_str(), &hash]).await?;
        rows.iter()
            .map(|row| {
                let tenant: Option<i64> = column(row, "tenant_id")?;
                Ok(Behind {
                    cell: parsed(row, "cell")?,
                    tier: parsed(row, "tier")?,
                    tenant: tenant.map(TenantId::new).transpose()?,
                    bucket: column(row, "bucket")?,
                    tenants: column(row, "tenants")?,
                })
            })
            .collect()
    }

    /// How many namespaces stand on which package.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn count_namespaces(&self) -> Result<Vec<Standing>, Fault> {
        let sql = "select n.module, n.package_hash, n.namespaces, p.version
                        , n.package_hash = m.package_hash as current
                     from (select module, package_hash, count(*) as namespaces
                             from registry.namespace
                            group by module, package_hash) n
                     join registry.module m on m.id = n.module
                     left join registry.package p on p.module = n.module and p.hash = n.package_hash
                    order by n.module, current, p.version";
        let rows = self.rows(sql, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(Standing {
                    module: parsed(row, "module")?,
                    version: column(row, "version")?,
                    hash: column(row, "package_hash")?,
                    current: column(row, "current")?,
                    namespaces: column(row, "namespaces")?,
                })
            })
            .collect()
    }
}

/// Whose namespace it is: nobody's alone in the shared tier.
fn owner(tenant: TenantId, placement: &Placement) -> Option<i64> {
    (placement.tier != Tier::Shared).then_some(tenant.number())
}

fn package_from(row: &tokio_postgres::Row) -> Result<StoredPackage, Fault> {
    Ok(StoredPackage {
        module: parsed(row, "module")?,
        hash: column(row, "hash")?,
        version: column(row, "version")?,
        steps: column(row, "steps")?,
        content: column(row, "content")?,
    })
}
