//! Looking once more before a refusal: whoever was told that a tenant, a module or a right is there may
//! ask this gateway before its feed has brought it.
//!
//! Invariants:
//! - whoever waits gets a reading that began after it asked: one that was under way may have missed the
//!   change;
//! - any number of waiters share one reading, readings that are asked for keep a distance, and few wait at
//!   a time: a flood of made-up names costs the control database next to nothing, and this gateway's places
//!   for requests neither, also while that database is away.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};

/// Longest wait for a reading.
const PATIENCE: Duration = Duration::from_secs(1);

/// Shortest time from one reading to one that is asked for.
const DISTANCE: Duration = Duration::from_millis(100);

/// Requests that wait at once; others are refused by what is known.
const WAITING: usize = 64;

/// The readings of a snapshot, counted.
#[derive(Debug)]
pub(crate) struct Recency {
    begun: AtomicU64,
    last: Mutex<Option<Instant>>,
    ended: watch::Sender<u64>,
    wanted: Notify,
    places: Semaphore,
}

impl Default for Recency {
    fn default() -> Self {
        Self {
            begun: AtomicU64::new(0),
            last: Mutex::new(None),
            ended: watch::Sender::new(0),
            wanted: Notify::new(),
            places: Semaphore::new(WAITING),
        }
    }
}

impl Recency {
    /// A reading begins; gives its number.
    pub(super) fn begin(&self) -> u64 {
        *self.last() = Some(Instant::now());
        self.begun.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The database was asked for a reading, in vain.
    pub(super) fn fail(&self) {
        *self.last() = Some(Instant::now());
    }

    /// A reading was taken over.
    pub(super) fn end(&self, number: u64) {
        self.ended.send_replace(number);
    }

    /// Waits until somebody wants a reading, and for the distance to the last one.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
        let earliest = self.last().map(|last| last + DISTANCE);
        if let Some(earliest) = earliest {
            sleep_until(earliest).await;
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<Instant>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a reading that begins from now on; says whether there was one.
    pub(crate) async fn newer(&self) -> bool {
        let Ok(_place) = self.places.try_acquire() else {
            return false;
        };
        let needed = self.begun.load(Ordering::SeqCst) + 1;
        let mut ended = self.ended.subscribe();
        self.wanted.notify_one();
        let come = ended.wait_for(|number| *number >= needed);
        timeout(PATIENCE, come).await.is_ok_and(|come| come.is_ok())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::future::join_all;
    use tokio::time::sleep;

    use super::*;

    /// A reading that was under way may have looked before the change: a client who was told that its
    /// tenant is there would be refused.
    #[tokio::test]
    async fn a_reading_under_way_is_not_new_enough() {
        let recency = Arc::new(Recency::default());
        let early = recency.begin();
        let waiter = Arc::clone(&recency);
        let asked = async move { waiter.newer().await };
        let reader = async {
            recency.wanted().await;
            recency.end(early);
            sleep(DISTANCE).await;
            let late = Instant::now();
            recency.end(recency.begin());
            late
        };
        let ((come, at), late) = tokio::join!(async { (asked.await, Instant::now()) }, reader);
        assert!(come && at >= late);
    }

    /// While the control database is away, made-up names must not fill the gateway.
    #[tokio::test]
    async fn few_wait_and_not_for_long() {
        let recency = Recency::default();
        let began = Instant::now();
        let come = join_all(
            (0..WAITING + 10).map(|_one| async { (recency.newer().await, began.elapsed()) }),
        );
        let come = come.await;
        assert!(come.iter().all(|(come, _)| !come));
        let at_once = come.iter().filter(|(_, took)| *took < PATIENCE / 2).count();
        assert_eq!(at_once, 10);
        assert!(come.iter().all(|(_, took)| *took < PATIENCE * 2));
    }
}
