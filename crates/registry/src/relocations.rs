//! Moves of tenants: what is wanted, how far each is, and what each has left behind.
//!
//! Invariants:
//! - at most one open move of a tenant (a unique index), and at most one worker at it: the claim is the
//!   tenant's own lock, so nobody reconciles, upgrades or removes it meanwhile (see `work`);
//! - a move that has begun holds the tenant's tables still (`registry.holds_still`);
//! - place and epoch of the tenant change in one transaction, behind the commit point.
//!
//! Left out: who works (`relocations::claim`), and what the steps are (`waangu-relocation`).

use std::str::FromStr;

use serde_json::Value;
use time::OffsetDateTime;
use tokio_postgres::Row;
use uuid::Uuid;
use waangu_kernel::{
    CellId, Fault, ModuleId, Placement, RelocationId, Slug, TenantId, Tier, fault,
};

use crate::db::{Tx, column, internal, parsed};

mod back;
mod claim;
mod left;

pub use back::WantedWay;
pub use claim::Standstill;
pub use left::Left;

/// Where a move stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing has been made yet.
    Queued,
    /// The rows are being copied.
    Copying,
    /// The changes are followed, until the tenant is frozen, compared and fenced.
    Following,
    /// Behind the commit point: the registry is to name the new place, which is to open.
    Switching,
    /// Served at its new place; what the move needed is being removed.
    Finishing,
    /// Given up; what it made is being removed.
    Undoing,
    /// Over: the tenant has moved.
    Done,
    /// Over: the tenant has stayed, because somebody wanted it.
    Cancelled,
    /// Over: the tenant has stayed, because it could not be moved.
    Failed,
}

impl Phase {
    const ALL: [Self; 9] = [
        Self::Queued,
        Self::Copying,
        Self::Following,
        Self::Switching,
        Self::Finishing,
        Self::Undoing,
        Self::Done,
        Self::Cancelled,
        Self::Failed,
    ];

    /// The name in API and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Copying => "copying",
            Self::Following => "following",
            Self::Switching => "switching",
            Self::Finishing => "finishing",
            Self::Undoing => "undoing",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    /// Whether it is over.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled | Self::Failed)
    }

    /// Whether the only way is forward.
    pub fn is_past_commit(self) -> bool {
        matches!(self, Self::Switching | Self::Finishing | Self::Done)
    }
}

impl FromStr for Phase {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        Self::ALL
            .into_iter()
            .find(|phase| phase.as_str() == text)
            .ok_or_else(|| internal(format!("phase of a move {text}")))
    }
}

/// A move in figures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Rows copied.
    pub rows: i64,
    /// Bytes of them.
    pub bytes: i64,
    /// Bytes there are to copy, as estimated.
    pub total_bytes: Option<i64>,
    /// Bytes of the source's log that are still to be followed.
    pub lag_bytes: Option<i64>,
    /// The table in hand.
    pub table: Option<String>,
    /// Microseconds that writers were kept waiting at the commit point.
    pub pause_us: Option<i64>,
}

/// A move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relocation {
    /// Its id.
    pub id: RelocationId,
    /// Who moves.
    pub tenant: TenantId,
    /// Its slug.
    pub slug: Slug,
    /// Where it was; with the epoch there.
    pub from: Placement,
    /// Where it goes; with the epoch there, which is one more.
    pub to: Placement,
    /// How far it is.
    pub phase: Phase,
    /// Why that place.
    pub reasons: Vec<String>,
    /// Why at all.
    pub why: Option<String>,
    /// Who wanted it.
    pub actor: String,
    /// Longest time that writers wait at a stretch, in milliseconds.
    pub max_pause_ms: i32,
    /// Bytes copied in a second, at most.
    pub rate: Option<i64>,
    /// Whether somebody wants it undone.
    pub cancel_wanted: bool,
    /// In figures.
    pub figures: Figures,
    /// Failed attempts.
    pub attempts: i32,
    /// What the last one failed of.
    pub error: Option<String>,
    /// When it was wanted.
    pub created_at: OffsetDateTime,
    /// When its work began.
    pub started_at: Option<OffsetDateTime>,
    /// When the registry named the new place.
    pub switched_at: Option<OffsetDateTime>,
    /// Its end.
    pub finished_at: Option<OffsetDateTime>,
    /// When what stayed behind may be removed; until then the way back is open.
    pub clean_at: Option<OffsetDateTime>,
    /// When it was.
    pub cleaned_at: Option<OffsetDateTime>,
    /// Whether a move back would have to copy nothing.
    pub way_back: bool,
    /// Bytes of the new place's log that this holds back, as last seen.
    pub held_bytes: Option<i64>,
    /// Whether the rows were at the new place still, so that none was copied.
    pub adopted: bool,
}

