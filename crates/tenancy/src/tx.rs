//! One tenant's transaction.
//!
//! Invariants:
//! - it is sealed by `waangu.enter` with a proof that this process could not have made;
//! - `enter`, the search path, the first statement and, if it is the only one, the commit leave in one
//!   flight: the context costs no round trip;
//! - a connection on which its statements may have left something is closed ([`crate::pools`]);
//! - dropped without [`TenantTx::commit`], it is rolled back before its connection is lent again;
//!   dropped in the middle of a statement (a cancelled request, a panic, the deadline), the statement
//!   is cancelled and the connection closed, because a late cancel could hit the next borrower;
//! - after a statement that failed, or whose future was dropped, only the rollback is left;
//! - a tenant that is frozen or has moved (`WG001`) is waited for before the first statement, without
//!   holding a connection meanwhile; a request of which nothing has happened yet, and that came to a
//!   place its tenant has left, is told so at once (`tenant-moved`): whoever sent it knows the new place.
//!
//! `COPY … FROM` is refused by PostgreSQL under row-level security: bulk loads use `unnest` arrays.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use waangu_identity::RequestContext;
use waangu_identity::proof::Access;
use waangu_kernel::{Fault, fault};

mod ending;
mod flight;
mod more;
mod spent;

pub use more::{CopyOut, Rows, Savepoint};

use crate::error::{Said, from_driver, is_elsewhere};
use crate::pools::{Lease, Pools};
use crate::wire::{Error, Row};
use ending::roll_back;
pub use flight::Call;
use flight::{Answer, Flight, Stage};
use spent::Holding;
pub use spent::Spent;

/// Longest wait for a tenant that is frozen (a relocation's pause is far shorter).
const MOVING_PATIENCE: Duration = Duration::from_secs(5);

/// First pause between two looks at a tenant that is frozen; most are so for some 30 ms.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// Longest pause between two looks at a tenant that is frozen: so much longer may a pause seem.
const LONGEST_PAUSE: Duration = Duration::from_millis(25);

/// Time that a transaction has if its caller sets no deadline.
const DEADLINE: Duration = Duration::from_secs(30);

/// A transaction in which exactly one tenant's rows exist.
pub struct TenantTx {
    pools: Pools,
    context: RequestContext,
    deadline: Instant,
    lease: Option<Lease>,
    progress: Progress,
    savepoints: u32,
    spent: Spent,
    holding: Option<Holding>,
    /// How many transactions of the same request have begun, or may have, if somebody keeps that.
    begun: Option<Arc<AtomicU32>>,
}

/// How far a transaction is, which decides what dropping it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nothing was sent yet.
    New,
    /// Between statements.
    Idle,
    /// A statement is on its way.
    Busy,
    /// A statement failed; PostgreSQL would answer COMMIT with a silent rollback.
    Failed,
    /// A prepared statement of this connection can't be used any more; nobody should meet it again.
    Spoilt,
    /// Over.
    Ended,
}

impl TenantTx {
    /// A transaction for the tenant, and with the rights, that the context proves. It begins with its
    /// first statement; nothing is sent before. All of it must be done by `deadline`.
    pub fn lazy(pools: &Pools, context: &RequestContext, deadline: Instant) -> Self {
        Self {
            pools: pools.clone(),
            context: context.clone(),
            deadline,
            lease: None,
            progress: Progress::New,
            savepoints: 0,
            spent: Spent::default(),
            holding: None,
            begun: None,
        }
    }

    /// Adds the time for which it holds a connection to a sum.
    #[must_use]
    pub fn metered(mut self, spent: &Spent) -> Self {
        self.spent = spent.clone();
        self
    }

    /// One of several of a request: `begun` counts those that have begun, or of which nobody has heard
    /// whether they have: on their way beside this one, or given up before their answer. While there is
    /// none, and for a reader always, a tenant that has moved is not waited for: the request can be sent
    /// after it.
    #[must_use]
    pub fn of_request(mut self, begun: &Arc<AtomicU32>) -> Self {
        self.begun = Some(Arc::clone(begun));
        self
    }

    /// The same, begun at once.
    ///
    /// # Errors
    /// `tenant-moving` when the tenant is frozen or elsewhere; `context-refused` when PostgreSQL does
    /// not accept the proof; `overloaded`; `database-unavailable`.
    pub async fn begin(pools: &Pools, context: &RequestContext) -> Result<Self, Fault> {
        let mut tx = Self::lazy(pools, context, Instant::now() + DEADLINE);
        tx.run(&Flight::only_open()).await?;
        Ok(tx)
    }

