//! Rollouts: a package on its way to every namespace of its module, wave by wave.
//!
//! Invariants: at most one open rollout of a module (a unique index); what has happened to a namespace
//! is written before the next one is begun by the same worker.
//!
//! Left out: who works on an item (`upgrades`), which namespace is in which wave, and when a rollout
//! stops (decisions of the control plane).

use std::str::FromStr;

use time::OffsetDateTime;
use tokio_postgres::Row;
use uuid::Uuid;
use waangu_kernel::{CellId, Fault, ModuleId, RolloutId, Slug, TenantId, Tier, fault};

use crate::db::{Tx, column, internal, parsed};

/// Where a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolloutState {
    /// On its way.
    Running,
    /// Held by an operator.
    Paused,
    /// Held by itself: too many failures.
    Stopped,
    /// Every namespace has the package.
    Succeeded,
    /// Over; some namespaces have failed.
    Partial,
    /// Given up by an operator.
    Cancelled,
    /// A newer package has taken its place.
    Superseded,
}

impl RolloutState {
    const ALL: [Self; 7] = [
        Self::Running,
        Self::Paused,
        Self::Stopped,
        Self::Succeeded,
        Self::Partial,
        Self::Cancelled,
        Self::Superseded,
    ];

    /// The name in API and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Succeeded => "succeeded",
            Self::Partial => "partial",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
        }
    }

    /// Whether it still holds its module.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Stopped)
    }
}

impl FromStr for RolloutState {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| internal(format!("rollout state {text}")))
    }
}

/// A rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// Its id.
    pub id: RolloutId,
    /// The module.
    pub module: ModuleId,
    /// The package.
    pub hash: String,
    /// The package's version.
    pub version: String,
    /// Where it stands.
    pub state: RolloutState,
    /// The percentages that end its waves; wave 0, the canaries, comes before them.
    pub waves: Vec<i32>,
    /// The wave in hand.
    pub wave: i32,
    /// The share of failures in a wave, in percent, beyond which it stops.
    pub stop_percent: i32,
    /// Why it is not on its way any more.
    pub reason: Option<String>,
    /// Who began it.
    pub actor: String,
    /// Its beginning.
    pub created_at: OffsetDateTime,
    /// Its end.
    pub finished_at: Option<OffsetDateTime>,
}

/// A rollout to be begun.
#[derive(Debug, Clone)]
pub struct NewRollout {
    /// The module.
    pub module: ModuleId,
    /// The package.
    pub hash: String,
    /// The percentages that end its waves.
    pub waves: Vec<i32>,
    /// See [`Rollout::stop_percent`].
    pub stop_percent: i32,
    /// Who begins it.
    pub actor: String,
    /// Its namespaces in the order of work, at least one.
    pub items: Vec<NewItem>,
}

/// A namespace of a rollout to be begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewItem {
    /// Its wave.
    pub wave: i32,
    /// Where.
    pub cell: CellId,
    /// In which tier.
    pub tier: Tier,
    /// Whose, unless it is shared.
    pub tenant: Option<TenantId>,
}

/// How far one wave is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WaveCount {
    /// Its number.
    pub wave: i32,
    /// Namespaces that wait, or are in hand.
    pub pending: i64,
    /// That have the package.
    pub done: i64,
    /// That could not be upgraded.
    pub failed: i64,
    /// That nobody needs any more.
    pub skipped: i64,
}

impl WaveCount {
    /// All of its namespaces.
    pub fn total(&self) -> i64 {
        self.pending + self.done + self.failed + self.skipped
    }
}

/// How fast a rollout goes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pace {
    /// Namespaces that ended in the time looked at.
    pub ended: i64,
    /// From the first of their ends to now, in seconds.
    pub seconds: f64,
}

/// A namespace that could not be upgraded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedItem {
    /// Where.
    pub cell: CellId,
    /// In which tier.
    pub tier: Tier,
    /// Whose, unless it is shared.
    pub tenant: Option<Slug>,
    /// How often it was tried.
    pub attempts: i32,
    /// Whether it is tried again by itself.
    pub waiting: bool,
    /// Why it failed.
    pub error: String,
}

/// One thing that happened to a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutEvent {
    /// Its number within the rollout.
    pub seq: i32,
    /// When.
    pub at: OffsetDateTime,
    /// For people.
    pub message: String,
}

const SELECT: &str = "select r.*, p.version
                        from registry.rollout r
                        join registry.package p on p.module = r.module and p.hash = r.package_hash ";

/// The lock of a tenant's own namespace is the tenant's; a shared one has a lock of its own, below all
/// others.
const INSERT_ITEMS: &str = "
insert into registry.rollout_item (rollout_id, seq, wave, cell, tier, tenant_id, lock_key)
select $1
     , item.seq::integer
     , item.wave
     , item.cell
     , item.tier
     , item.tenant
     , coalesce(item.tenant, -1000 - abs(hashtext(item.cell || '/' || $2)::bigint))
  from unnest($3::integer[], $4::text[], $5::text[], $6::bigint[]) with ordinality
       as item (wave, cell, tier, tenant, seq)";

