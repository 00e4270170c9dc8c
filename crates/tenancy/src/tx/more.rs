//! Savepoints, results too large for memory, and COPY out.

use std::fmt;
use std::future::Future;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::types::ToSql;
use waangu_kernel::{Fault, fault};

use super::flight::{Call, Flight, MOST};
use super::{Progress, TenantTx, over};
use crate::error::from_driver;
use crate::pools::Lease;
use crate::pools::conn::Conn;
use crate::wire::{Error, Piece, Prepared, Row};

/// A point to which a transaction can go back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Savepoint(String);

/// Rows that arrive as they are asked for. Dropped before the last one, it leaves its transaction
/// with nothing but the rollback.
pub struct Rows<'t> {
    tx: &'t mut TenantTx,
    statement: Prepared,
}

/// Bytes of a `COPY … TO STDOUT`, likewise.
pub struct CopyOut<'t> {
    tx: &'t mut TenantTx,
    statement: Prepared,
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
        self.run(&Flight::one(&format!("savepoint {name}"), &[]))
            .await?;
        Ok(Savepoint(name))
    }

    /// Undoes everything since the point, a failed statement included.
    ///
    /// # Errors
    /// As [`TenantTx::query`].
    pub async fn roll_back_to(&mut self, point: &Savepoint) -> Result<(), Fault> {
        // What was not answered up to its end would be taken for the answer of the way back.
        if self.progress == Progress::Failed && !self.conn()?.wire().is_busy() {
            self.progress = Progress::Idle;
        }
        let sql = format!("rollback to savepoint {}", point.0);
        self.run(&Flight::one(&sql, &[])).await.map(drop)
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
        let statement = self.start_stream(sql, params).await?;
        Ok(Rows {
            tx: self,
            statement,
        })
    }

    /// Runs `COPY (query) TO STDOUT`; row-level security filters it like any query.
    ///
    /// # Errors
    /// As [`TenantTx::query`].
    pub async fn copy_out(&mut self, sql: &str) -> Result<CopyOut<'_>, Fault> {
        let statement = self.start_stream(sql, &[]).await?;
        Ok(CopyOut {
            tx: self,
            statement,
        })
    }

    /// Begins the transaction if it has not begun.
    async fn open(&mut self) -> Result<(), Fault> {
        if self.progress == Progress::New {
            self.run(&Flight::only_open()).await?;
        }
        Ok(())
    }

    /// Sends a statement, and waits until PostgreSQL has begun to answer it.
    async fn start_stream(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Prepared, Fault> {
        self.open().await?;
        if self.progress != Progress::Idle {
            return Err(over(
                "a statement of this transaction has failed or was abandoned before",
            ));
        }
        self.progress = Progress::Busy;
        let deadline = self.deadline;
        let conn = self.conn()?;
        let begun = in_time(deadline, async {
            let statement = conn.prepare(sql).await?;
            let wire = conn.wire();
            wire.run(&statement, params)?;
            wire.send().await?;
            let begun = wire.begun().await;
            wire.unless_refused(begun).await?;
            Ok(statement)
        });
        let begun = begun.await;
        self.settled(begun)
    }

    fn conn(&mut self) -> Result<&mut Conn, Fault> {
        let conn = self.lease.as_mut().and_then(Lease::conn);
        conn.ok_or_else(|| over("the transaction has no connection"))
    }

    /// One more piece of a stream, or `None` after the last.
    async fn piece(&mut self, statement: &Prepared) -> Result<Option<Piece>, Fault> {
        if self.progress != Progress::Busy {
            return Ok(None);
        }
        let deadline = self.deadline;
        let wire = self.conn()?.wire();
        let piece = in_time(deadline, async {
            let piece = wire.piece(statement.columns()).await;
            match wire.unless_refused(piece).await? {
                Piece::End(_) => wire.finish().await.map(|()| None),
                piece => Ok(Some(piece)),
            }
        });
        let piece = piece.await;
        let piece = self.settled(piece)?;
        if piece.is_none() {
            self.progress = Progress::Idle;
        }
        Ok(piece)
    }

    /// Without an answer in time it is still busy: dropping the transaction cancels the statement.
    fn settled<T>(&mut self, result: Result<Result<T, Error>, Fault>) -> Result<T, Fault> {
        result?.map_err(|error| {
            self.progress = Progress::Failed;
            from_driver(error)
        })
    }
}

impl Rows<'_> {
    /// The next row, or `None` after the last.
    ///
    /// # Errors
    /// As [`TenantTx::query`].
    pub async fn next(&mut self) -> Result<Option<Row>, Fault> {
        match self.tx.piece(&self.statement).await? {
            Some(Piece::Row(row)) => Ok(Some(row)),
            _ => Ok(None),
        }
    }
}

impl CopyOut<'_> {
    /// The next bytes, or `None` after the last.
    ///
    /// # Errors
    /// As [`TenantTx::query`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        match self.tx.piece(&self.statement).await? {
            Some(Piece::Bytes(bytes)) => Ok(Some(bytes)),
            _ => Ok(None),
        }
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

async fn in_time<T>(deadline: Instant, work: impl Future<Output = T>) -> Result<T, Fault> {
    let late = |_| fault::DATABASE_UNAVAILABLE.fault("the request's time is over");
    timeout_at(deadline, work).await.map_err(late)
}
