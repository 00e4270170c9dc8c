//! The loop that makes the cells what the registry wants.
//!
//! Each worker: claim a tenant that is behind its generation → read what is wanted → observe the
//! cell → [`plan`](plan::plan) → apply step by step → record the generation reached. Woken by a
//! change in this process, and by a timer for changes made elsewhere and for retries.
//!
//! Invariants: takes no input but the registry and the cells; every step may be repeated; a worker
//! that dies loses its claim with its connection, and another finishes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use waangu_kernel::{CellId, Fault, ModuleId, TenantId, fault};
use waangu_registry::{Desired, Registry, Session, State, Tenant};
use waangu_tenancy::{CellAdmin, HomeState, ModulePackage};

pub(crate) mod plan;

use plan::{Step, Wanted};

/// Longest pause between two looks for work.
const POLL: Duration = Duration::from_secs(1);

/// Pause after a failure of the control database itself.
const TROUBLE: Duration = Duration::from_millis(500);

/// What workers share.
pub(crate) struct Reconciler {
    pub(crate) registry: Registry,
    pub(crate) cells: HashMap<CellId, Arc<CellAdmin>>,
    pub(crate) packages: HashMap<ModuleId, ModulePackage>,
    /// Told when there may be work.
    pub(crate) work: Notify,
    /// Told when an operation has moved on.
    pub(crate) progress: Notify,
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
        let Some(claim) = session.claim().await? else {
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
        session.release(claim).await?;
        self.progress.notify_waiters();
        Ok(true)
    }

    async fn reconcile(&self, session: &mut Session, id: TenantId) -> Result<(), Fault> {
        let tx = session.begin().await?;
        let tenant = tx.get_tenant_by_id(id).await?;
        let activations = tx.list_activations(id).await?;
        let mut lineage = tx.list_ancestors(id).await?;
        lineage.sort_unstable();
        if tenant.desired == Desired::Deleted {
            tx.record_state(id, State::Deleting).await?;
        }
        tx.commit().await?;

        let cell = self.cells.get(&tenant.placement.cell).ok_or_else(|| {
            fault::INTERNAL.fault(format!(
                "cell {} is not configured here",
                tenant.placement.cell
            ))
        })?;
        let enabled: Vec<ModuleId> = activations
            .into_iter()
            .filter(|a| a.enabled)
            .map(|a| a.module)
            .collect();
        let wanted = self.wanted(&tenant, &enabled, lineage)?;
        let observed = cell.observe(id, &tenant.placement, &enabled).await?;
        let steps = plan::plan(&wanted, &observed);
        let total = steps.len();
        for (done, step) in steps.into_iter().enumerate() {
            self.report(session, &tenant, &step, percent(done, total))
                .await?;
            self.apply(cell, &tenant, &wanted, &step).await?;
        }
        self.record(session, &tenant, &enabled).await
    }

    fn wanted(
        &self,
        tenant: &Tenant,
        enabled: &[ModuleId],
        lineage: Vec<i64>,
    ) -> Result<Wanted, Fault> {
        let modules = enabled
            .iter()
            .map(|module| Ok((module.clone(), self.package(module)?.migrations.len())))
            .collect::<Result<_, Fault>>()?;
        Ok(Wanted {
            desired: tenant.desired,
            epoch: tenant.placement.epoch,
            modules,
            lineage,
        })
    }

    fn package(&self, module: &ModuleId) -> Result<&ModulePackage, Fault> {
        self.packages.get(module).ok_or_else(|| {
            fault::INTERNAL.fault(format!(
                "the package of module {module} is not installed here"
            ))
        })
    }

    async fn apply(
        &self,
        cell: &CellAdmin,
        tenant: &Tenant,
        wanted: &Wanted,
        step: &Step,
    ) -> Result<(), Fault> {
        let (id, placement) = (tenant.id, &tenant.placement);
        match step {
            Step::CreatePlace => cell.ensure_place(id, placement).await,
            Step::SetLineage => cell.set_lineage(id, placement, &wanted.lineage).await,
            Step::InstallModule(module) => {
                cell.ensure_module(id, placement, self.package(module)?)
                    .await
            }
            Step::OpenHome => cell.put_home(id, placement, HomeState::Active).await,
            Step::CloseHome => cell.put_home(id, placement, HomeState::Suspended).await,
            Step::RemoveData => cell.remove_tenant(id, placement).await,
        }
    }

    async fn report(
        &self,
        session: &mut Session,
        tenant: &Tenant,
        step: &Step,
        percent: i32,
    ) -> Result<(), Fault> {
        let text = step.describe();
        let tx = session.begin().await?;
        tx.report_progress(tenant.id, tenant.generation, &text, percent, &text)
            .await?;
        tx.commit_lazily().await?;
        self.progress.notify_waiters();
        Ok(())
    }

    async fn record(
        &self,
        session: &mut Session,
        tenant: &Tenant,
        ready: &[ModuleId],
    ) -> Result<(), Fault> {
        let tx = session.begin().await?;
        let state = match tenant.desired {
            Desired::Active => State::Active,
            Desired::Suspended => State::Suspended,
            Desired::Deleted => {
                tx.forget_users(tenant.id).await?;
                State::Deleted
            }
        };
        tx.record_reached(tenant.id, tenant.generation, state, ready)
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

/// Whole percents of the way done; the last step ends at 100 only when it is recorded.
fn percent(done: usize, total: usize) -> i32 {
    let share = done.saturating_mul(90).checked_div(total).unwrap_or(0);
    i32::try_from(share).unwrap_or(90).saturating_add(5)
}

/// What an operator needs to know of a failure; the admin API is the operator's.
fn operator_text(failure: &Fault) -> String {
    match failure.operator_cause() {
        Some(cause) => format!("{failure}: {cause}"),
        None => failure.to_string(),
    }
}
