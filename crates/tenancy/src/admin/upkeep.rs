//! What a cell holds as a whole, and the bucket databases it has.

use waangu_kernel::Fault;

use super::{CellAdmin, column};
use crate::error::from_driver;

/// Longest look at the sizes of all databases, in milliseconds: PostgreSQL asks the file system for
/// every file.
const MEASURE_MILLISECONDS: u32 = 20_000;

/// What a cell holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CellMeasure {
    /// All of its databases together.
    pub bytes: i64,
    /// Clients connected.
    pub connections: i32,
}

impl CellAdmin {
    /// Measures the cell.
    ///
    /// # Errors
    /// `database-unavailable`, also when it takes too long.
    pub async fn measure(&self) -> Result<CellMeasure, Fault> {
        let mut client = self.client("postgres").await?;
        let tx = client.transaction().await.map_err(from_driver)?;
        tx.batch_execute(&format!(
            "set local statement_timeout = {MEASURE_MILLISECONDS}"
        ))
        .await
        .map_err(from_driver)?;
        // A database that is dropped meanwhile has no size.
        let sql = "select coalesce(sum(pg_database_size(oid)), 0)::bigint
                        , (select count(*)::integer from pg_stat_activity
                            where backend_type = 'client backend')
                     from pg_database";
        let row = tx.query_one(sql, &[]).await.map_err(from_driver)?;
        Ok(CellMeasure {
            bytes: row.try_get(0).map_err(from_driver)?,
            connections: row.try_get(1).map_err(from_driver)?,
        })
    }

    /// Ends the connections of modules whose transaction is older than so many seconds; gives their
    /// number. A module that enters and then says no more, not even Sync, is idle for neither of
    /// PostgreSQL's own time-outs, and would keep its seal and its tenant's lock for ever.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn end_overdue(&self, seconds: i32) -> Result<u64, Fault> {
        let client = self.client("postgres").await?;
        let sql = "select pg_terminate_backend(a.pid)
                     from pg_stat_activity a
                    where a.xact_start < clock_timestamp() - make_interval(secs => $1::integer)
                      and exists (select from pg_auth_members m
                                   where m.member = a.usesysid
                                     and m.roleid in ('waangu_module'::regrole, 'waangu_tree'::regrole))";
        client.execute(sql, &[&seconds]).await.map_err(from_driver)
    }

    /// The numbers of the bucket databases that exist.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_buckets(&self) -> Result<Vec<i32>, Fault> {
        let databases = self.list_databases().await?;
        let number = |name: &String| name.strip_prefix("waangu_schema_")?.parse().ok();
        Ok(databases.iter().filter_map(number).collect())
    }

    /// Ends removals of databases that a crash of the server has interrupted; says how many.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn finish_drops(&self) -> Result<usize, Fault> {
        let client = self.client("postgres").await?;
        let sql = "select datname::text from pg_database
                    where starts_with(datname::text, 'waangu_') and datconnlimit = -2";
        let rows = client.query(sql, &[]).await.map_err(from_driver)?;
        for row in &rows {
            self.drop_database(column(row, 0)?).await?;
        }
        Ok(rows.len())
    }

    /// Drops a bucket database.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn drop_bucket(&self, bucket: i32) -> Result<(), Fault> {
        self.drop_database(&format!("waangu_schema_{bucket}")).await
    }
}
