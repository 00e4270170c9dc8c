//! Who works on a move.
//!
//! Like all claims these are session-level advisory locks: after SIGKILL the next worker, of any
//! process, can begin at once.

use uuid::Uuid;
use waangu_kernel::{CellId, Fault, ModuleId, RelocationId, Tier};

use super::Relocation;
use crate::db::{Session, column, from_driver};

/// Which moves a worker takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standstill {
    /// All.
    Any,
    /// Those behind the commit point alone, or of which nobody knows it: until they are over, nobody may
    /// serve the tenant.
    Only,
}

/// Those behind the commit point first. One that is followed or undone may be behind it too: whoever fenced
/// it may have been killed before that was recorded. A move that has not begun waits for the reconciler,
/// unless it is only to be given up.
const TAKE: &str = "
select id, tenant_id
  from (select r.id, r.tenant_id
          from registry.relocation r
          join registry.tenant t on t.id = r.tenant_id
         where r.finished_at is null
           and r.retry_at <= now()
           and r.tenant_id <> all ($1)
           and (r.phase in ('switching', 'finishing')
                or not $2
                or (r.phase in ('following', 'undoing') and r.id <> all ($4)))
           and (r.phase in ('switching', 'finishing')
                or not (r.from_cell = any ($3) or r.to_cell = any ($3)))
           and (r.phase <> 'queued'
                or t.generation = t.observed_generation
                or t.desired = 'deleted'
                or r.cancel_wanted)
         order by r.phase in ('switching', 'finishing') desc, r.retry_at, r.id
         limit 100) due
 where pg_try_advisory_lock(tenant_id)
 limit 1";

impl Session {
    /// Claims a move that is due, or returns `None`; none at these cells, unless nobody may serve its
    /// tenant. Of [`Standstill::Only`] none that was `asked` already whether it is behind the commit point.
    /// To be given back with [`Session::release_all`].
    ///
    /// # Errors
    /// `database-unavailable`; drop the session then, because it may hold a claim nobody knows of.
    pub async fn claim_relocation(
        &mut self,
        which: Standstill,
        not_at: &[CellId],
        asked: &[RelocationId],
    ) -> Result<Option<Relocation>, Fault> {
        let not_at: Vec<&str> = not_at.iter().map(CellId::as_str).collect();
        let asked: Vec<Uuid> = asked.iter().map(|id| id.uuid()).collect();
        let mine = self.claims.clone();
        let only = which == Standstill::Only;
        // Whatever becomes of the answer, this connection must not go back to the pool.
        self.claims.push(MOVE);
        let row = self
            .client()?
            .query_opt(TAKE, &[&mine, &only, &not_at, &asked])
            .await
            .map_err(from_driver)?;
        let Some(row) = row else {
            self.claims.retain(|held| *held != MOVE);
            return Ok(None);
        };
        let id: Uuid = column(&row, "id")?;
        // Looked at again: it may have ended between the look and the lock.
        let tx = self.begin().await?;
        let found = tx.get_relocation(RelocationId::from_uuid(id)).await?;
        tx.commit().await?;
        if found.phase.is_over() {
            self.release_all().await?;
            return Ok(None);
        }
        Ok(Some(found))
    }

    /// Keeps upgrades from the shared tables that a claimed move reads or writes, until all is given
    /// back; says whether none is at work on them now.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn hold_shared(
        &mut self,
        moved: &Relocation,
        modules: &[ModuleId],
    ) -> Result<bool, Fault> {
        let places = [&moved.from, &moved.to];
        let shared = places.iter().filter(|place| place.tier == Tier::Shared);
        for place in shared {
            for module in modules {
                let sql = "select pg_try_advisory_lock_shared(
                               -1000 - abs(hashtext($1 || '/' || $2)::bigint)) as held";
                let row = self
                    .client()?
                    .query_one(sql, &[&place.cell.as_str(), &module.as_str()])
                    .await
                    .map_err(from_driver)?;
                if !column::<bool>(&row, "held")? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// Stands for a move among a session's claims; no lock has this number.
const MOVE: i64 = i64::MIN + 1;
