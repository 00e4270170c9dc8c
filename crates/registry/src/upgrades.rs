//! Work of a rollout: which namespaces are due, who has them, and what became of them.
//!
//! Invariants:
//! - at most one worker anywhere holds a namespace, and nobody reconciles its tenant meanwhile: a
//!   tenant's own namespace is claimed by the tenant's lock (see `work`);
//! - a cell has at most so many workers as it has lanes, however many control processes there are;
//! - like all claims these end with their session's connection, so SIGKILL loses at most what is in
//!   hand, and what is in hand is looked at anew by the next.

use tokio_postgres::Row;
use uuid::Uuid;
use waangu_kernel::{CellId, Fault, ModuleId, Placement, RolloutId, TenantId, Tier, fault};

use crate::db::{Session, Tx, column, from_driver, parsed};
use crate::rollouts::RolloutState;
use crate::tenants::placement_from;

/// Longest pause between two attempts, in seconds.
const MAX_BACKOFF_SECONDS: i32 = 60;

/// A namespace in hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeItem {
    /// The rollout.
    pub rollout: RolloutId,
    /// Its number in the rollout.
    pub seq: i32,
    /// The module.
    pub module: ModuleId,
    /// The package that it shall have.
    pub hash: String,
    /// Whose it is, unless it is shared.
    pub tenant: Option<TenantId>,
    /// Where it is now.
    pub placement: Placement,
    /// Number of migrations that it is known to have; 0 if that is not known.
    pub steps: i32,
    /// Whether nobody needs it any more.
    pub gone: bool,
    /// Failed attempts so far.
    pub attempts: i32,
    lock: i64,
}

/// What became of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpgradeEnd {
    /// It has the package.
    Done,
    /// Nobody needs it any more, or it has a newer package.
    Skipped,
    /// Not now; to be tried again.
    Again(String),
    /// Not at all.
    Failed(String),
}

/// As for tenants (see `work`): the inner LIMIT keeps the planner from taking all locks. Tables that a
/// move is copying wait until it is over.
const TAKE: &str = "
select rollout_id, seq, lock_key
  from (select i.rollout_id, i.seq, i.lock_key
          from registry.rollout r
          join registry.pending_item i on i.rollout_id = r.id and i.wave = r.wave
         where r.state = 'running'
           and i.cell = $1
           and i.retry_at <= now()
           and i.lock_key <> all ($2)
           and not i.held
         order by i.rollout_id, i.seq
         limit 1000) due
 where pg_try_advisory_lock(lock_key)
 limit $3";

/// Looked at again under the lock: it may have been done between the look and the lock. Each is looked up by
/// its key, whatever the planner thinks of a table that has just been filled.
const LOOK: &str = "
select i.rollout_id, i.seq, i.lock_key, i.attempts, r.module, r.package_hash, i.tenant_id
     , at.cell
     , at.tier
     , coalesce(t.bucket, 0) as bucket
     , coalesce(t.epoch, 1) as epoch
     , coalesce(p.steps, 0) as steps
     , n.package_hash is null or t.desired = 'deleted' or i.tier <> 'shared' and t.tier = 'shared' as gone
  from unnest($1::uuid[], $2::integer[]) as mine (rollout_id, seq)
  join registry.rollout r on r.id = mine.rollout_id and r.state = 'running'
 cross join lateral (
        select *
          from registry.pending_item i
         where i.rollout_id = mine.rollout_id and i.seq = mine.seq
        offset 0) i
  left join registry.tenant t on t.id = i.tenant_id
 cross join lateral (values (coalesce(t.cell, i.cell), coalesce(t.tier, i.tier))) at (cell, tier)
  left join lateral (
        select s.package_hash
          from registry.namespace s
         where (s.module, s.cell, s.tier) = (r.module, at.cell, 'shared') and s.tenant_id is null
           and at.tier = 'shared'
         union all
        select o.package_hash
          from registry.namespace o
         where (o.module, o.cell, o.tier, o.tenant_id) = (r.module, at.cell, at.tier, i.tenant_id)
       ) n on true
  left join registry.package p on p.module = r.module and p.hash = n.package_hash
 where not i.held
 order by i.rollout_id, i.seq";

