//! A circuit per cell: one that does not answer is left alone, but for one probe with a growing pause,
//! and delays nobody who lives elsewhere.
//!
//! Invariants: a circuit opens only after a probe of the cell itself has failed, so that one broken
//! connection condemns nobody; it closes with the first probe that succeeds, and its tenants are then
//! due at once.
//!
//! Left out: what other control processes think; each finds out by itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::Instant;
use waangu_kernel::{CellId, Clock, Fault};
use waangu_registry::Registry;
use waangu_tenancy::{CellAdmin, is_unreachable};

/// First pause between two probes; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Longest pause between two probes: so long a cell that is back may wait for its work.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// An open circuit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outage {
    /// Since when.
    pub(crate) since: OffsetDateTime,
    /// What the last probe said.
    pub(crate) cause: String,
    /// How many have failed.
    pub(crate) probes: u32,
}

/// The circuits of all cells.
pub(crate) struct Circuits {
    clock: Arc<dyn Clock>,
    open: Mutex<HashMap<CellId, Outage>>,
    /// Work in hand, for each cell.
    busy: Mutex<HashMap<CellId, Busy>>,
}

/// Work at a cell.
struct Busy {
    /// Workers that are at it.
    count: usize,
    /// When the last one came or left.
    changed: Instant,
}

/// A place at a cell; given back when dropped.
pub(crate) struct Place<'a> {
    circuits: &'a Circuits,
    cell: CellId,
}

impl Circuits {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            open: Mutex::default(),
            busy: Mutex::default(),
        }
    }

    /// The cells that don't answer.
    pub(crate) fn outages(&self) -> HashMap<CellId, Outage> {
        self.lock().clone()
    }

    /// Whether a cell is thought to answer.
    pub(crate) fn is_closed(&self, cell: &CellId) -> bool {
        !self.lock().contains_key(cell)
    }

    /// The cells at which no more work should begin: those that don't answer, and those that have so
    /// many workers already that a silent one would take the last from everybody else.
    pub(crate) fn avoided(&self, most: usize) -> Vec<CellId> {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let full = busy.iter().filter(|(_, at)| at.count >= most);
        let mut cells: Vec<CellId> = full.map(|(cell, _)| cell.clone()).collect();
        cells.extend(self.lock().keys().cloned());
        cells
    }

    /// Takes a place at a cell.
    pub(crate) fn enter(&self, cell: &CellId) -> Place<'_> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = Instant::now();
        let at = busy
            .entry(cell.clone())
            .or_insert(Busy { count: 0, changed });
        *at = Busy {
            count: at.count + 1,
            changed,
        };
        Place {
            circuits: self,
            cell: cell.clone(),
        }
    }

    /// Whether nobody has been at work on a cell for so long.
    pub(crate) fn is_quiet(&self, cell: &CellId, since: Duration) -> bool {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = |at: &Busy| at.count == 0 && at.changed.elapsed() >= since;
        busy.get(cell).is_none_or(quiet)
    }

    /// Hears of a failure at a cell; says whether the cell is to blame.
    pub(crate) async fn failed(&self, cell: &CellAdmin, failure: &Fault) -> bool {
        if !is_unreachable(failure) {
            return false;
        }
        if !self.is_closed(cell.id()) {
            return true;
        }
        match cell.ping().await {
            Ok(()) => false,
            Err(fault) => {
                let cause = fault.operator_cause().unwrap_or_default().to_owned();
                tracing::warn!(cell = %cell.id(), cause, "cell {} does not answer", cell.id());
                let outage = Outage {
                    since: self.clock.now(),
                    cause,
                    probes: 1,
                };
                self.lock().entry(cell.id().clone()).or_insert(outage);
                true
            }
        }
    }

    /// Probes a cell while its circuit is open, and lets its tenants be worked on when it is back.
    /// Runs for ever.
    pub(crate) async fn watch(&self, cell: &CellAdmin, registry: &Registry, work: &Notify) {
        loop {
            let mut pause = FIRST_PAUSE;
            while !self.is_closed(cell.id()) {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                match cell.ping().await {
                    Ok(()) => match wake(registry, cell.id()).await {
                        Ok(()) => {
                            self.lock().remove(cell.id());
                            tracing::info!(cell = %cell.id(), "cell {} answers again", cell.id());
                            work.notify_one();
                        }
                        Err(fault) => {
                            tracing::warn!(cause = fault.operator_cause(), "not woken: {fault}");
                        }
                    },
                    Err(fault) => {
                        if let Some(outage) = self.lock().get_mut(cell.id()) {
                            outage.probes = outage.probes.saturating_add(1);
                            fault
                                .operator_cause()
                                .unwrap_or_default()
                                .clone_into(&mut outage.cause);
                        }
                    }
                }
            }
            tokio::time::sleep(FIRST_PAUSE).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CellId, Outage>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut busy = self
            .circuits
            .busy
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = busy.get_mut(&self.cell) {
            *at = Busy {
                count: at.count.saturating_sub(1),
                changed: Instant::now(),
            };
        }
    }
}

async fn wake(registry: &Registry, cell: &CellId) -> Result<(), Fault> {
    let mut session = registry.session().await?;
    let tx = session.begin().await?;
    tx.wake_cell(cell).await?;
    tx.commit().await
}
