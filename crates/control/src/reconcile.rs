//! The loop that makes the cells what the registry wants.
//!
//! Each worker: claim a tenant that is behind its generation → read what is wanted → observe the
//! cell → [`plan`](plan::plan) → apply step by step → record the generation reached. Woken by a
//! change in this process, and by a timer for changes made elsewhere and for retries.
//!
//! Invariants: takes no input but the registry and the cells; every step may be repeated; a worker
//! that dies loses its claim with its connection, and another finishes.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::try_join;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use waangu_kernel::{CellId, Fault, ModuleId, TenantId, Tier, fault};
use waangu_registry::{Activation, Desired, Progress, Registry, Session, State, Tenant, Tx};
use waangu_tenancy::admin::Place;
use waangu_tenancy::{CellAdmin, HomeState, ModulePackage};

use crate::circuits::Circuits;
use crate::packages::Packages;
use crate::steps::{Reached, Steps};

pub(crate) mod plan;

use plan::{Step, Wanted, WantedModule};

/// Longest pause between two looks for work.
const POLL: Duration = Duration::from_secs(1);

/// Pause after a failure of the control database itself.
const TROUBLE: Duration = Duration::from_millis(500);

/// Of a step that takes longer than this is told while it is taken; of shorter ones at the end, because to
/// tell of one takes as long as many of them.
const SOON: Duration = Duration::from_millis(100);

/// Workers of this process that may be at work on one cell, if there are others: a cell that is silent
/// takes no more.
const WORKERS_AT_ONE_CELL: usize = 3;

/// What workers share.
pub(crate) struct Reconciler {
    pub(crate) registry: Registry,
    pub(crate) cells: HashMap<CellId, Arc<CellAdmin>>,
    pub(crate) packages: Packages,
    pub(crate) circuits: Circuits,
    /// Told when there may be work.
    pub(crate) work: Notify,
    /// Told when a rollout may have begun or moved.
    pub(crate) fleet: Notify,
    /// Told when a repair was asked for.
    pub(crate) repair: Notify,
    /// Told when something in stock was taken.
    pub(crate) stock: Notify,
    /// Told when a tenant is to be moved.
    pub(crate) moves: Notify,
    /// Told when an operation has moved on.
    pub(crate) progress: Steps,
}

