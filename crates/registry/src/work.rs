//! Work for the reconciler: which tenants have not reached their generation, and who has them.
//!
//! Invariant: at most one worker anywhere holds a tenant. The claim is a session-level advisory
//! lock, so it ends with the worker's connection: after SIGKILL the next worker can begin at once,
//! without waiting for a lease to run out.

use waangu_kernel::{Fault, ModuleId, TenantId};

use crate::db::{Session, Tx, column, from_driver};
use crate::operations::OperationStatus;
use crate::tenants::State;

/// A tenant held by this session.
#[derive(Debug)]
pub struct Claim {
    /// The tenant's number.
    pub tenant: TenantId,
}

/// Longest pause between two attempts, in seconds.
const MAX_BACKOFF_SECONDS: i32 = 300;

impl Session {
    /// Claims a tenant that is behind its generation and due, or returns `None`.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn claim(&mut self) -> Result<Option<Claim>, Fault> {
        let candidates = "select id from registry.tenant
                           where generation > observed_generation and retry_at <= now()
                           order by retry_at, id limit 16";
        let rows = self
            .client
            .query(candidates, &[])
            .await
            .map_err(from_driver)?;
        for row in rows {
            let number: i64 = column(&row, "id")?;
            // Taken and then looked at again: the tenant may have been finished in between.
            let locked = "select pg_try_advisory_lock($1) as locked";
            let row = self
                .client
                .query_one(locked, &[&number])
                .await
                .map_err(from_driver)?;
            if !column::<bool>(&row, "locked")? {
                continue;
            }
            let tenant = TenantId::new(number)?;
            let still = "select exists (select from registry.tenant
                                         where id = $1 and generation > observed_generation
                                           and retry_at <= now()) as due";
            let row = self
                .client
                .query_one(still, &[&number])
                .await
                .map_err(from_driver)?;
            if column::<bool>(&row, "due")? {
                return Ok(Some(Claim { tenant }));
            }
            self.release(Claim { tenant }).await?;
        }
        Ok(None)
    }

    /// Gives a tenant back.
    ///
    /// # Errors
    /// `database-unavailable`; then the claim ends with the connection.
    pub async fn release(&mut self, claim: Claim) -> Result<(), Fault> {
        let sql = "select pg_advisory_unlock($1)";
        self.client
            .query_one(sql, &[&claim.tenant.number()])
            .await
            .map(drop)
            .map_err(from_driver)
    }
}

impl Tx<'_> {
    /// Records that the cells have reached `generation`, and closes its operations.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn record_reached(
        &self,
        tenant: TenantId,
        generation: i64,
        state: State,
        ready: &[ModuleId],
    ) -> Result<(), Fault> {
        let modules: Vec<&str> = ready.iter().map(ModuleId::as_str).collect();
        let sql = "update registry.activation
                      set ready = module = any ($2::text[])
                    where tenant_id = $1
                      and ready is distinct from (module = any ($2::text[]))";
        self.execute(sql, &[&tenant.number(), &modules]).await?;
        let sql = "update registry.tenant
                      set state = $3
                        , observed_generation = greatest(observed_generation, $2)
                        , attempts = 0
                        , last_error = null
                        , deleted_at = case when $3 = 'deleted' then now() end
                    where id = $1";
        self.execute(sql, &[&tenant.number(), &generation, &state.as_str()])
            .await?;
        self.finish_operations(tenant, generation, OperationStatus::Succeeded, None)
            .await
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
        self.report_progress(tenant, generation, "waiting to try again", 0, error)
            .await
    }
}