/// One statement and no wait for the disk: what a crash of the server forgets here still stands in the
/// cell, and the next worker finds it there.
const DONE: &str = "
with lazily as (
    select set_config('synchronous_commit', 'off', true)
)
, item as (
    update registry.rollout_item
       set state = $3
         , error = null
         , finished_at = clock_timestamp()
      from lazily
     where rollout_id = $1 and seq = $2
    returning 1
)
, stands as (
    insert into registry.namespace (module, cell, tier, tenant_id, package_hash)
    select $4, $5, $6, $7, $8 from item where $3 = 'done'
    on conflict on constraint namespace_key do update
    set package_hash = excluded.package_hash
      , migrated_at = now()
)
select state from registry.rollout where id = $1";

const FAILED: &str = "
with item as (
    update registry.rollout_item
       set state = case when $4 then 'failed' else 'pending' end
         , attempts = attempts + 1
         , error = $3
         , retry_at = now() + make_interval(
               secs => least($5::integer, power(2, least(attempts, 10)))::double precision)
         , finished_at = case when $4 then clock_timestamp() end
     where rollout_id = $1 and seq = $2
)
select state from registry.rollout where id = $1";

impl Session {
    /// Takes one of a cell's lanes, or returns `false` when all are taken. It is held until the session
    /// is dropped.
    ///
    /// # Errors
    /// `database-unavailable`; drop the session then.
    pub async fn claim_lane(&mut self, cell: &CellId, lanes: u32) -> Result<bool, Fault> {
        // Whatever becomes of the answer, this connection must not go back to the pool.
        self.claims.push(LANE);
        for lane in 0..lanes {
            let row = self
                .client()?
                .query_one(
                    "select pg_try_advisory_lock(360, hashtext($1 || '/' || $2::bigint)) as taken",
                    &[&cell.as_str(), &i64::from(lane)],
                )
                .await
                .map_err(from_driver)?;
            if column(&row, "taken")? {
                return Ok(true);
            }
        }
        self.claims.retain(|held| *held != LANE);
        Ok(false)
    }

    /// Claims up to `limit` due namespaces of a cell.
    ///
    /// # Errors
    /// `database-unavailable`; drop the session then, because it may hold claims nobody knows of.
    pub async fn claim_upgrades(
        &mut self,
        cell: &CellId,
        limit: i64,
    ) -> Result<Vec<UpgradeItem>, Fault> {
        // A lock can be taken twice by one connection, so what it has is left out.
        let mine = self.claims.clone();
        let rows = self
            .client()?
            .query(TAKE, &[&cell.as_str(), &mine, &limit])
            .await
            .map_err(from_driver)?;
        let (mut rollouts, mut numbers, mut locks) = (Vec::new(), Vec::new(), Vec::new());
        for row in &rows {
            rollouts.push(column::<Uuid>(row, "rollout_id")?);
            numbers.push(column::<i32>(row, "seq")?);
            locks.push(column::<i64>(row, "lock_key")?);
        }
        self.claims.extend(&locks);
        if locks.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self
            .client()?
            .query(LOOK, &[&rollouts, &numbers])
            .await
            .map_err(from_driver)?;
        let items: Vec<UpgradeItem> = rows.iter().map(item_from).collect::<Result<_, _>>()?;
        let kept: Vec<i64> = items.iter().map(|item| item.lock).collect();
        locks.retain(|lock| !kept.contains(lock));
        self.unlock(&locks).await?;
        Ok(items)
    }

    /// Gives namespaces back.
    ///
    /// # Errors
    /// `database-unavailable`; then the claims end with the session.
    pub async fn release_upgrades(&mut self, items: &[UpgradeItem]) -> Result<(), Fault> {
        let locks: Vec<i64> = items.iter().map(|item| item.lock).collect();
        self.unlock(&locks).await
    }

