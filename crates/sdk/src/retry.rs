//! A transaction that PostgreSQL rolled back for another's sake is run again.
//!
//! Invariants:
//! - only SQLSTATE 40001 and 40P01 are answered so: they say that nothing has happened, and that the
//!   same may succeed now. After a lost connection nobody knows what has happened;
//! - at most [`ATTEMPTS`] times, and never past the request's deadline;
//! - each pause is longer than the last and partly random, so that two who met do not meet again.
//!
//! Left out: a tenant that is frozen or elsewhere (`WG001`), which a transaction waits for by itself.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use waangu_identity::random_bytes;
use waangu_kernel::Fault;
use waangu_tenancy::{TenantTx, sql_state};

use crate::{Authorized, Permit};

#[cfg(test)]
mod tests;

/// How often a transaction is tried.
const ATTEMPTS: u32 = 3;

/// Longest pause before the second attempt; the next may be four times as long.
const PAUSE: Duration = Duration::from_millis(20);

impl<P: Permit> Authorized<P> {
    /// Runs `work` in a transaction, which it has to commit, and again in a fresh one if PostgreSQL
    /// rolled it back because of a deadlock or a serialization failure. So what `work` does outside
    /// of its transaction may happen several times: let it do nothing there.
    ///
    /// # Errors
    /// What `work` answers; `database-unavailable` when the last attempt was rolled back, too.
    pub async fn transact<T, F>(&self, mut work: impl FnMut(TenantTx) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut attempt = 1;
        loop {
            let failed = match work(self.begin()).await {
                Err(fault) if is_passing(&fault) => fault,
                done => return done,
            };
            let pause = pause(attempt);
            if attempt == ATTEMPTS || Instant::now() + pause >= self.deadline() {
                return Err(failed);
            }
            tracing::debug!(attempt, cause = failed.operator_cause(), "run again");
            sleep(pause).await;
            attempt += 1;
        }
    }
}

/// Whether PostgreSQL rolled the transaction back and asks for another try: a serialization failure
/// or a deadlock.
fn is_passing(fault: &Fault) -> bool {
    matches!(sql_state(fault), Some("40001" | "40P01"))
}

/// Between half and all of what the attempt may wait.
fn pause(attempt: u32) -> Duration {
    let longest = PAUSE * 4_u32.pow(attempt - 1);
    // Without randomness all wait the same time: slower, not wrong.
    let [dice] = random_bytes().unwrap_or_default();
    longest / 2 + longest * u32::from(dice) / 512
}