/// A move to be made.
#[derive(Debug, Clone)]
pub struct NewRelocation {
    /// Who moves.
    pub tenant: TenantId,
    /// Where it is.
    pub from: Placement,
    /// Where it goes; the epoch does not count.
    pub to: Placement,
    /// Why that place.
    pub reasons: Vec<String>,
    /// Why at all.
    pub why: Option<String>,
    /// Who wants it.
    pub actor: String,
    /// See [`Relocation::max_pause_ms`].
    pub max_pause_ms: i32,
    /// See [`Relocation::rate`].
    pub rate: Option<i64>,
}

/// One thing that happened to a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelocationEvent {
    /// When.
    pub at: OffsetDateTime,
    /// In which phase.
    pub phase: String,
    /// For people.
    pub message: String,
}

const SELECT: &str = "select r.*, t.slug
                        from registry.relocation r
                        join registry.tenant t on t.id = r.tenant_id ";

impl Tx<'_> {
    /// Wants a move.
    ///
    /// # Errors
    /// `relocation-open` when another one of the tenant is not over; `database-unavailable`.
    pub async fn create_relocation(&self, new: &NewRelocation) -> Result<RelocationId, Fault> {
        let id = RelocationId::generate();
        let sql = "insert into registry.relocation
                   (id, tenant_id, from_cell, from_tier, from_bucket, to_cell, to_tier, to_bucket
                   , epoch, reasons, why, actor, max_pause_ms, rate)
                   values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
        self.execute(
            sql,
            &[
                &id.uuid(),
                &new.tenant.number(),
                &new.from.cell.as_str(),
                &new.from.tier.as_str(),
                &new.from.bucket,
                &new.to.cell.as_str(),
                &new.to.tier.as_str(),
                &new.to.bucket,
                &new.from.epoch,
                &new.reasons,
                &new.why,
                &new.actor,
                &new.max_pause_ms,
                &new.rate,
            ],
        )
        .await?;
        self.tell_relocation(id, &format!("wanted by {}", new.actor))
            .await?;
        Ok(id)
    }

    /// One move.
    ///
    /// # Errors
    /// `relocation-not-found`; `database-unavailable`.
    pub async fn get_relocation(&self, id: RelocationId) -> Result<Relocation, Fault> {
        self.find_relocation(id, "").await
    }

    /// As [`Tx::get_relocation`], and keeps others from changing it until this transaction ends.
    ///
    /// # Errors
    /// As [`Tx::get_relocation`].
    pub async fn lock_relocation(&self, id: RelocationId) -> Result<Relocation, Fault> {
        self.find_relocation(id, " for update of r").await
    }

    async fn find_relocation(&self, id: RelocationId, lock: &str) -> Result<Relocation, Fault> {
        let sql = format!("{SELECT} where r.id = $1{lock}");
        let row = self.row(&sql, &[&id.uuid()]).await?;
        row.as_ref()
            .map(relocation_from)
            .transpose()?
            .ok_or_else(|| fault::RELOCATION_NOT_FOUND.fault(format!("there is no move {id}")))
    }

    /// The newest moves, of one tenant or of all, newest first.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_relocations(
        &self,
        tenant: Option<TenantId>,
        limit: i64,
    ) -> Result<Vec<Relocation>, Fault> {
        let sql = format!(
            "{SELECT} where $1::bigint is null or r.tenant_id = $1
              order by r.created_at desc, r.id desc limit $2"
        );
        let rows = self
            .rows(&sql, &[&tenant.map(TenantId::number), &limit])
            .await?;
        rows.iter().map(relocation_from).collect()
    }

    /// The tenants that are on their way.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_moving(&self) -> Result<Vec<TenantId>, Fault> {
        let sql = "select tenant_id from registry.relocation where finished_at is null";
        let rows = self.rows(sql, &[]).await?;
        rows.iter()
            .map(|row| TenantId::new(column(row, "tenant_id")?))
            .collect()
    }

    /// What has happened to a move, oldest first.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_relocation_events(
        &self,
        id: RelocationId,
    ) -> Result<Vec<RelocationEvent>, Fault> {
        let sql = "select at, phase, message from registry.relocation_event
                    where relocation_id = $1 order by seq";
        let rows = self.rows(sql, &[&id.uuid()]).await?;
        rows.iter()
            .map(|row| {
                Ok(RelocationEvent {
                    at: column(row, "at")?,
                    phase: column(row, "phase")?,
                    message: column(row, "message")?,
                })
            })
            .collect()
    }

    /// Writes down what has happened, in the phase that the move is in now.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn tell_relocation(&self, id: RelocationId, message: &str) -> Result<(), Fault> {
        let sql = "insert into registry.relocation_event (relocation_id, seq, phase, message)
                   select r.id
                        , (select coalesce(max(seq), 0) + 1 from registry.relocation_event
                            where relocation_id = r.id)
                        , r.phase
                        , $2
                     from registry.relocation r
                    where r.id = $1";
        self.execute(sql, &[&id.uuid(), &message]).await.map(drop)
    }

    /// Brings a move to another phase, if it is not in it or over, and writes that down.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn move_on(
        &self,
        id: RelocationId,
        phase: Phase,
        message: &str,
    ) -> Result<(), Fault> {
        let sql = "update registry.relocation
                      set phase = $2
                        , started_at = coalesce(started_at, now())
                        , finished_at = case when $3 then clock_timestamp() end
                    where id = $1 and finished_at is null and phase <> $2";
        let moved = self
            .execute(sql, &[&id.uuid(), &phase.as_str(), &phase.is_over()])
            .await?;
        if moved == 0 {
            return Ok(());
        }
        self.tell_relocation(id, message).await
    }

    /// Wants a move undone. Whether it can be is decided by whoever holds it.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn cancel_relocation(&self, id: RelocationId) -> Result<(), Fault> {
        let sql = "update registry.relocation
                      set cancel_wanted = true
                        , retry_at = now()
                    where id = $1 and finished_at is null";
        self.execute(sql, &[&id.uuid()]).await.map(drop)
    }

    /// Records how far a move is; says whether it shall be undone: somebody wants that, or its tenant
    /// is to be deleted.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn report_relocation(
        &self,
        id: RelocationId,
        figures: &Figures,
    ) -> Result<bool, Fault> {
        let sql = "update registry.relocation r
                      set done_rows = $2
                        , done_bytes = $3
                        , total_bytes = coalesce($4, r.total_bytes)
                        , lag_bytes = $5
                        , table_name = $6
                        , pause_us = coalesce($7, r.pause_us)
                     from registry.tenant t
                    where r.id = $1 and t.id = r.tenant_id
                   returning r.cancel_wanted or t.desired = 'deleted' as unwanted";
        let row = self
            .one(
                sql,
                &[
                    &id.uuid(),
                    &figures.rows,
                    &figures.bytes,
                    &figures.total_bytes,
                    &figures.lag_bytes,
                    &figures.table,
                    &figures.pause_us,
                ],
            )
            .await?;
        column(&row, "unwanted")
    }

    /// Records a failed attempt; the next one comes after so many seconds.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn postpone_relocation(
        &self,
        id: RelocationId,
        error: &str,
        seconds: f64,
    ) -> Result<(), Fault> {
        self.defer_relocation(id, error, seconds).await?;
        let sql = "update registry.relocation set attempts = attempts + 1 where id = $1";
        self.execute(sql, &[&id.uuid()]).await.map(drop)
    }

    /// Lets a move wait for so many seconds, which says nothing against it. What is waited for is written
    /// down once, however often it is looked for.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn defer_relocation(
        &self,
        id: RelocationId,
        error: &str,
        seconds: f64,
    ) -> Result<(), Fault> {
        let before = self.get_relocation(id).await?.error;
        let sql = "update registry.relocation
                      set error = $2
                        , retry_at = now() + make_interval(secs => $3)
                    where id = $1";
        self.execute(sql, &[&id.uuid(), &error, &seconds]).await?;
        if before.as_deref() == Some(error) {
            return Ok(());
        }
        self.tell_relocation(id, error).await
    }

    /// Says why a move will have failed once it is undone.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn blame_relocation(&self, id: RelocationId, error: &str) -> Result<(), Fault> {
        let sql = "update registry.relocation set error = $2, attempts = 0, retry_at = now()
                    where id = $1";
        self.execute(sql, &[&id.uuid(), &error]).await.map(drop)
    }

    /// Makes the registry name the new place, which gateways then hear of; may be repeated. `tables`
    /// are the packages that the tables there stand on.
    ///
    /// # Errors
    /// `internal` when the tenant is at neither place; `database-unavailable`.
    pub async fn switch_placement(
        &self,
        moved: &Relocation,
        tables: &[(ModuleId, String)],
    ) -> Result<(), Fault> {
        let to = &moved.to;
        let sql = "update registry.tenant
                      set cell = $3
                        , tier = $4
                        , bucket = $5
                        , epoch = $6
                        , reasons = $7
                        , revision = revision + 1
                    where id = $1 and epoch = $2";
        let switched = self
            .execute(
                sql,
                &[
                    &moved.tenant.number(),
                    &moved.from.epoch,
                    &to.cell.as_str(),
                    &to.tier.as_str(),
                    &to.bucket,
                    &to.epoch,
                    &moved.reasons,
                ],
            )
            .await?;
        if switched == 0 {
            let tenant = self.get_tenant_by_id(moved.tenant).await?;
            if tenant.placement != *to {
                return Err(internal(format!(
                    "{} is at neither end of move {}",
                    moved.tenant, moved.id
                )));
            }
        }
        self.record_namespaces(moved.tenant, to, tables).await?;
        if moved.from.tier != to.tier {
            // What the tenant has from now on by decision of its operator.
            let tier = Value::from(to.tier.as_str());
            self.put_override(moved.tenant, "tier", &tier).await?;
        }
        let sql = "update registry.relocation
                      set switched_at = coalesce(switched_at, clock_timestamp())
                    where id = $1";
        self.execute(sql, &[&moved.id.uuid()]).await.map(drop)
    }
}

