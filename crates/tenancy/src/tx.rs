//! One tenant's transaction.
//!
//! Invariants:
//! - it is sealed by `waangu.enter` with a proof that this process could not have made;
//! - BEGIN, `enter` and the search path leave in one flight (pipelined), so the context costs no
//!   round trip of its own;
//! - dropped without [`TenantTx::commit`], it is rolled back before its connection is lent again;
//!   dropped in the middle of a query (a cancelled request, a panic), the query is cancelled and the
//!   connection closed, because a late cancel could hit the next borrower;
//! - after a statement that failed, or whose future was dropped, only the rollback is left.

use std::fmt;
use std::time::Duration;

use deadpool_postgres::Object;
use futures_util::future;
use tokio::runtime::Handle;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{NoTls, Row};
use waangu_identity::{Proof, RequestContext};
use waangu_kernel::placement::Tier;
use waangu_kernel::{Fault, fault};

use crate::error::{DriverCause, from_driver, is_state};
use crate::pools::Pools;

/// Longest time given to the rollback of an abandoned transaction.
const ROLLBACK: Duration = Duration::from_secs(2);

const ENTER: &str = "select waangu.enter($1, $2, $3)";
const PATH: &str = "select set_config('search_path', $1, true)";

/// A transaction in which exactly one tenant's rows exist.
pub struct TenantTx {
    client: Option<Object>,
    progress: Progress,
}

/// How far a transaction is, which decides what dropping it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Between statements.
    Idle,
    /// A statement is on its way.
    Busy,
    /// A statement failed; PostgreSQL would answer COMMIT with a silent rollback.
    Failed,
    /// A prepared statement of this connection can't be used any more; nobody should meet it again.
    Spoilt,
}

impl TenantTx {
    /// Begins a transaction for the tenant, and with the rights, that the context proves.
    ///
    /// # Errors
    /// `tenant-moving` when the tenant is frozen or elsewhere; `context-refused` when PostgreSQL does
    /// not accept the proof; `database-unavailable`.
    pub async fn begin(pools: &Pools, context: &RequestContext) -> Result<Self, Fault> {
        match Self::attempt(pools, context).await {
            // What another request did to the connection is not this one's fault; nothing has
            // happened yet.
            Err((Progress::Spoilt, _)) => Self::attempt(pools, context).await,
            other => other,
        }
        .map_err(|(_, fault)| fault)
    }

    async fn attempt(pools: &Pools, context: &RequestContext) -> Result<Self, (Progress, Fault)> {
        let database = context.placement.database(context.tenant);
        let client = pools
            .get(&context.placement.cell, &database)
            .await
            .map_err(|fault| (Progress::Failed, fault))?;
        let mut tx = Self {
            client: Some(client),
            progress: Progress::Busy,
        };
        let entered = tx.enter(context).await;
        match tx.settle(entered, refusal) {
            Ok(()) => Ok(tx),
            Err(fault) => Err((tx.progress, fault)),
        }
    }

    async fn enter(&self, context: &RequestContext) -> Result<(), tokio_postgres::Error> {
        let Some(client) = self.client.as_ref() else {
            return Ok(());
        };
        let Proof { claims, kid, mac } = &context.proof;
        let enter = client.prepare_cached(ENTER).await?;
        let params: [&(dyn ToSql + Sync); 3] = [claims, kid, mac];
        let begin = client.batch_execute("begin");
        let entered = client.query(&enter, &params);
        if context.placement.tier == Tier::Schema {
            let path = client.prepare_cached(PATH).await?;
            let schema = context.placement.schema(context.tenant, &context.module);
            let params: [&(dyn ToSql + Sync); 1] = [&schema];
            future::try_join3(begin, entered, client.query(&path, &params)).await?;
        } else {
            future::try_join(begin, entered).await?;
        }
        Ok(())
    }

    /// Runs a query; its rows are this tenant's.
    ///
    /// # Errors
    /// A fault whose constraint or SQLSTATE [`crate::constraint`] and [`crate::sql_state`] tell.
    pub async fn query(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Fault> {
        let client = self.start()?;
        let result = match client.prepare_cached(sql).await {
            Ok(statement) => client.query(&statement, params).await,
            Err(error) => Err(error),
        };
        self.settle(result, from_driver)
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
        let client = self.start()?;
        let result = match client.prepare_cached(sql).await {
            Ok(statement) => client.execute(&statement, params).await,
            Err(error) => Err(error),
        };
        self.settle(result, from_driver)
    }

    /// Commits.
    ///
    /// # Errors
    /// `internal` when a statement of this transaction failed or was abandoned before;
    /// `database-unavailable`: then it is unknown whether the commit happened.
    pub async fn commit(mut self) -> Result<(), Fault> {
        let committed = self.start()?.batch_execute("commit").await;
        committed.map_err(from_driver)?;
        // Returned to the pool only now that the transaction has ended.
        drop(self.client.take());
        Ok(())
    }

    fn start(&mut self) -> Result<&Object, Fault> {
        match self.progress {
            Progress::Idle => self.progress = Progress::Busy,
            // Its outcome is unknown: it may have failed on the server, or may yet.
            Progress::Busy => {
                return Err(
                    fault::INTERNAL.fault("a statement of this transaction was abandoned before")
                );
            }
            Progress::Failed | Progress::Spoilt => {
                return Err(
                    fault::INTERNAL.fault("a statement of this transaction has failed before")
                );
            }
        }
        self.client
            .as_ref()
            .ok_or_else(|| fault::INTERNAL.fault("the transaction has already ended"))
    }

    fn settle<T>(
        &mut self,
        result: Result<T, tokio_postgres::Error>,
        into_fault: fn(tokio_postgres::Error) -> Fault,
    ) -> Result<T, Fault> {
        self.progress = match &result {
            Ok(_) => Progress::Idle,
            Err(error) if spoils(error) => Progress::Spoilt,
            Err(_) => Progress::Failed,
        };
        result.map_err(into_fault)
    }
}

impl Drop for TenantTx {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else {
            return;
        };
        let Ok(runtime) = Handle::try_current() else {
            drop(Object::take(client));
            return;
        };
        if self.progress == Progress::Spoilt {
            drop(Object::take(client));
        } else if self.progress == Progress::Busy {
            let cancel = client.cancel_token();
            drop(Object::take(client));
            runtime.spawn(async move {
                if let Err(error) = cancel.cancel_query(NoTls).await {
                    tracing::debug!(%error, "an abandoned query could not be cancelled");
                }
            });
        } else {
            runtime.spawn(async move {
                let rollback = tokio::time::timeout(ROLLBACK, client.batch_execute("rollback"));
                if !matches!(rollback.await, Ok(Ok(()))) {
                    drop(Object::take(client));
                }
            });
        }
    }
}

impl fmt::Debug for TenantTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantTx({:?})", self.progress)
    }
}

/// The table has changed under a prepared statement (0A000), or somebody has deallocated it (26000).
fn spoils(error: &tokio_postgres::Error) -> bool {
    is_state(error, &SqlState::FEATURE_NOT_SUPPORTED)
        || is_state(error, &SqlState::INVALID_SQL_STATEMENT_NAME)
}

/// `enter` says "insufficient privilege" when it does not accept a proof.
fn refusal(error: tokio_postgres::Error) -> Fault {
    if is_state(&error, &SqlState::INSUFFICIENT_PRIVILEGE) {
        return fault::CONTEXT_REFUSED
            .fault("the database did not accept the request's context")
            .cause(DriverCause(error));
    }
    from_driver(error)
}
