//! What the engine is told: which tables, from where, to where.

use std::sync::Arc;
use std::time::Duration;

use waangu_kernel::{Fault, ModuleId, Placement, TenantId};
use waangu_registry::{Relocation, Tenant, Tx};
use waangu_relocation::{Options, Request, Side};
use waangu_tenancy::ModulePackage;

use crate::config::MoveLimits;
use crate::reconcile::Reconciler;

/// A module whose tables hold rows of the tenant, switched on or not, with the package that they stand
/// on.
#[derive(Debug, Clone)]
pub(crate) struct Moved {
    pub(crate) package: Arc<ModulePackage>,
    pub(crate) hash: String,
}

/// An order to the engine.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) request: Request,
    /// Which package the tables at the new place stand on.
    pub(super) tables: Vec<(ModuleId, String)>,
}

impl Order {
    /// Reads what is to be moved.
    pub(super) async fn read(
        reconciler: &Reconciler,
        tx: &Tx<'_>,
        moved: &Relocation,
        limits: MoveLimits,
    ) -> Result<Self, Fault> {
        let tenant = tx.get_tenant_by_id(moved.tenant).await?;
        // The tables as they stood at the source: behind the commit point the registry may name the
        // target already.
        let at_source = Tenant {
            placement: moved.from.clone(),
            ..tenant
        };
        let mut modules = tables(reconciler, tx, &at_source).await?;
        if modules.is_empty() {
            let at_target = Tenant {
                placement: moved.to.clone(),
                ..at_source
            };
            modules = tables(reconciler, tx, &at_target).await?;
        }
        let mut lineage = tx.list_ancestors(moved.tenant).await?;
        lineage.sort_unstable();
        let pause = u64::try_from(moved.max_pause_ms).unwrap_or(1);
        let ends = (&moved.from, &moved.to);
        Ok(Self {
            request: Request {
                lineage,
                options: Options {
                    max_pause: Duration::from_millis(pause),
                    rate: moved.rate.and_then(|rate| u64::try_from(rate).ok()),
                    max_held: limits.max_held(),
                    max_copy: limits.max_copy(),
                    ..Options::default()
                },
                ..request(reconciler, moved.tenant, ends, &modules)?
            },
            tables: modules
                .into_iter()
                .map(|module| (module.package.id().clone(), module.hash))
                .collect(),
        })
    }

    /// Asks the engine to keep the old place fit to be gone back to, or not.
    pub(super) fn with_way_back(mut self, is_wanted: bool) -> Self {
        self.request.options.way_back = is_wanted;
        self
    }

    pub(super) fn modules(&self) -> Vec<ModuleId> {
        self.tables
            .iter()
            .map(|(module, _)| module.clone())
            .collect()
    }
}

/// What the engine is told of a move between two places, without its bounds.
pub(crate) fn request(
    reconciler: &Reconciler,
    tenant: TenantId,
    (from, to): (&Placement, &Placement),
    modules: &[Moved],
) -> Result<Request, Fault> {
    let side = |placement: &Placement| -> Result<Side, Fault> {
        let cell = reconciler.cell(&placement.cell)?;
        Ok(Side {
            cell: cell.config().clone(),
            placement: placement.clone(),
        })
    };
    Ok(Request {
        tenant,
        source: side(from)?,
        target: side(to)?,
        packages: modules
            .iter()
            .map(|module| ModulePackage::clone(&module.package))
            .collect(),
        lineage: Vec::new(),
        options: Options::default(),
    })
}

/// The modules whose tables hold rows of a tenant.
pub(crate) async fn tables(
    reconciler: &Reconciler,
    tx: &Tx<'_>,
    tenant: &Tenant,
) -> Result<Vec<Moved>, Fault> {
    let ever = tx.list_activations(tenant.id).await?;
    let mut found = Vec::new();
    for namespace in tx.list_namespaces(tenant.id, &tenant.placement).await? {
        let module = &namespace.module;
        if !ever.iter().any(|activation| activation.module == *module) {
            continue;
        }
        let hash = if namespace.hash.is_empty() {
            tx.get_current_package(module).await?.hash
        } else {
            namespace.hash.clone()
        };
        found.push(Moved {
            package: reconciler.packages.get(tx, module, &hash).await?,
            hash,
        });
    }
    Ok(found)
}
