//! Keeps the snapshot fresh from the control database.
//!
//! Invariants: a lost connection is made anew with growing pauses; until then the last snapshot goes
//! on serving (architecture §1, static stability). Nothing here waits without a limit. Whoever wants a
//! newer reading ([`super::recency`]) ends a pause early.

use std::time::Duration;

use tokio::time::timeout;
use waangu_kernel::{Fault, fault};
use waangu_registry::Feed;

use super::Snapshot;

const CONNECT: Duration = Duration::from_secs(5);
const READ: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Rest after a reading: what changes meanwhile is read at once, not each for itself. A change that comes
/// alone is read without delay.
const REST: Duration = Duration::from_millis(20);

/// Follows for ever.
pub(crate) async fn follow(dsn: &str, snapshot: &Snapshot) {
    let mut pause = FIRST_PAUSE;
    loop {
        match within(CONNECT, Feed::connect(dsn)).await {
            Ok(mut feed) => {
                let lost = read_on(&mut feed, snapshot, &mut pause).await;
                tracing::warn!(error = ?lost, "change feed lost; serving the last snapshot");
            }
            Err(error) => {
                snapshot.recency().fail();
                tracing::warn!(?error, "the control database does not answer");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = snapshot.recency().wanted() => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Reads everything, then each change, until the connection is lost.
async fn read_on(feed: &mut Feed, snapshot: &Snapshot, pause: &mut Duration) -> Fault {
    let mut first = true;
    loop {
        if let Err(lost) = read(feed, snapshot, first).await {
            return lost;
        }
        if first {
            tracing::info!(?snapshot, "snapshot read");
            *pause = FIRST_PAUSE;
            first = false;
        }
        tokio::time::sleep(REST).await;
        let changed = tokio::select! {
            changed = within(READ, feed.changed()) => changed,
            () = snapshot.recency().wanted() => Ok(()),
        };
        if let Err(lost) = changed {
            return lost;
        }
    }
}

async fn read(feed: &mut Feed, snapshot: &Snapshot, whole: bool) -> Result<(), Fault> {
    let number = snapshot.recency().begin();
    // Modules and plans first: a tenant must not be given one that is not known yet.
    snapshot.install(&within(READ, feed.modules()).await?);
    snapshot.furnish(within(READ, feed.sets()).await?);
    if whole {
        let mut load = snapshot.load();
        while let Some(part) = within(READ, feed.read_part()).await? {
            load.take(part);
        }
        load.end();
    } else {
        snapshot.apply(within(READ, feed.read()).await?);
    }
    snapshot.recency().end(number);
    Ok(())
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    timeout(limit, work).await.unwrap_or_else(|_elapsed| {
        Err(fault::DATABASE_UNAVAILABLE.fault("the control database did not answer in time"))
    })
}
