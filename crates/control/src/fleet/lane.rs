//! One lane: a connection to a cell on which namespaces are upgraded, one after another.
//!
//! Invariants: what becomes of a namespace is recorded before the next is begun; a namespace that
//! fails keeps its version and delays nobody.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use waangu_kernel::{CellId, Fault, fault};
use waangu_registry::{RolloutState, Session, UpgradeEnd, UpgradeItem};
use waangu_tenancy::CellAdmin;
use waangu_tenancy::admin::{Upgraded, Upgrader};

use crate::config::RolloutLimits;
use crate::reconcile::{Reconciler, operator_text};

/// Namespaces that are claimed at once.
const BATCH: i64 = 25;

/// Attempts at a namespace that could not be had (a lock, a connection) before it counts as failed.
const ATTEMPTS: i32 = 6;

/// Works until nothing is left at the cell; says which cell it was.
pub(super) async fn run(
    reconciler: Arc<Reconciler>,
    cell: Arc<CellAdmin>,
    limits: RolloutLimits,
    stop: CancellationToken,
) -> CellId {
    let id = cell.id().clone();
    if let Err(fault) = work(&reconciler, &cell, limits, &stop).await {
        tracing::warn!(cell = %id, cause = fault.operator_cause(), "upgrades: {fault}");
    }
    id
}

async fn work(
    reconciler: &Reconciler,
    cell: &Arc<CellAdmin>,
    limits: RolloutLimits,
    stop: &CancellationToken,
) -> Result<(), Fault> {
    let mut session = reconciler.registry.session().await?;
    if !session.claim_lane(cell.id(), limits.lanes.get()).await? {
        return Ok(());
    }
    let mut lane = Lane {
        reconciler,
        limits,
        open: None,
    };
    while !stop.is_cancelled() && reconciler.circuits.is_closed(cell.id()) {
        let items = session.claim_upgrades(cell.id(), BATCH).await?;
        if items.is_empty() {
            break;
        }
        for item in &items {
            let go_on = lane.item(&mut session, item).await?;
            if !go_on || stop.is_cancelled() {
                break;
            }
        }
        session.release_upgrades(&items).await?;
    }
    session.release_all().await
}

struct Lane<'a> {
    reconciler: &'a Reconciler,
    limits: RolloutLimits,
    /// The connection in use, and what it is for.
    open: Option<(Key, Upgrader)>,
}

/// Database, module and package that a connection is for.
type Key = (CellId, String, String, String);

impl Lane<'_> {
    /// Upgrades one namespace; says whether to go on with the next.
    async fn item(&mut self, session: &mut Session, item: &UpgradeItem) -> Result<bool, Fault> {
        let end = if item.gone {
            UpgradeEnd::Skipped
        } else {
            match self.upgrade(session, item).await {
                Ok(Upgraded::Migrated(_) | Upgraded::AlreadyThere) => UpgradeEnd::Done,
                Ok(Upgraded::Newer) => UpgradeEnd::Skipped,
                Err(failure) => {
                    let cell = self.reconciler.cell(&item.placement.cell)?;
                    if self.reconciler.circuits.failed(cell, &failure).await {
                        // Nothing is said about a namespace whose cell is away: it is still due.
                        return Ok(false);
                    }
                    tracing::warn!(
                        rollout = %item.rollout, tenant = ?item.tenant,
                        cause = failure.operator_cause(), "not upgraded: {failure}"
                    );
                    failed(item, &failure)
                }
            }
        };
        let state = session.record_upgrade(item, &end).await?;
        Ok(state == RolloutState::Running)
    }

    async fn upgrade(
        &mut self,
        session: &mut Session,
        item: &UpgradeItem,
    ) -> Result<Upgraded, Fault> {
        let namesake = item.namesake()?;
        let cell = self.reconciler.cell(&item.placement.cell)?;
        let database = item.placement.database(namesake);
        let key = (
            cell.id().clone(),
            database.clone(),
            item.module.to_string(),
            item.hash.clone(),
        );
        let fits = |(open, upgrader): &(Key, Upgrader)| *open == key && !upgrader.is_spent();
        let mut upgrader = if let Some((_, upgrader)) = self.open.take().filter(fits) {
            upgrader
        } else {
            let tx = session.begin().await?;
            let packages = &self.reconciler.packages;
            let package = packages.get(&tx, &item.module, &item.hash).await?;
            tx.commit().await?;
            cell.upgrader(&database, &package, self.limits.upgrade())
                .await?
        };
        let schema = item.placement.schema(namesake, &item.module);
        let steps = usize::try_from(item.steps).unwrap_or(0);
        let done = upgrader.upgrade(&schema, steps).await;
        self.open = Some((key, upgrader));
        done
    }
}

/// What an operator is told, and whether it is worth another try.
fn failed(item: &UpgradeItem, failure: &Fault) -> UpgradeEnd {
    let text = operator_text(failure);
    let passing = failure.code() == fault::DATABASE_UNAVAILABLE.code;
    if passing && item.attempts + 1 < ATTEMPTS {
        UpgradeEnd::Again(text)
    } else {
        UpgradeEnd::Failed(text)
    }
}
