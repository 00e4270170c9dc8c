//! Work for the reconciler: which tenants have not reached their generation, and who has them.
//!
//! Invariant: at most one worker anywhere holds a tenant. The claim is a session-level advisory
//! lock, so it ends with the worker's connection: after SIGKILL the next worker can begin at once,
//! without waiting for a lease to run out. A session that is dropped with a claim closes its
//! connection; and what a worker says after its claim was lost can't undo a newer generation.

use futures_util::try_join;
use tokio_postgres::types::ToSql;
use waangu_kernel::{CellId, Fault, ModuleId, TenantId};

use crate::db::{Session, Tx, column};
use crate::operations::{OperationStatus, Progress};
use crate::tenants::State;

/// A tenant held by this session.
#[derive(Debug)]
pub struct Claim {
    /// The tenant's number.
    pub tenant: TenantId,
}

/// No tenant's number; see [`Session::claim`].
const UNKNOWN: i64 = 0;

/// Longest pause between two attempts, in seconds.
const MAX_BACKOFF_SECONDS: i32 = 300;

/// The first tenant in the queue whose lock nobody has; takes the lock. The LIMIT of the sub-select
/// keeps the planner from trying locks before it sorts: it would take all of them. One on the move is left
/// alone: its places are the move's.
const TAKE: &str = "
select id
  from (select id from registry.tenant t
         where generation > observed_generation
           and retry_at <= now()
           and id <> all ($1)
           and cell <> all ($2)
           and not exists (select from registry.held h where h.tenant_id = t.id)
         order by retry_at, id
         limit 1000) due
 where pg_try_advisory_lock(id)
 limit 1";

const DUE: &str = "
select exists (select from registry.tenant
                where id = $1 and generation > observed_generation and retry_at <= now()
                  and registry.holds_still(id)) as due";

impl Session {
    /// Claims a tenant that is behind its generation and due, or returns `None`.
    ///
    /// # Errors
    /// `database-unavailable`; drop the session then, because it may hold a claim nobody knows of.
    pub async fn claim(&mut self) -> Result<Option<Claim>, Fault> {
        self.claim_elsewhere(&[]).await
    }

    /// As [`Session::claim`], but no tenant of these cells.
    ///
    /// # Errors
    /// As [`Session::claim`].
    pub async fn claim_elsewhere(&mut self, not_in: &[CellId]) -> Result<Option<Claim>, Fault> {
        let not_in: Vec<&str> = not_in.iter().map(CellId::as_str).collect();
        // A lock can be taken twice by one connection, so its own tenants are left out.
        let mine = self.claims.clone();
        // Stands for a lock that may be taken without our hearing of it.
        self.claims.push(UNKNOWN);
        let mut seen = mine;
        loop {
            let rows = self.rows(TAKE, &[&seen, &not_in]).await?;
            let Some(row) = rows.first() else {
                self.claims.retain(|held| *held != UNKNOWN);
                return Ok(None);
            };
            let number: i64 = column(row, "id")?;
            let claim = Claim {
                tenant: TenantId::new(number)?,
            };
            self.claims.push(number);
            // Looked at again: it may have been finished between the look and the lock.
            let rows = self.rows(DUE, &[&number]).await?;
            let due = rows.first().map(|row| column::<bool>(row, "due"));
            if due.transpose()? == Some(true) {
                self.claims.retain(|held| *held != UNKNOWN);
                return Ok(Some(claim));
            }
            self.release(claim).await?;
            seen.push(number);
        }
    }

    /// Gives a tenant back.
    ///
    /// # Errors
    /// `database-unavailable`; then the claim ends with the session.
    pub async fn release(&mut self, claim: Claim) -> Result<(), Fault> {
        let number = claim.tenant.number();
        let sql = "select pg_advisory_unlock($1)";
        self.rows(sql, &[&number]).await?;
        self.claims.retain(|held| *held != number);
        Ok(())
    }
}

impl Tx<'_> {
    /// Records that the cells have reached `generation`, by steps that nobody was told of yet, and closes
    /// its operations. Nothing happens when they are known to have reached a later one.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn record_reached(
        &self,
        tenant: TenantId,
        generation: i64,
        state: State,
        ready: &[ModuleId],
        steps: &[Progress],
    ) -> Result<(), Fault> {
        let sql = "update registry.tenant
                      set state = $3
                        , observed_generation = $2
                        , attempts = 0
                        , last_error = null
                        , deleted_at = case when $3 = 'deleted' then now() end
                    where id = $1 and observed_generation <= $2";
        let current = self
            .execute(sql, &[&tenant.number(), &generation, &state.as_str()])
            .await?;
        if current == 0 {
            return Ok(());
        }
        let modules: Vec<&str> = ready.iter().map(ModuleId::as_str).collect();
        let sql = "update registry.activation
                      set ready = module = any ($2::text[])
                    where tenant_id = $1
                      and ready is distinct from (module = any ($2::text[]))";
        let params: [&(dyn ToSql + Sync); 2] = [&tenant.number(), &modules];
        let end = (OperationStatus::Succeeded, None);
        try_join!(
            self.execute(sql, &params),
            self.finish_operations(tenant, generation, steps, end),
        )
        .map(drop)
    }

    /// Records a state on the way, such as `deleting`.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn record_state(&self, tenant: TenantId, state: State) -> Result<(), Fault> {
        let sql = "update registry.tenant set state = $2 where id = $1 and state <> $2";
        self.execute(sql, &[&tenant.number(), &state.as_str()])
            .await
            .map(drop)
    }

    /// Lets the tenants of a cell that answers again be tried at once.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn wake_cell(&self, cell: &CellId) -> Result<(), Fault> {
        let sql = "update registry.tenant
                      set retry_at = now()
                        , attempts = 0
                    where cell = $1 and generation > observed_generation and retry_at > now()";
        self.execute(sql, &[&cell.as_str()]).await?;
        let sql = "update registry.rollout_item i
                      set retry_at = now()
                     from registry.rollout r
                    where r.id = i.rollout_id
                      and r.state = 'running'
                      and i.cell = $1
                      and i.state = 'pending'
                      and i.retry_at > now()";
        self.execute(sql, &[&cell.as_str()]).await.map(drop)
    }

    /// Records a failed attempt; the next one comes after a pause that doubles from one second.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn record_failure(
        &self,
        tenant: TenantId,
        generation: i64,
        error: &str,
    ) -> Result<(), Fault> {
        let sql = "update registry.tenant
                      set attempts = attempts + 1
                        , last_error = $2
                        , retry_at = now() + make_interval(
                              secs => least($3::integer, power(2, least(attempts, 20)))::double precision)
                    where id = $1";
        self.execute(sql, &[&tenant.number(), &error, &MAX_BACKOFF_SECONDS])
            .await?;
        self.report_progress(tenant, generation, ("waiting to try again", 0, error))
            .await
    }
}
