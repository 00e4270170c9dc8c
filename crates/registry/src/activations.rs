//! The modules switched on for a tenant.

use waangu_kernel::{Fault, ModuleId, TenantId, fault};

use crate::db::{Tx, column, parsed};

/// A module switched on or off for a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// The module.
    pub module: ModuleId,
    /// The version whose tables its place has.
    pub version: String,
    /// Whether it shall be on.
    pub enabled: bool,
    /// Whether the tenant's place is ready for it.
    pub ready: bool,
}

impl Tx<'_> {
    /// Switches a module on or off.
    ///
    /// # Errors
    /// `module-unknown` when it is not installed; `database-unavailable`.
    pub async fn put_activation(
        &self,
        id: TenantId,
        module: &ModuleId,
        enabled: bool,
    ) -> Result<(), Fault> {
        let sql = "insert into registry.activation (tenant_id, module, version, enabled)
                   select $1, m.id, m.version, $3 from registry.module m where m.id = $2
                   on conflict (tenant_id, module) do update set enabled = excluded.enabled";
        let rows = self
            .execute(sql, &[&id.number(), &module.as_str(), &enabled])
            .await?;
        if rows == 0 {
            return Err(fault::MODULE_UNKNOWN
                .fault(format!("there is no module `{module}`"))
                .field("module"));
        }
        Ok(())
    }

    /// A tenant's modules.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_activations(&self, id: TenantId) -> Result<Vec<Activation>, Fault> {
        let sql = "select a.module
                        , coalesce(p.version, a.version) as version
                        , a.enabled
                        , a.ready
                     from registry.activation a
                     join registry.tenant t on t.id = a.tenant_id
                     left join registry.namespace n on n.module = a.module
                                                   and n.cell = t.cell
                                                   and n.tier = t.tier
                                                   and n.tenant_id is not distinct from
                                                       case when t.tier <> 'shared' then t.id end
                     left join registry.package p on p.module = n.module
                                                 and p.hash = n.package_hash
                    where a.tenant_id = $1
                    order by a.module";
        let rows = self.rows(sql, &[&id.number()]).await?;
        rows.iter()
            .map(|row| {
                Ok(Activation {
                    module: parsed(row, "module")?,
                    version: column(row, "version")?,
                    enabled: column(row, "enabled")?,
                    ready: column(row, "ready")?,
                })
            })
            .collect()
    }
}
