//! Operations: long-running changes that somebody watches.
//!
//! Invariant: an operation belongs to a generation of its tenant; it has succeeded when the cells
//! have reached that generation, whoever brought them there and however often it was tried.

use std::str::FromStr;

use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
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

/// A step of an operation, with the way done before it in percent.
pub type Progress = (String, i32);

/// Takes the tenant's open operations through the steps `$3` to a status, in one statement.
const REPORT: &str = "
with open as (
    update registry.operation
       set status = $6
         , step = ($3::text[])[cardinality($3)]
         , percent = greatest(percent, ($4::integer[])[cardinality($4)])
         , error = case when $6 = 'running' then error else $7 end
         , finished_at = case when $6 <> 'running' then clock_timestamp() end
     where tenant_id = $1
       and generation <= $2
       and status in ('pending', 'running')
    returning id
)
insert into registry.operation_event (operation_id, seq, step, percent, message)
select id
     , number + (select count(*) from registry.operation_event e where e.operation_id = open.id)
     , told.step
     , told.percent
     , told.message
  from open
 cross join unnest($3::text[], $4::integer[], $5::text[]) with ordinality
            as told (step, percent, message, number)";

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

    /// Tells of steps that have been begun, in a transaction of its own that does not wait for the disk: a
    /// report may be lost in a crash of the server, but never half-written.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn report_steps(
        &self,
        tenant: TenantId,
        generation: i64,
        steps: &[Progress],
    ) -> Result<(), Fault> {
        let sql = format!("{REPORT} where set_config('synchronous_commit', 'off', true) = 'off'");
        let report = Told::of(steps, None);
        let none: Option<&str> = None;
        let (steps, percents, messages) = report.columns();
        self.rows(
            &sql,
            &[
                &tenant.number(),
                &generation,
                steps,
                percents,
                messages,
                &OperationStatus::Running.as_str(),
                &none,
            ],
        )
        .await
        .map(drop)
    }
}

/// Steps, by columns.
struct Told<'a> {
    steps: Vec<&'a str>,
    percents: Vec<i32>,
    messages: Vec<&'a str>,
}

impl<'a> Told<'a> {
    /// These steps and one more, which has a message of its own.
    fn of(steps: &'a [Progress], last: Option<(&'a str, i32, &'a str)>) -> Self {
        let told = steps
            .iter()
            .map(|(step, percent)| (&**step, *percent, &**step));
        let told: Vec<_> = told.chain(last).collect();
        Self {
            steps: told.iter().map(|(step, _, _)| *step).collect(),
            percents: told.iter().map(|(_, percent, _)| *percent).collect(),
            messages: told.iter().map(|(_, _, message)| *message).collect(),
        }
    }

    fn columns(
        &self,
    ) -> (
        &(dyn ToSql + Sync),
        &(dyn ToSql + Sync),
        &(dyn ToSql + Sync),
    ) {
        (&self.steps, &self.percents, &self.messages)
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
        (step, percent, message): (&str, i32, &str),
    ) -> Result<(), Fault> {
        let report = Told::of(&[], Some((step, percent, message)));
        let end = (OperationStatus::Running, None);
        self.report((tenant, generation), &report, end).await
    }

    /// Closes every open operation of the tenant up to this generation, after steps that nobody was told
    /// of yet.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn finish_operations(
        &self,
        tenant: TenantId,
        generation: i64,
        steps: &[Progress],
        (status, error): (OperationStatus, Option<&str>),
    ) -> Result<(), Fault> {
        let percent = if status == OperationStatus::Succeeded {
            100
        } else {
            0
        };
        let last = (status.as_str(), percent, error.unwrap_or("done"));
        let report = Told::of(steps, Some(last));
        self.report((tenant, generation), &report, (status, error))
            .await
    }

    async fn report(
        &self,
        (tenant, generation): (TenantId, i64),
        report: &Told<'_>,
        (status, error): (OperationStatus, Option<&str>),
    ) -> Result<(), Fault> {
        let (steps, percents, messages) = report.columns();
        self.execute(
            REPORT,
            &[
                &tenant.number(),
                &generation,
                steps,
                percents,
                messages,
                &status.as_str(),
                &error,
            ],
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