fn relocation_from(row: &Row) -> Result<Relocation, Fault> {
    let id: Uuid = column(row, "id")?;
    let epoch: i64 = column(row, "epoch")?;
    let place = |cell: CellId, tier: Tier, bucket: i32, epoch: i64| Placement {
        cell,
        tier,
        bucket,
        epoch,
    };
    Ok(Relocation {
        id: RelocationId::from_uuid(id),
        tenant: TenantId::new(column(row, "tenant_id")?)?,
        slug: parsed(row, "slug")?,
        from: place(
            parsed(row, "from_cell")?,
            parsed(row, "from_tier")?,
            column(row, "from_bucket")?,
            epoch,
        ),
        to: place(
            parsed(row, "to_cell")?,
            parsed(row, "to_tier")?,
            column(row, "to_bucket")?,
            epoch + 1,
        ),
        phase: parsed(row, "phase")?,
        reasons: column(row, "reasons")?,
        why: column(row, "why")?,
        actor: column(row, "actor")?,
        max_pause_ms: column(row, "max_pause_ms")?,
        rate: column(row, "rate")?,
        cancel_wanted: column(row, "cancel_wanted")?,
        figures: Figures {
            rows: column(row, "done_rows")?,
            bytes: column(row, "done_bytes")?,
            total_bytes: column(row, "total_bytes")?,
            lag_bytes: column(row, "lag_bytes")?,
            table: column(row, "table_name")?,
            pause_us: column(row, "pause_us")?,
        },
        attempts: column(row, "attempts")?,
        error: column(row, "error")?,
        created_at: column(row, "created_at")?,
        started_at: column(row, "started_at")?,
        switched_at: column(row, "switched_at")?,
        finished_at: column(row, "finished_at")?,
        clean_at: column(row, "clean_at")?,
        cleaned_at: column(row, "cleaned_at")?,
        way_back: column(row, "way_back")?,
        held_bytes: column(row, "held_bytes")?,
        adopted: column(row, "adopted")?,
    })
}