    /// Runs a query; its rows are this tenant's.
    ///
    /// # Errors
    /// A fault whose constraint or SQLSTATE [`crate::constraint`] and [`crate::sql_state`] tell; before
    /// the first statement also those of [`TenantTx::begin`].
    pub async fn query(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Fault> {
        Ok(self.run(&Flight::one(sql, params)).await?.only())
    }

    /// Runs a query that gives at most one row.
    ///
    /// # Errors
    /// As [`TenantTx::query`].
    pub async fn query_opt(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, Fault> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    /// Runs a statement; returns the number of rows it touched.
    ///
    /// # Errors
    /// As [`TenantTx::query`].
    pub async fn execute(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Fault> {
        Ok(self.run(&Flight::one(sql, params)).await?.count)
    }

    /// Runs a query and commits, in one flight.
    ///
    /// # Errors
    /// As [`TenantTx::query`] and [`TenantTx::commit`].
    pub async fn query_and_commit(
        mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Fault> {
        Ok(self.run(&Flight::one(sql, params).last()).await?.only())
    }

    /// Runs a statement and commits, in one flight; returns the number of rows it touched.
    ///
    /// # Errors
    /// As [`TenantTx::query`] and [`TenantTx::commit`].
    pub async fn execute_and_commit(
        mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Fault> {
        Ok(self.run(&Flight::one(sql, params).last()).await?.count)
    }

    /// Commits.
    ///
    /// # Errors
    /// `internal` when a statement of this transaction failed or was abandoned before;
    /// `database-unavailable`: then it is unknown whether the commit happened.
    pub async fn commit(mut self) -> Result<(), Fault> {
        if self.progress == Progress::New {
            return Ok(());
        }
        self.run(&Flight::only_commit()).await.map(drop)
    }

    /// Sends a flight; the first one waits for a connection, and for a tenant that is being moved.
    async fn run(&mut self, flight: &Flight<'_>) -> Result<Answer, Fault> {
        match self.progress {
            Progress::New => self.first(flight).await,
            Progress::Idle => self.send(flight).await.map_err(|(_, fault)| fault),
            // Its outcome is unknown: it may have failed on the server, or may yet.
            Progress::Busy => Err(over("a statement of this transaction was abandoned before")),
            Progress::Failed | Progress::Spoilt => {
                Err(over("a statement of this transaction has failed before"))
            }
            Progress::Ended => Err(over("the transaction has already ended")),
        }
    }

    async fn first(&mut self, flight: &Flight<'_>) -> Result<Answer, Fault> {
        let patience = self.deadline.min(Instant::now() + MOVING_PATIENCE);
        let mut pause = FIRST_PAUSE;
        let mut spoilt = 0_u8;
        loop {
            self.progress = Progress::New;
            let database = self.context.database();
            let (cell, tenant) = (&self.context.placement.cell, self.context.tenant);
            self.lease = Some(
                self.pools
                    .lease(cell, &database, tenant, self.deadline)
                    .await?,
            );
            self.holding = Some(self.spent.hold());
            // Before it leaves: if this future is dropped on the way, it counts as begun.
            self.count_begun(1);
            let (stage, fault) = match self.send(flight).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            if matches!(stage, Stage::Begin | Stage::Enter) {
                self.count_begun(-1);
            }
            // What another request did to the connection is not this one's fault, and nothing has
            // happened yet, unless a statement may have committed by itself.
            let nothing_done = stage == Stage::Begin || !self.is_tainted();
            let again = self.progress == Progress::Spoilt && nothing_done && spoilt < 8;
            let moving = stage == Stage::Enter && fault.code() == fault::TENANT_MOVING.code;
            if moving && is_elsewhere(&fault) && self.may_be_sent_again() {
                self.let_go().await;
                return Err(fault::TENANT_MOVED.fault("the tenant's data has changed its place"));
            }
            let waits = moving && Instant::now() + pause < patience;
            if !(again || waits) {
                return Err(fault);
            }
            self.let_go().await;
            if waits {
                sleep(pause).await;
                pause = (pause * 3 / 2).min(LONGEST_PAUSE);
            } else {
                spoilt = spoilt.saturating_add(1);
            }
        }
    }

    /// Whether a statement of this transaction may have done anything to its connection.
    fn is_tainted(&mut self) -> bool {
        let conn = self.lease.as_mut().and_then(Lease::conn);
        conn.is_none_or(|conn| conn.is_tainted())
    }

    fn count_begun(&self, change: i32) {
        if let Some(begun) = &self.begun {
            begun.fetch_add(change.cast_unsigned(), Ordering::Relaxed);
        }
    }

    /// Whether the whole request may be made again, because nothing of it has happened.
    fn may_be_sent_again(&self) -> bool {
        self.begun.as_ref().is_some_and(|begun| {
            self.context.access == Access::Read || begun.load(Ordering::Relaxed) == 0
        })
    }

    async fn send(&mut self, flight: &Flight<'_>) -> Result<Answer, (Stage, Fault)> {
        let opening = self.progress == Progress::New;
        self.progress = Progress::Busy;
        let Some(conn) = self.lease.as_mut().and_then(Lease::conn) else {
            return Err((Stage::Statement, over("the transaction has no connection")));
        };
        let context = opening.then_some(&self.context);
        let Ok(sent) = timeout_at(self.deadline, flight.send(conn, context)).await else {
            // Still busy: dropping this transaction cancels the statement.
            let late = fault::DATABASE_UNAVAILABLE.fault("the request's time is over");
            return Err((Stage::Statement, late));
        };
        let (stage, error) = match sent {
            Ok(answer) => return self.sent(flight, answer),
            Err(failed) => failed,
        };
        // What can't be known is not done again: a commit may have been heard, and its answer lost.
        let unknown = !error.is_refusal() && flight.ends() && self.context.access == Access::Write;
        let stage = match stage {
            Stage::Begin if unknown => Stage::Commit,
            stage => stage,
        };
        let spoils = stage == Stage::Begin || spoils(&error);
        self.progress = if spoils {
            Progress::Spoilt
        } else {
            Progress::Failed
        };
        let fault = match stage {
            Stage::Enter => refusal(error),
            Stage::Begin | Stage::Statement | Stage::Commit => from_driver(error),
        };
        Err((stage, fault))
    }

    fn sent(&mut self, flight: &Flight<'_>, answer: Answer) -> Result<Answer, (Stage, Fault)> {
        let conn = self.lease.as_mut().and_then(Lease::conn);
        let state = conn.map(|conn| (conn.wire().is_open(), conn.wire().is_quiet()));
        match (flight.ends(), state) {
            (false, Some((true, _))) => {
                self.progress = Progress::Idle;
                Ok(answer)
            }
            (true, Some((_, true))) => {
                // Returned to the pool only now that the transaction has ended.
                self.progress = Progress::Ended;
                self.lease = None;
                self.holding = None;
                Ok(answer)
            }
            _ => {
                self.progress = Progress::Spoilt;
                let why = "a statement has begun or ended a transaction by itself";
                Err((Stage::Commit, over(why)))
            }
        }
    }

    /// Gives the connection back after a first flight that failed.
    async fn let_go(&mut self) {
        let Some(mut lease) = self.lease.take() else {
            return;
        };
        self.holding = None;
        if self.progress == Progress::Spoilt {
            lease.discard();
        } else {
            roll_back(lease).await;
        }
    }
}

impl fmt::Debug for TenantTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantTx({:?})", self.progress)
    }
}

fn over(why: &'static str) -> Fault {
    fault::INTERNAL.fault(why)
}

/// The table has changed under a prepared statement (0A000), or somebody has deallocated it (26000).
fn spoils(error: &Error) -> bool {
    error.is_state(&SqlState::FEATURE_NOT_SUPPORTED)
        || error.is_state(&SqlState::INVALID_SQL_STATEMENT_NAME)
}

/// `enter` says "insufficient privilege" when it does not accept a proof, and can't seal on a replica.
fn refusal(error: Error) -> Fault {
    if error.is_state(&SqlState::INSUFFICIENT_PRIVILEGE) {
        return fault::CONTEXT_REFUSED
            .fault("the database did not accept the request's context")
            .cause(Said::from(error));
    }
    if error.is_state(&SqlState::READ_ONLY_SQL_TRANSACTION) {
        return fault::DATABASE_READ_ONLY
            .fault("the tenant's database is a replica, or set to read only")
            .cause(Said::from(error));
    }
    from_driver(error)
}
