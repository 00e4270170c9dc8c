//! Fleet upgrades: a module's package on its way to every namespace of every tier and cell.
//!
//! New namespaces get the newest package; what stands gets it by a rollout only, which an operator
//! begins (or, in development, the control plane itself). The conductor of each control process moves
//! rollouts from wave to wave and keeps lanes busy; each lane ([`lane`]) upgrades one namespace after
//! another, one transaction each.
//!
//! Invariants:
//! - a cell has at most [`RolloutLimits::lanes`] connections at work, however many control processes
//!   there are;
//! - nothing about a rollout is in memory only: whoever comes next goes on.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use waangu_kernel::{CellId, Fault, ModuleId, RolloutId, Slug, Tier, fault};
use waangu_registry::{Behind, NewItem, NewRollout, RolloutState, Session, StoredPackage, Tx};

use crate::config::{Config, RolloutLimits};
use crate::reconcile::Reconciler;

mod lane;
pub(crate) mod waves;

use waves::{Canaries, Verdict};

/// Connections that upgrades may take in this process.
const LANES_HERE: usize = 8;

/// Pause between two looks at a rollout that is on its way.
const LOOK: Duration = Duration::from_millis(200);

/// Longest pause between two looks for a rollout.
const POLL: Duration = Duration::from_secs(1);

/// A rollout as it would be.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) package: StoredPackage,
    pub(crate) waves: Vec<i32>,
    pub(crate) stop_percent: i32,
    pub(crate) items: Vec<NewItem>,
    pub(crate) behind: Vec<Behind>,
}

impl Draft {
    /// Which namespaces would be upgraded, in which order.
    pub(crate) async fn make(
        tx: &Tx<'_>,
        module: &ModuleId,
        waves: Vec<i32>,
        canaries: &[Slug],
        stop_percent: i32,
    ) -> Result<Self, Fault> {
        waves::check_waves(&waves)?;
        let package = tx.get_current_package(module).await?;
        let behind = tx.list_behind(module, &package.hash).await?;
        if behind.is_empty() {
            return Err(fault::ROLLOUT_EMPTY.fault(format!(
                "all of module `{module}` stands on version {}",
                package.version
            )));
        }
        let canaries = find(tx, canaries).await?;
        let items = waves::assign(&behind, &canaries, &waves);
        Ok(Self {
            package,
            waves,
            stop_percent,
            items,
            behind,
        })
    }

    /// Begins it. A rollout of an older package gives way.
    pub(crate) async fn begin(self, tx: &Tx<'_>, actor: &str) -> Result<RolloutId, Fault> {
        let module = self.package.module.clone();
        if let Some(open) = tx.lock_open_rollout(&module).await? {
            if open.hash == self.package.hash {
                return Err(fault::ROLLOUT_OPEN.fault(format!(
                    "rollout {} brings module `{module}` to the same version and is {}",
                    open.id,
                    open.state.as_str()
                )));
            }
            let why = format!("version {} takes its place", self.package.version);
            tx.move_rollout(open.id, RolloutState::Superseded, open.wave, &why)
                .await?;
        }
        tx.create_rollout(&NewRollout {
            module,
            hash: self.package.hash,
            waves: self.waves,
            stop_percent: self.stop_percent,
            actor: actor.to_owned(),
            items: self.items,
        })
        .await
    }
}

/// Where these tenants have their tables.
async fn find(tx: &Tx<'_>, slugs: &[Slug]) -> Result<Canaries, Fault> {
    let mut canaries = Canaries {
        tenants: BTreeSet::new(),
        cells: BTreeSet::new(),
    };
    for slug in slugs {
        let tenant = tx
            .get_tenant(slug)
            .await
            .map_err(|fault| fault.field("canaries"))?;
        if tenant.placement.tier == Tier::Shared {
            canaries.cells.insert(tenant.placement.cell);
        } else {
            canaries.tenants.insert(tenant.id);
        }
    }
    Ok(canaries)
}

/// Moves rollouts on and keeps lanes busy.
pub(crate) struct Conductor {
    reconciler: Arc<Reconciler>,
    auto: bool,
    limits: RolloutLimits,
    lanes: JoinSet<CellId>,
    busy: HashMap<CellId, usize>,
}

impl Conductor {
    pub(crate) fn new(reconciler: Arc<Reconciler>, config: &Config) -> Self {
        Self {
            reconciler,
            auto: config.auto_rollout,
            limits: config.rollouts,
            lanes: JoinSet::new(),
            busy: HashMap::new(),
        }
    }