impl Tx<'_> {
    /// Begins a rollout.
    ///
    /// # Errors
    /// `rollout-open` when another of this module is not over; `database-unavailable`.
    pub async fn create_rollout(&self, new: &NewRollout) -> Result<RolloutId, Fault> {
        let id = RolloutId::generate();
        let first = new.items.iter().map(|item| item.wave).min().unwrap_or(0);
        let sql = "insert into registry.rollout
                   (id, module, package_hash, waves, wave, stop_percent, actor)
                   values ($1, $2, $3, $4, $5, $6, $7)";
        self.execute(
            sql,
            &[
                &id.uuid(),
                &new.module.as_str(),
                &new.hash,
                &new.waves,
                &first,
                &new.stop_percent,
                &new.actor,
            ],
        )
        .await?;
        let waves: Vec<i32> = new.items.iter().map(|item| item.wave).collect();
        let cells: Vec<&str> = new.items.iter().map(|item| item.cell.as_str()).collect();
        let tiers: Vec<&str> = new.items.iter().map(|item| item.tier.as_str()).collect();
        let tenants: Vec<Option<i64>> = new
            .items
            .iter()
            .map(|item| item.tenant.map(TenantId::number))
            .collect();
        self.execute(
            INSERT_ITEMS,
            &[
                &id.uuid(),
                &new.module.as_str(),
                &waves,
                &cells,
                &tiers,
                &tenants,
            ],
        )
        .await?;
        let message = format!("begun by {}: {} namespaces", new.actor, new.items.len());
        self.add_rollout_event(id, &message).await?;
        Ok(id)
    }

    /// The open rollout of a module, kept from changing until this transaction ends.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn lock_open_rollout(&self, module: &ModuleId) -> Result<Option<Rollout>, Fault> {
        let sql = format!(
            "{SELECT} where r.module = $1 and r.state in ('running', 'paused', 'stopped')
             for update of r"
        );
        let row = self.row(&sql, &[&module.as_str()]).await?;
        row.as_ref().map(rollout_from).transpose()
    }

    /// One rollout, kept from changing until this transaction ends.
    ///
    /// # Errors
    /// `rollout-not-found`; `database-unavailable`.
    pub async fn lock_rollout(&self, id: RolloutId) -> Result<Rollout, Fault> {
        let sql = format!("{SELECT} where r.id = $1 for update of r");
        let row = self.row(&sql, &[&id.uuid()]).await?;
        row.as_ref()
            .map(rollout_from)
            .transpose()?
            .ok_or_else(|| not_found(id))
    }

    /// One rollout.
    ///
    /// # Errors
    /// `rollout-not-found`; `database-unavailable`.
    pub async fn get_rollout(&self, id: RolloutId) -> Result<Rollout, Fault> {
        let row = self
            .row(&format!("{SELECT} where r.id = $1"), &[&id.uuid()])
            .await?;
        row.as_ref()
            .map(rollout_from)
            .transpose()?
            .ok_or_else(|| not_found(id))
    }

    /// The newest rollouts.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_rollouts(&self, limit: i64) -> Result<Vec<Rollout>, Fault> {
        let sql = format!("{SELECT} order by r.created_at desc, r.id desc limit $1");
        let rows = self.rows(&sql, &[&limit]).await?;
        rows.iter().map(rollout_from).collect()
    }

    /// The rollouts that are on their way.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_running_rollouts(&self) -> Result<Vec<RolloutId>, Fault> {
        let sql = "select id from registry.rollout where state = 'running' order by created_at, id";
        let rows = self.rows(sql, &[]).await?;
        rows.iter()
            .map(|row| column::<Uuid>(row, "id").map(RolloutId::from_uuid))
            .collect()
    }

    /// How far each wave is, in their order.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn count_waves(&self, id: RolloutId) -> Result<Vec<WaveCount>, Fault> {
        let sql = "select wave
                        , count(*) filter (where state = 'pending') as pending
                        , count(*) filter (where state = 'done') as done
                        , count(*) filter (where state = 'failed') as failed
                        , count(*) filter (where state = 'skipped') as skipped
                     from registry.rollout_item
                    where rollout_id = $1
                    group by wave
                    order by wave";
        let rows = self.rows(sql, &[&id.uuid()]).await?;
        rows.iter()
            .map(|row| {
                Ok(WaveCount {
                    wave: column(row, "wave")?,
                    pending: column(row, "pending")?,
                    done: column(row, "done")?,
                    failed: column(row, "failed")?,
                    skipped: column(row, "skipped")?,
                })
            })
            .collect()
    }

    /// How many namespaces ended within the last `seconds`.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn measure_pace(&self, id: RolloutId, seconds: f64) -> Result<Pace, Fault> {
        let sql = "select count(*) as ended
                        , coalesce(extract(epoch from clock_timestamp() - min(finished_at)), 0)
                              ::double precision as seconds
                     from registry.rollout_item
                    where rollout_id = $1
                      and finished_at > clock_timestamp() - make_interval(secs => $2)";
        let row = self.one(sql, &[&id.uuid(), &seconds]).await?;
        Ok(Pace {
            ended: column(&row, "ended")?,
            seconds: column(&row, "seconds")?,
        })
    }

    /// Namespaces that have failed, or wait for another try.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_failed_items(
        &self,
        id: RolloutId,
        limit: i64,
    ) -> Result<Vec<FailedItem>, Fault> {
        let sql = "select i.cell, i.tier, t.slug, i.attempts, i.waiting
                        , case when i.held then 'waits for the end of a move' else i.error end as error
                     from (select seq, cell, tier, tenant_id, attempts, false as waiting, false as held, error
                             from registry.rollout_item
                            where rollout_id = $1 and state = 'failed'
                            union all
                           select seq, cell, tier, tenant_id, attempts, true, held, error
                             from registry.pending_item
                            where rollout_id = $1) i
                     left join registry.tenant t on t.id = i.tenant_id
                    where i.error is not null or i.held
                    order by i.waiting, i.seq
                    limit $2";
        let rows = self.rows(sql, &[&id.uuid(), &limit]).await?;
        rows.iter()
            .map(|row| {
                let slug: Option<&str> = column(row, "slug")?;
                Ok(FailedItem {
                    cell: parsed(row, "cell")?,
                    tier: parsed(row, "tier")?,
                    tenant: slug.map(str::parse).transpose()?,
                    attempts: column(row, "attempts")?,
                    waiting: column(row, "waiting")?,
                    error: column(row, "error")?,
                })
            })
            .collect()
    }

    /// Brings a rollout to another state or wave, and writes down why. One that is over stays over.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn move_rollout(
        &self,
        id: RolloutId,
        state: RolloutState,
        wave: i32,
        message: &str,
    ) -> Result<(), Fault> {
        let open = state.is_open();
        let reason = (state != RolloutState::Running).then_some(message);
        let sql = "update registry.rollout
                      set state = $2
                        , wave = $3
                        , reason = $4
                        , finished_at = case when $5 then null else clock_timestamp() end
                    where id = $1 and state in ('running', 'paused', 'stopped', 'partial')";
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&id.uuid(), &state.as_str(), &wave, &reason, &open];
        if self.execute(sql, &params).await? > 0 {
            self.add_rollout_event(id, message).await?;
        }
        Ok(())
    }

    /// Lets failed namespaces be tried again, and those that wait at once; says how many have failed,
    /// and the wave of the first.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn retry_items(&self, id: RolloutId) -> Result<(i64, Option<i32>), Fault> {
        let sql = "with again as (
                       update registry.rollout_item
                          set state = 'pending'
                            , attempts = 0
                            , retry_at = now()
                            , finished_at = null
                        where rollout_id = $1 and state = 'failed'
                       returning wave
                   )
                   select count(*) as failed, min(wave) as wave from again";
        let row = self.one(sql, &[&id.uuid()]).await?;
        let sql = "update registry.rollout_item set retry_at = now()
                    where rollout_id = $1 and state = 'pending' and retry_at > now()";
        self.execute(sql, &[&id.uuid()]).await?;
        Ok((column(&row, "failed")?, column(&row, "wave")?))
    }

    /// What has happened to a rollout.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_rollout_events(&self, id: RolloutId) -> Result<Vec<RolloutEvent>, Fault> {
        let sql = "select * from registry.rollout_event where rollout_id = $1 order by seq";
        let rows = self.rows(sql, &[&id.uuid()]).await?;
        rows.iter()
            .map(|row| {
                Ok(RolloutEvent {
                    seq: column(row, "seq")?,
                    at: column(row, "at")?,
                    message: column(row, "message")?,
                })
            })
            .collect()
    }

    /// Its caller holds the rollout's row, so numbers don't clash.
    async fn add_rollout_event(&self, id: RolloutId, message: &str) -> Result<(), Fault> {
        let sql = "insert into registry.rollout_event (rollout_id, seq, message)
                   select $1, 1 + count(*), $2
                     from registry.rollout_event where rollout_id = $1";
        self.execute(sql, &[&id.uuid(), &message]).await.map(drop)
    }
}

fn not_found(id: RolloutId) -> Fault {
    fault::ROLLOUT_NOT_FOUND.fault(format!("there is no rollout {id}"))
}

fn rollout_from(row: &Row) -> Result<Rollout, Fault> {
    let id: Uuid = column(row, "id")?;
    Ok(Rollout {
        id: RolloutId::from_uuid(id),
        module: parsed(row, "module")?,
        hash: column(row, "package_hash")?,
        version: column(row, "version")?,
        state: parsed(row, "state")?,
        waves: column(row, "waves")?,
        wave: column(row, "wave")?,
        stop_percent: column(row, "stop_percent")?,
        reason: column(row, "reason")?,
        actor: column(row, "actor")?,
        created_at: column(row, "created_at")?,
        finished_at: column(row, "finished_at")?,
    })
}
