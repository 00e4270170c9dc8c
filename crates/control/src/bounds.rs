//! Work at a cell that is waited for only so long.

use std::time::Duration;

use waangu_kernel::{Fault, fault};

/// What the work gives, or `database-unavailable` when it takes longer than `limit`; it is dropped then.
pub(crate) async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let late = || fault::DATABASE_UNAVAILABLE.fault("the cell did not answer in time");
    let done = tokio::time::timeout(limit, work).await;
    done.unwrap_or_else(|_late| Err(late()))
}
