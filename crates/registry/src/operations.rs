//! Operations: long-running changes that somebody watches.
//!
//! Invariant: an operation belongs to a generation of its tenant; it has succeeded when the cells
//! have reached that generation, whoever brought them there and however often it was tried.

use std::str::FromStr;

use time::OffsetDateTime;
use tokio_postgres::Row;
use uuid::Uuid;
use waangu_kernel::{Fault, OperationId, Slug, TenantId, fault};

use crate::db::{Session, Tx, column, internal, parsed};

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationStatus {
    /// Nobody has begun.
    Pending,
    /// Being worked on, or waiting for the next attempt.
    Running,
    /// Done.
    Succeeded,
    /// Given up; `error` says why.
    Failed,
}

impl OperationStatus {
    /// The name in API and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

impl FromStr for OperationStatus {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        [Self::Pending, Self::Running, Self::Succeeded, Self::Failed]
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| internal(format!("operation status {text}")))
    }
}

/// A long-running change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// The tenant it changes.
    pub tenant: Slug,
    /// That tenant's number.
    pub tenant_id: TenantId,
    /// `create`, `update`, `suspend`, `resume`, `delete`, `module`.
    pub kind: String,
    /// Where it stands.
    pub status: OperationStatus,
    /// The step in hand.
    pub step: String,
    /// Estimate of the way done.
    pub percent: i32,
    /// The last failure.
    pub error: Option<String>,
    /// Its beginning.
    pub created_at: OffsetDateTime,
    /// Its end.
    pub finished_at: Option<OffsetDateTime>,
}

/// One thing that happened in an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationEvent {
    /// Its number within the operation.
    pub seq: i32,
    /// When.
    pub at: OffsetDateTime,
    /// The step.
    pub step: String,
    /// Estimate of the way done.
    pub percent: i32,
    /// For people.
    pub message: String,
}

/// Takes the tenant's open operations to a step.
const REPORT: &str = "
with open as (
    update registry.operation
       set status = 'running'
         , step = $3
         , percent = greatest(percent, $4)
     where tenant_id = $1
       and generation <= $2
       and status in ('pending', 'running')
    returning id
)
insert into registry.operation_event (operation_id, seq, step, percent, message)
select id
     , 1 + (select count(*)::integer from registry.operation_event e
             where e.operation_id = open.id)
     , $3, $4, $5
  from open";

const ONE: &str = "
select o.*, t.slug
  from registry.operation o
  join registry.tenant t on t.id = o.tenant_id
 where o.id = $1";

impl Session {
    /// As [`Tx::get_operation`], in one round trip.
    ///
    /// # Errors
    /// The same.
    pub async fn get_operation(&self, id: OperationId) -> Result<Operation, Fault> {
        found(&self.rows(ONE, &[&id.uuid()]).await?, id)
    }

    /// As [`Tx::report_progress`], in a transaction of its own that does not wait for the disk: a report
    /// may be lost in a crash of the server, but never half-written.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn report_step(
        &self,
        tenant: TenantId,
        generation: i64,
        step: &str,
        percent: i32,
    ) -> Result<(), Fault> {
        let sql = format!("{REPORT} where set_config('synchronous_commit', 'off', true) = 'off'");
        self.rows(
            &sql,
            &[&tenant.number(), &generation, &step, &percent, &step],
        )
        .await
        .map(drop)
    }
}

impl Tx<'_> {
    /// Opens an operation for a generation of a tenant.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn create_operation(
        &self,
        tenant: TenantId,
        kind: &str,
        generation: i64,
    ) -> Result<OperationId, Fault> {
        let id = OperationId::generate();
        let sql = "insert into registry.operation (id, tenant_id, kind, generation)
                   values ($1, $2, $3, $4)";
        self.execute(sql, &[&id.uuid(), &tenant.number(), &kind, &generation])
            .await?;
        Ok(id)
    }

    /// One operation.
    ///
    /// # Errors
    /// `operation-not-found`; `database-unavailable`.
    pub async fn get_operation(&self, id: OperationId) -> Result<Operation, Fault> {
        found(&self.rows(ONE, &[&id.uuid()]).await?, id)
    }

    /// The events of an operation after number `after`.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_operation_events(
        &self,
        id: OperationId,
        after: i32,
    ) -> Result<Vec<OperationEvent>, Fault> {
        let sql = "select * from registry.operation_event
                    where operation_id = $1 and seq > $2
                    order by seq";
        let rows = self.rows(sql, &[&id.uuid(), &after]).await?;
        rows.iter()
            .map(|row| {
                Ok(OperationEvent {
                    seq: column(row, "seq")?,
                    at: column(row, "at")?,
                    step: column(row, "step")?,
                    percent: column(row, "percent")?,
                    message: column(row, "message")?,
                })
            })
            .collect()
    }

    /// Records progress in every open operation of the tenant up to this generation.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn report_progress(
        &self,
        tenant: TenantId,
        generation: i64,
        step: &str,
        percent: i32,
        message: &str,
    ) -> Result<(), Fault> {
        self.execute(
            REPORT,
            &[&tenant.number(), &generation, &step, &percent, &message],
        )
        .await
        .map(drop)
    }

    /// Closes every open operation of the tenant up to this generation.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn finish_operations(
        &self,
        tenant: TenantId,
        generation: i64,
        status: OperationStatus,
        error: Option<&str>,
    ) -> Result<(), Fault> {
        let percent = if status == OperationStatus::Succeeded {
            100
        } else {
            0
        };
        let message = error.unwrap_or("done");
        self.report_progress(tenant, generation, status.as_str(), percent, message)
            .await?;
        let sql = "update registry.operation
                      set status = $3
                        , error = $4
                        , finished_at = clock_timestamp()
                    where tenant_id = $1
                      and generation <= $2
                      and status in ('pending', 'running')";
        self.execute(
            sql,
            &[&tenant.number(), &generation, &status.as_str(), &error],
        )
        .await
        .map(drop)
    }
}

fn found(rows: &[Row], id: OperationId) -> Result<Operation, Fault> {
    let row = rows
        .first()
        .ok_or_else(|| fault::OPERATION_NOT_FOUND.fault(format!("there is no operation `{id}`")))?;
    operation_from(row)
}

fn operation_from(row: &Row) -> Result<Operation, Fault> {
    let id: Uuid = column(row, "id")?;
    Ok(Operation {
        id: OperationId::from_uuid(id),
        tenant: parsed(row, "slug")?,
        tenant_id: TenantId::new(column(row, "tenant_id")?)?,
        kind: column(row, "kind")?,
        status: parsed(row, "status")?,
        step: column(row, "step")?,
        percent: column(row, "percent")?,
        error: column(row, "error")?,
        created_at: column(row, "created_at")?,
        finished_at: column(row, "finished_at")?,
    })
}