    /// Gives back whatever the session holds, lanes included.
    ///
    /// # Errors
    /// `database-unavailable`; then all of it ends with the session.
    pub async fn release_all(&mut self) -> Result<(), Fault> {
        self.client()?
            .query_one("select pg_advisory_unlock_all()", &[])
            .await
            .map_err(from_driver)?;
        self.claims.clear();
        Ok(())
    }

    /// Records what became of a namespace; returns the rollout's state as it is now.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn record_upgrade(
        &self,
        item: &UpgradeItem,
        end: &UpgradeEnd,
    ) -> Result<RolloutState, Fault> {
        let id = item.rollout.uuid();
        let client = self.client()?;
        let row = match end {
            UpgradeEnd::Done | UpgradeEnd::Skipped => {
                let state = if *end == UpgradeEnd::Done {
                    "done"
                } else {
                    "skipped"
                };
                let (cell, tier) = (item.placement.cell.as_str(), item.placement.tier.as_str());
                let owner = item
                    .tenant
                    .filter(|_| item.placement.tier != Tier::Shared)
                    .map(TenantId::number);
                let statement = client.prepare_cached(DONE).await.map_err(from_driver)?;
                client
                    .query_one(
                        &statement,
                        &[
                            &id,
                            &item.seq,
                            &state,
                            &item.module.as_str(),
                            &cell,
                            &tier,
                            &owner,
                            &item.hash,
                        ],
                    )
                    .await
            }
            UpgradeEnd::Again(error) | UpgradeEnd::Failed(error) => {
                let final_ = matches!(end, UpgradeEnd::Failed(_));
                client
                    .query_one(
                        FAILED,
                        &[&id, &item.seq, error, &final_, &MAX_BACKOFF_SECONDS],
                    )
                    .await
            }
        };
        parsed(&row.map_err(from_driver)?, "state")
    }

    async fn unlock(&mut self, locks: &[i64]) -> Result<(), Fault> {
        if locks.is_empty() {
            return Ok(());
        }
        self.client()?
            .query(
                "select pg_advisory_unlock(lock) from unnest($1::bigint[]) as lock",
                &[&locks],
            )
            .await
            .map_err(from_driver)?;
        self.claims.retain(|held| !locks.contains(held));
        Ok(())
    }
}

/// Stands for a lane among a session's claims; no lock has this number.
const LANE: i64 = i64::MIN;

impl Tx<'_> {
    /// The cells that have something to upgrade now.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_cells_with_upgrades(&self) -> Result<Vec<CellId>, Fault> {
        let sql = "select c.id
                     from registry.cell c
                    where exists (select from registry.rollout r
                                    join registry.pending_item i
                                      on i.rollout_id = r.id and i.wave = r.wave
                                   where r.state = 'running'
                                     and i.cell = c.id
                                     and i.retry_at <= now()
                                     and not i.held)
                    order by c.id";
        let rows = self.rows(sql, &[]).await?;
        rows.iter().map(|row| parsed(row, "id")).collect()
    }
}

fn item_from(row: &Row) -> Result<UpgradeItem, Fault> {
    let rollout: Uuid = column(row, "rollout_id")?;
    let tenant: Option<i64> = column(row, "tenant_id")?;
    Ok(UpgradeItem {
        rollout: RolloutId::from_uuid(rollout),
        seq: column(row, "seq")?,
        module: parsed(row, "module")?,
        hash: column(row, "package_hash")?,
        tenant: tenant.map(TenantId::new).transpose()?,
        placement: placement_from(row)?,
        steps: column(row, "steps")?,
        gone: column::<Option<bool>>(row, "gone")?.unwrap_or(false),
        attempts: column(row, "attempts")?,
        lock: column(row, "lock_key")?,
    })
}

impl UpgradeItem {
    /// The tenant by which database and schema are named; in the shared tier any will do.
    ///
    /// # Errors
    /// `internal` never: one is a tenant's number.
    pub fn namesake(&self) -> Result<TenantId, Fault> {
        self.tenant.map_or_else(
            || TenantId::new(1).map_err(|_zero| fault::INTERNAL.fault("one is a tenant's number")),
            Ok,
        )
    }
}
