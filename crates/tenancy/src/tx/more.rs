//! Savepoints, results too large for memory, and COPY out.

use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::timeout_at;
use tokio_postgres::types::ToSql;
use tokio_postgres::{CopyOutStream, Error, Row, RowStream};
use waangu_kernel::{Fault, fault};

use super::flight::{Call, Flight, MOST};
use super::{Progress, TenantTx, over};
use crate::error::from_driver;

/// A point to which a transaction can go back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Savepoint(String);

/// Rows that arrive as they are asked for. Dropped before the last one, it leaves its transaction
/// with nothing but the rollback.
pub struct Rows<'t> {
    tx: &'t mut TenantTx,
    stream: Pin<Box<RowStream>>,
}

/// Bytes of a `COPY … TO STDOUT`, likewise.
pub struct CopyOut<'t> {
    tx: &'t mut TenantTx,
    stream: Pin<Box<CopyOutStream>>,
}

impl TenantTx {
    /// Runs statements that don't need each other's answers; they leave together, thirty at a time.
    /// What comes back are the rows of each: a write that is to tell something says RETURNING.
    ///
    /// # Errors
    /// As [`TenantTx::query`], of the first that fails; those after it have not run.
    pub async fn query_all(&mut self, calls: &[Call<'_>]) -> Result<Vec<Vec<Row>>, Fault> {
        let mut rows = Vec::with_capacity(calls.len());
        for some in calls.chunks(MOST) {
            rows.append(&mut self.run(&Flight::all(some)).await?.rows);
        }
        Ok(rows)
    }

    /// The same, and commits with the last of them.
    ///
    /// # Errors
    /// As [`TenantTx::query_all`] and [`TenantTx::commit`].
    pub async fn query_all_and_commit(
        mut self,
        calls: &[Call<'_>],
    ) -> Result<Vec<Vec<Row>>, Fault> {
        let last = calls.len().saturating_sub(1) / MOST * MOST;
        let (before, last) = calls.split_at(last);
        let mut rows = self.query_all(before).await?;
        if last.is_empty() {
            self.commit().await?;
        } else {
            rows.append(&mut self.run(&Flight::all(last).last()).await?.rows);
        }
        Ok(rows)
    }

    /// Marks a point to go back to. The seal is older than it, so it survives the way back.
    ///
    /// # Errors
    /// As [`TenantTx::query`].
    pub async fn savepoint(&mut self) -> Result<Savepoint, Fault> {
        self.savepoints = self.savepoints.saturating_add(1);
        let name = format!("waangu_{}", self.savepoints);
        self.open().await?;
        self.run(&Flight::count(&format!("savepoint {name}"), &[]))
            .await?;
        Ok(Savepoint(name))
    }

    /// Undoes everything since the point, a failed statement included.
    ///
    /// # Errors
    /// As [`TenantTx::query`].
    pub async fn roll_back_to(&mut self, point: &Savepoint) -> Result<(), Fault> {
        if self.progress == Progress::Failed {
            self.progress = Progress::Idle;
        }
        let sql = format!("rollback to savepoint {}", point.0);
        self.run(&Flight::count(&sql, &[])).await.map(drop)
    }

    /// Runs a query whose rows are too many for memory.
    ///
    /// # Errors
    /// As [`TenantTx::query`].
    pub async fn stream(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Rows<'_>, Fault> {
        self.start_stream().await?;
        let deadline = self.deadline;
        let Some(conn) = self.lease.as_mut().and_then(crate::pools::Lease::conn) else {
            return Err(over("the transaction has no connection"));
        };
        let begun = timeout_at(deadline, async {
            let statement = conn.prepare(sql).await?;
            conn.client()
                .query_raw(&statement, params.iter().copied())
                .await
        });
        let begun = begun.await;
        let stream = self.begun(begun)?;
        Ok(Rows {
            tx: self,
            stream: Box::pin(stream),
        })
    }

    /// Runs `COPY (query) TO STDOUT`; row-level security filters it like any query.
    ///
    /// # Errors
    /// As [`TenantTx::query`].
    pub async fn copy_out(&mut self, sql: &str) -> Result<CopyOut<'_>, Fault> {
        self.start_stream().await?;
        let deadline = self.deadline;
        let Some(conn) = self.lease.as_mut().and_then(crate::pools::Lease::conn) else {
            return Err(over("the transaction has no connection"));
        };
        conn.watch(sql);
        let begun = timeout_at(deadline, conn.client().copy_out(sql)).await;
        let stream = self.begun(begun)?;
        Ok(CopyOut {
            tx: self,
            stream: Box::pin(stream),
        })
    }

    /// Begins the transaction if it has not begun.
    async fn open(&mut self) -> Result<(), Fault> {
        if self.progress == Progress::New {
            self.run(&Flight::only_open()).await?;
        }
        Ok(())
    }

    async fn start_stream(&mut self) -> Result<(), Fault> {
        self.open().await?;
        if self.progress != Progress::Idle {
            return Err(over(
                "a statement of this transaction has failed or was abandoned before",
            ));
        }
        self.progress = Progress::Busy;
        Ok(())
    }

    fn begun<S, L>(&mut self, begun: Result<Result<S, Error>, L>) -> Result<S, Fault> {
        match begun {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => {
                self.progress = Progress::Failed;
                Err(from_driver(error))
            }
            // Still busy: dropping the transaction cancels the statement.
            Err(_late) => Err(late()),
        }
    }

    /// What to make of one more piece of a stream.
    fn piece<T, L>(
        &mut self,
        piece: Result<Option<Result<T, Error>>, L>,
    ) -> Result<Option<T>, Fault> {
        match piece {
            Ok(Some(Ok(piece))) => Ok(Some(piece)),
            Ok(Some(Err(error))) => {
                self.progress = Progress::Failed;
                Err(from_driver(error))
            }
            Ok(None) => {
                self.progress = Progress::Idle;
                Ok(None)
            }
            Err(_late) => Err(late()),
        }
    }
}

impl Rows<'_> {
    /// The next row, or `None` after the last.
    ///
    /// # Errors
    /// As [`TenantTx::query`].
    pub async fn next(&mut self) -> Result<Option<Row>, Fault> {
        let piece = timeout_at(self.tx.deadline, self.stream.next()).await;
        self.tx.piece(piece)
    }
}

impl CopyOut<'_> {
    /// The next bytes, or `None` after the last.
    ///
    /// # Errors
    /// As [`TenantTx::query`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        let piece = timeout_at(self.tx.deadline, self.stream.next()).await;
        self.tx.piece(piece)
    }
}

impl fmt::Debug for Rows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rows")
    }
}

impl fmt::Debug for CopyOut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CopyOut")
    }
}

fn late() -> Fault {
    fault::DATABASE_UNAVAILABLE.fault("the request's time is over")
}