    /// Its life.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let pause = match self.turn(&stop).await {
                Ok(true) => LOOK,
                Ok(false) => POLL,
                Err(fault) => {
                    tracing::warn!(cause = fault.operator_cause(), "fleet: {fault}");
                    POLL
                }
            };
            let reconciler = Arc::clone(&self.reconciler);
            tokio::select! {
                () = stop.cancelled() => {}
                () = reconciler.fleet.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        // Each finishes the namespace in hand.
        while self.lanes.join_next().await.is_some() {}
    }

    /// Looks once; says whether a rollout is on its way.
    async fn turn(&mut self, stop: &CancellationToken) -> Result<bool, Fault> {
        while let Some(ended) = self.lanes.try_join_next() {
            if let Ok(cell) = ended
                && let Some(count) = self.busy.get_mut(&cell)
            {
                *count = count.saturating_sub(1);
            }
        }
        let mut session = self.reconciler.registry.session().await?;
        if self.auto {
            begin_all(&mut session).await?;
            self.auto = false;
        }
        let tx = session.begin().await?;
        let running = tx.list_running_rollouts().await?;
        tx.commit().await?;
        for id in &running {
            advance(&mut session, *id).await?;
        }
        if running.is_empty() {
            return Ok(false);
        }
        let tx = session.begin().await?;
        let cells = tx.list_cells_with_upgrades().await?;
        tx.commit().await?;
        drop(session);
        self.staff(&cells, stop);
        Ok(true)
    }

    /// Starts lanes at the cells that have work.
    fn staff(&mut self, cells: &[CellId], stop: &CancellationToken) {
        for id in cells {
            let Some(cell) = self.reconciler.cells.get(id) else {
                continue;
            };
            let busy = self.busy.entry(id.clone()).or_default();
            let most = usize::try_from(self.limits.lanes.get()).unwrap_or(usize::MAX);
            while self.reconciler.circuits.is_closed(id)
                && *busy < most
                && self.lanes.len() < LANES_HERE
            {
                *busy += 1;
                let (reconciler, cell) = (Arc::clone(&self.reconciler), Arc::clone(cell));
                let (limits, stop) = (self.limits, stop.clone());
                self.lanes.spawn(lane::run(reconciler, cell, limits, stop));
            }
        }
    }
}

/// Begins a rollout of everything that is behind and not on its way yet.
pub(crate) async fn begin_all(session: &mut Session) -> Result<(), Fault> {
    let tx = session.begin().await?;
    let modules = tx.list_modules_behind().await?;
    tx.commit().await?;
    for module in modules {
        let tx = session.begin().await?;
        let begun = async {
            let draft = Draft::make(&tx, &module, vec![100], &[], 100).await?;
            draft.begin(&tx, "control").await
        };
        match begun.await {
            Ok(_) => tx.commit().await?,
            // Another control process has begun it, or an earlier one did.
            Err(fault) if fault.status() == fault::ROLLOUT_OPEN.status => {}
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

/// Moves one rollout to its next wave, or to its end. Of several control processes one does it.
async fn advance(session: &mut Session, id: RolloutId) -> Result<(), Fault> {
    let tx = session.begin().await?;
    let rollout = tx.get_rollout(id).await?;
    let counts = tx.count_waves(id).await?;
    if waves::judge(rollout.wave, &counts, rollout.stop_percent) == Verdict::GoOn {
        return Ok(());
    }
    // Judged again with the row locked: an operator or another process may have been first.
    let rollout = tx.lock_rollout(id).await?;
    if rollout.state != RolloutState::Running {
        return Ok(());
    }
    let counts = tx.count_waves(id).await?;
    let (state, wave, message) = match waves::judge(rollout.wave, &counts, rollout.stop_percent) {
        Verdict::GoOn => return Ok(()),
        Verdict::Begin(wave) => {
            let size = counts.iter().find(|count| count.wave == wave);
            let size = size.map_or(0, waangu_registry::WaveCount::total);
            let text = format!("wave {wave}: {size} namespaces");
            (RolloutState::Running, wave, text)
        }
        Verdict::Stop(failed, total) => {
            let text = format!(
                "stopped: {failed} of {total} namespaces of wave {} failed, more than {} %",
                rollout.wave, rollout.stop_percent
            );
            (RolloutState::Stopped, rollout.wave, text)
        }
        Verdict::End(state) => {
            let failed: i64 = counts.iter().map(|count| count.failed).sum();
            let text = match state {
                RolloutState::Partial => format!("over; {failed} namespaces keep what they had"),
                _ => "every namespace has it".to_owned(),
            };
            (state, rollout.wave, text)
        }
    };
    tracing::info!(rollout = %id, module = %rollout.module, "rollout of {}: {message}", rollout.module);
    tx.move_rollout(id, state, wave, &message).await?;
    tx.commit().await
}
