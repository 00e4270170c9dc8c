//! What each tenant asks for, for the advisor: requests, and how long modules held connections to cells
//! for them.
//!
//! Invariants: counted in memory, with two additions for each request; written off the request path, by
//! a connection of its own, in one statement each [`PAUSE`]; sums that could not be written are kept and
//! written later. Killed, a gateway loses what it has not written.

use std::time::Duration;

use http::HeaderMap;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use waangu_identity::context::SPENT_HEADER;
use waangu_kernel::{Fault, TenantId, fault};
use waangu_registry::{Registry, Traffic};

use crate::snapshot::Snapshot;

/// From one report to the next.
const PAUSE: Duration = Duration::from_secs(15);

/// Longest report.
const LONGEST: Duration = Duration::from_secs(10);

/// Longest last report: nobody's end waits for it.
const LAST: Duration = Duration::from_secs(2);

/// Most that one answer can add, in microseconds: an hour.
const MOST: u64 = 3_600_000_000;

/// How long the request held connections, as the module says; a module can only wrong itself.
pub(super) fn spent(answer: &HeaderMap) -> u64 {
    let said = answer.get(SPENT_HEADER);
    let micros = said.and_then(|value| value.to_str().ok()?.parse().ok());
    micros.unwrap_or(0_u64).min(MOST)
}

/// Writes the sums, again and again.
#[derive(Debug)]
pub(crate) struct Reporter {
    registry: Registry,
}

impl Reporter {
    /// Connects with the first sums.
    pub(crate) fn new(dsn: &str) -> Result<Self, Fault> {
        Ok(Self {
            registry: Registry::new(dsn, 1)?,
        })
    }

    /// Reports until `stop`, and once more then.
    pub(crate) async fn run(self, snapshot: &Snapshot, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let _stopped = stop.run_until_cancelled(sleep(PAUSE)).await;
            let sums = snapshot.take_traffic();
            let limit = if stop.is_cancelled() { LAST } else { LONGEST };
            let written = timeout(limit, self.write(&sums)).await;
            if let Err(failure) = written.unwrap_or_else(|_late| Err(late())) {
                tracing::warn!(error = ?failure, tenants = sums.len(), "traffic not reported yet");
                snapshot.give_back_traffic(&sums);
            }
        }
    }

    async fn write(&self, sums: &[(TenantId, Traffic)]) -> Result<(), Fault> {
        if sums.is_empty() {
            return Ok(());
        }
        let mut session = self.registry.session().await?;
        let tx = session.begin().await?;
        tx.record_traffic(sums).await?;
        tx.commit_lazily().await
    }
}

fn late() -> Fault {
    fault::DATABASE_UNAVAILABLE.fault("the control database did not answer in time")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// A module that talks nonsense must not fail requests, nor make one tenant look like thousands.
    #[test]
    fn what_a_module_says_is_bounded() {
        let said = |text: &'static str| {
            let value = HeaderValue::from_static(text);
            let name = http::HeaderName::from_static(SPENT_HEADER);
            spent(&HeaderMap::from_iter([(name, value)]))
        };
        assert_eq!(said("1500"), 1_500);
        assert_eq!(said("18446744073709551615"), MOST);
        assert_eq!([said("-1"), said("1.5"), said("")], [0; 3]);
        assert_eq!(spent(&HeaderMap::new()), 0);
    }
}