impl Reconciler {
    /// One worker's life.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut session = None;
        while !stop.is_cancelled() {
            let pause = match self.turn(&mut session).await {
                Ok(true) => continue,
                Ok(false) => POLL,
                Err(fault) => {
                    tracing::warn!(cause = fault.operator_cause(), "reconciler: {fault}");
                    // The claim, if any, ends with the connection.
                    session = None;
                    TROUBLE
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.work.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Takes one tenant forward; says whether there was one.
    async fn turn(&self, slot: &mut Option<Session>) -> Result<bool, Fault> {
        if slot.is_none() {
            *slot = Some(self.registry.session().await?);
        }
        let Some(session) = slot.as_mut() else {
            return Ok(false);
        };
        let most = if self.cells.len() > 1 {
            WORKERS_AT_ONE_CELL
        } else {
            usize::MAX
        };
        let avoided = self.circuits.avoided(most);
        let Some(claim) = session.claim_elsewhere(&avoided).await? else {
            return Ok(false);
        };
        // Somebody else may take the next one meanwhile.
        self.work.notify_one();
        let tenant = claim.tenant;
        let result = self.reconcile(session, tenant).await;
        if let Err(failure) = result {
            tracing::warn!(%tenant, cause = failure.operator_cause(), "not reconciled: {failure}");
            self.fail(session, tenant, &failure).await?;
        }
        self.progress.tell(tenant, Reached::End);
        session.release(claim).await?;
        Ok(true)
    }

    async fn reconcile(&self, session: &mut Session, id: TenantId) -> Result<(), Fault> {
        let tx = session.begin().await?;
        // First: what is read after it is at least as new as its generation.
        let tenant = tx.get_tenant_by_id(id).await?;
        let (activations, mut lineage) = try_join!(tx.list_activations(id), tx.list_ancestors(id))?;
        let modules = self.modules(&tx, &tenant, activations).await?;
        lineage.sort_unstable();
        if tenant.desired == Desired::Deleted {
            tx.record_state(id, State::Deleting).await?;
        }
        tx.commit().await?;

        let cell = self.cell(&tenant.placement.cell)?;
        let _place = self.circuits.enter(cell.id());
        let done = self.bring(session, cell, &tenant, &modules, lineage).await;
        if let Err(failure) = &done {
            self.circuits.failed(cell, failure).await;
        }
        done
    }

    /// Brings a tenant's place to what is wanted.
    async fn bring(
        &self,
        session: &mut Session,
        cell: &CellAdmin,
        tenant: &Tenant,
        modules: &[Module],
        lineage: Vec<i64>,
    ) -> Result<(), Fault> {
        let wanted = Wanted {
            desired: tenant.desired,
            epoch: tenant.placement.epoch,
            modules: modules.iter().map(Module::wanted).collect(),
            lineage,
        };
        let enabled: Vec<ModuleId> = modules.iter().map(Module::id).collect();
        let mut place = cell.place(tenant.id, &tenant.placement);
        let observed = place.observe(&enabled).await?;
        if let Some(epoch) = plan::left_at(&wanted, &observed) {
            return Err(fault::REGISTRY_OUTDATED.fault(format!(
                "the tenant has left {} at epoch {epoch}, and the registry knows epoch {}",
                tenant.placement.database(tenant.id),
                wanted.epoch
            )));
        }
        if let Some(module) = plan::lost(&wanted, &observed) {
            return Err(fault::NAMESPACE_LOST.fault(format!(
                "schema {} of database {} is not there any more",
                tenant.placement.schema(tenant.id, module),
                tenant.placement.database(tenant.id)
            )));
        }
        let steps = plan::plan(&wanted, &observed);
        let mut untold = Vec::new();
        let work = Work {
            tenant,
            wanted: &wanted,
            modules,
        };
        let done = self
            .take_steps(session, &mut place, &work, &steps, &mut untold)
            .await;
        if let Err(failure) = done {
            // Why it stopped counts more than whether anybody hears how far it came.
            drop(self.report(session, tenant, &mut untold).await);
            return Err(failure);
        }
        self.record(session, tenant, modules, &untold).await
    }

    /// One step after another. Of one that takes long is told meanwhile; what remains in `untold` is told
    /// with the end.
    async fn take_steps(
        &self,
        session: &Session,
        place: &mut Place<'_>,
        work: &Work<'_>,
        steps: &[Step],
        untold: &mut Vec<Progress>,
    ) -> Result<(), Fault> {
        for (done, step) in steps.iter().enumerate() {
            untold.push((step.describe(), percent(done, steps.len())));
            let last = done + 1 == steps.len();
            let mut taking = pin!(self.apply(place, work, step, last));
            tokio::select! {
                taken = &mut taking => taken?,
                () = tokio::time::sleep(SOON) => {
                    self.report(session, work.tenant, untold).await?;
                    taking.await?;
                }
            }
        }
        Ok(())
    }

    /// A configured cell.
    pub(crate) fn cell(&self, id: &CellId) -> Result<&Arc<CellAdmin>, Fault> {
        self.cells
            .get(id)
            .ok_or_else(|| fault::INTERNAL.fault(format!("cell {id} is not configured here")))
    }

    /// The modules that are switched on for a tenant, each with the package that its tables stand on
    /// or, if there are none, the newest.
    async fn modules(
        &self,
        tx: &Tx<'_>,
        tenant: &Tenant,
        activations: Vec<Activation>,
    ) -> Result<Vec<Module>, Fault> {
        let standing = tx.list_namespaces(tenant.id, &tenant.placement).await?;
        let mut modules = Vec::new();
        for activation in activations {
            if !activation.enabled {
                continue;
            }
            let stands = standing
                .iter()
                .find(|namespace| namespace.module == activation.module);
            let known = stands.filter(|namespace| !namespace.hash.is_empty());
            let hash = match known {
                Some(namespace) => namespace.hash.clone(),
                None => tx.get_current_package(&activation.module).await?.hash,
            };
            let steps = stands.map(|namespace| usize::try_from(namespace.steps).unwrap_or(0));
            modules.push(Module {
                package: self.packages.get(tx, &activation.module, &hash).await?,
                hash,
                stands: steps,
            });
        }
        Ok(modules)
    }

    async fn apply(
        &self,
        place: &mut Place<'_>,
        work: &Work<'_>,
        step: &Step,
        last: bool,
    ) -> Result<(), Fault> {
        let Work {
            tenant,
            wanted,
            modules,
        } = work;
        match step {
            Step::CreatePlace => {
                let packages: Vec<_> = modules.iter().map(|module| &*module.package).collect();
                if place.take_from_stock(&packages).await? {
                    self.stock.notify_one();
                    return Ok(());
                }
                place.ensure().await
            }
            Step::SetLineage if last => place.set_lineage(&wanted.lineage).await,
            Step::SetLineage => place.set_lineage_lazily(&wanted.lineage).await,
            Step::InstallModule(module) => {
                let found = modules.iter().find(|known| known.package.id() == module);
                let known = found.ok_or_else(|| {
                    fault::INTERNAL.fault(format!("a step for module {module}, which is off"))
                })?;
                if !place.take_schema_from_stock(&known.package).await? {
                    place.ensure_module(&known.package).await?;
                }
                // Also after one that found none: its bucket may be new.
                if tenant.placement.tier == Tier::Schema {
                    self.stock.notify_one();
                }
                Ok(())
            }
            Step::OpenHome => place.put_home(HomeState::Active).await,
            Step::CloseHome => place.put_home(HomeState::Suspended).await,
            Step::RemoveData => place.remove().await,
        }
    }

    async fn report(
        &self,
        session: &Session,
        tenant: &Tenant,
        untold: &mut Vec<Progress>,
    ) -> Result<(), Fault> {
        if untold.is_empty() {
            return Ok(());
        }
        session
            .report_steps(tenant.id, tenant.generation, untold)
            .await?;
        untold.clear();
        self.progress.tell(tenant.id, Reached::Step);
        Ok(())
    }

    async fn record(
        &self,
        session: &mut Session,
        tenant: &Tenant,
        modules: &[Module],
        untold: &[Progress],
    ) -> Result<(), Fault> {
        let tx = session.begin().await?;
        let state = match tenant.desired {
            Desired::Active => State::Active,
            Desired::Suspended => State::Suspended,
            Desired::Deleted => {
                tx.forget_users(tenant.id).await?;
                tx.forget_namespaces(tenant.id).await?;
                State::Deleted
            }
        };
        if tenant.desired != Desired::Deleted {
            let made = modules.iter().filter(|module| module.stands.is_none());
            let made: Vec<_> = made
                .map(|module| (module.id(), module.hash.clone()))
                .collect();
            tx.record_namespaces(tenant.id, &tenant.placement, &made)
                .await?;
        }
        let ready: Vec<ModuleId> = modules.iter().map(Module::id).collect();
        tx.record_reached(tenant.id, tenant.generation, state, &ready, untold)
            .await?;
        tx.commit().await
    }

    async fn fail(
        &self,
        session: &mut Session,
        id: TenantId,
        failure: &Fault,
    ) -> Result<(), Fault> {
        let tx = session.begin().await?;
        let tenant = tx.get_tenant_by_id(id).await?;
        tx.record_failure(id, tenant.generation, &operator_text(failure))
            .await?;
        tx.commit().await
    }
}

/// The tenant in hand, and what is wanted of its place.
struct Work<'a> {
    tenant: &'a Tenant,
    wanted: &'a Wanted,
    modules: &'a [Module],
}

/// A module that is switched on for the tenant in hand.
struct Module {
    package: Arc<ModulePackage>,
    hash: String,
    /// Migrations that its tables are known to have; see [`WantedModule`].
    stands: Option<usize>,
}

impl Module {
    fn id(&self) -> ModuleId {
        self.package.id().clone()
    }

    fn wanted(&self) -> WantedModule {
        WantedModule {
            module: self.id(),
            steps: self.package.migrations.len(),
            stands: self.stands,
        }
    }
}

/// Whole percents of the way done; the last step ends at 100 only when it is recorded.
fn percent(done: usize, total: usize) -> i32 {
    let share = done.saturating_mul(90).checked_div(total).unwrap_or(0);
    i32::try_from(share).unwrap_or(90).saturating_add(5)
}

/// What an operator needs to know of a failure; the admin API is the operator's.
pub(crate) fn operator_text(failure: &Fault) -> String {
    match failure.operator_cause() {
        Some(cause) => format!("{failure}: {cause}"),
        None => failure.to_string(),
    }
}
