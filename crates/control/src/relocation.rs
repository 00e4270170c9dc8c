//! Moves of tenants, driven to their end.
//!
//! A handler writes what is wanted (`admin/relocations.rs`). A worker of any control process claims the
//! move by the tenant's own lock, asks the engine (`waangu-relocation`) what is to be done next, lets it
//! do that, and makes the registry name the new place between the fence and the opening. Killed at any
//! point, the next worker goes on: what is next follows from the two databases alone.
//!
//! Invariants:
//! - the phase is recorded before the work that it stands for, so a move that is `queued` has made
//!   nothing, and one that may be behind the commit point is never taken for one that is not;
//! - before the commit point a failed move is undone, behind it only driven forward;
//! - one worker, the watchman, goes on with nothing but moves behind the commit point, recorded as such or
//!   found to be ([`watch`]): nobody serves those tenants, so they must not wait for the copy of another one.
//!
//! Left out: the protocol (docs/relocation.md).

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use waangu_kernel::Fault;
use waangu_registry::{Session, Standstill};

use crate::config::MoveLimits;
use crate::reconcile::Reconciler;

mod arrive;
pub(crate) mod clean;
mod drive;
mod order;
mod ride;
mod watch;
pub(crate) mod ways;

pub(crate) use order::{Moved, request, tables};
use watch::Asked;

/// Pause between two looks for a move: so long nobody may serve a tenant whose worker was killed.
const LOOK: Duration = Duration::from_millis(200);

/// Pause after a failure of the control database itself.
const TROUBLE: Duration = Duration::from_millis(500);

/// What the workers of this process share.
#[derive(Clone)]
pub(crate) struct Movers {
    reconciler: Arc<Reconciler>,
    grace_seconds: i64,
    limits: MoveLimits,
}

impl Movers {
    pub(crate) fn new(reconciler: Arc<Reconciler>, grace_seconds: i64, limits: MoveLimits) -> Self {
        Self {
            reconciler,
            grace_seconds,
            limits,
        }
    }

    /// The lives of all workers.
    pub(crate) async fn run(self, stop: CancellationToken) {
        // So many moves this process makes at a time, and the watchman beside them.
        tokio::join!(
            self.work(Standstill::Only, &stop),
            self.work(Standstill::Any, &stop),
            self.work(Standstill::Any, &stop),
        );
    }

    async fn work(&self, which: Standstill, stop: &CancellationToken) {
        let mut asked = Asked::default();
        while !stop.is_cancelled() {
            let turn = async {
                let mut session = self.reconciler.registry.session().await?;
                self.turn(&mut session, which, &mut asked).await
            };
            // Dropped in the middle, a move goes on with the next process.
            let turned = tokio::select! {
                () = stop.cancelled() => return,
                turned = turn => turned,
            };
            let pause = match turned {
                Ok(true) => continue,
                Ok(false) => LOOK,
                Err(fault) => {
                    tracing::warn!(cause = fault.operator_cause(), "moves: {fault}");
                    TROUBLE
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.reconciler.moves.notified(), if which == Standstill::Any => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Takes one move as far as it goes now; says whether there was one.
    async fn turn(
        &self,
        session: &mut Session,
        which: Standstill,
        asked: &mut Asked,
    ) -> Result<bool, Fault> {
        let avoided = self.reconciler.circuits.avoided(usize::MAX);
        let lately = asked.lately();
        let claimed = session.claim_relocation(which, &avoided, &lately).await?;
        let Some(mut moved) = claimed else {
            return Ok(false);
        };
        if which == Standstill::Only && !self.is_standing(session, &mut moved, asked).await? {
            session.release_all().await?;
            return Ok(true);
        }
        Box::pin(self.drive(session, moved)).await?;
        session.release_all().await?;
        // Whatever was wanted of the tenant meanwhile is due now.
        self.reconciler.work.notify_one();
        self.reconciler.fleet.notify_one();
        // It may have taken a database out of the stock.
        self.reconciler.stock.notify_one();
        Ok(true)
    }
}
