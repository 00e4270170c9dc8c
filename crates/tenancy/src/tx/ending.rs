//! What becomes of a transaction, and of its connection, that nobody has committed.

use std::time::Duration;

use tokio::runtime::Handle;

use super::{Progress, TenantTx, flight};
use crate::pools::Lease;

/// Longest time given to the rollback of an abandoned transaction.
const ROLLBACK: Duration = Duration::from_secs(2);

impl Drop for TenantTx {
    fn drop(&mut self) {
        let Some(mut lease) = self.lease.take() else {
            return;
        };
        let runtime = Handle::try_current();
        let (Some(cancel), Ok(runtime)) = (lease.conn().map(|conn| conn.cancel()), runtime) else {
            lease.discard();
            return;
        };
        match self.progress {
            Progress::Busy => {
                lease.discard();
                runtime.spawn(async move {
                    if let Err(error) = cancel.request().await {
                        tracing::debug!(%error, "an abandoned statement could not be cancelled");
                    }
                });
            }
            Progress::Spoilt => lease.discard(),
            Progress::Idle | Progress::Failed if is_quiet(&mut lease) => {}
            Progress::Idle | Progress::Failed => drop(runtime.spawn(roll_back(lease))),
            Progress::New | Progress::Ended => {}
        }
    }
}

/// Whether no transaction is left to be ended: one that PostgreSQL did not have to be told of ends with
/// its first error.
fn is_quiet(lease: &mut Lease) -> bool {
    lease.conn().is_some_and(|conn| conn.wire().is_quiet())
}

/// Ends a transaction without its changes; a connection that does not manage that is closed.
pub(super) async fn roll_back(mut lease: Lease) {
    let Some(conn) = lease.conn() else { return };
    if conn.wire().is_busy() {
        lease.discard();
        return;
    }
    let rolled_back = tokio::time::timeout(ROLLBACK, flight::roll_back(conn)).await;
    if !matches!(rolled_back, Ok(Ok(()))) {
        lease.discard();
    }
}
