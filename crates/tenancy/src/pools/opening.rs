//! Who opens a connection, when many want one to the same database at once.
//!
//! A tenant that has just come to a database of its own is asked for by all of its users at once, and a
//! connection's first transaction costs many times what the next one does. So a few are opened at a time,
//! and who waits for a turn takes what comes back meanwhile.
//!
//! Invariant: nobody waits for a turn longer than [`PATIENCE`]: behind a server that answers slowly, or not
//! at all, all find that out side by side.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Connections to one database that are opened at a time.
const AT_ONCE: usize = 3;

/// Longest wait for a turn: a few times what a first connection takes on a busy machine, its look at the
/// database included. With 100 ms a moved tenant's users all opened one after all.
const PATIENCE: Duration = Duration::from_millis(400);

/// The connections of one cell that are being opened.
#[derive(Debug, Default)]
pub(super) struct Opening {
    counts: std::sync::Mutex<HashMap<Box<str>, usize>>,
    changed: Notify,
}

/// A turn. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    opening: &'a Opening,
    database: Box<str>,
}

/// What a wait came to.
#[derive(Debug)]
pub(super) enum Got<'a, T> {
    /// Something that came back.
    Back(T),
    /// The turn to open one.
    Turn(Turn<'a>),
}

impl Opening {
    /// What `take` finds, or a turn, whichever comes first.
    pub(super) async fn wait<T>(&self, database: &str, take: impl Fn() -> Option<T>) -> Got<'_, T> {
        let end = Instant::now() + PATIENCE;
        let mut late = false;
        loop {
            let mut changed = pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            if let Some(found) = take() {
                return Got::Back(found);
            }
            if let Some(turn) = self.turn(database, if late { usize::MAX } else { AT_ONCE }) {
                return Got::Turn(turn);
            }
            late = timeout_at(end, changed).await.is_err();
        }
    }

    /// Something has come back.
    pub(super) fn tell(&self) {
        self.changed.notify_waiters();
    }

    fn turn(&self, database: &str, most: usize) -> Option<Turn<'_>> {
        let mut counts = self.counts();
        let count = counts.get(database).copied().unwrap_or(0);
        if count >= most {
            return None;
        }
        counts.insert(database.into(), count + 1);
        Some(Turn {
            opening: self,
            database: database.into(),
        })
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, HashMap<Box<str>, usize>> {
        let counts = self.counts.lock();
        counts.unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut counts = self.opening.counts();
        let left = counts.get(&self.database).map_or(0, |count| count - 1);
        if left == 0 {
            counts.remove(&self.database);
        } else {
            counts.insert(std::mem::take(&mut self.database), left);
        }
        drop(counts);
        self.opening.tell();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A stampede would keep the users of a tenant that has just moved waiting for all of its connections.
    #[tokio::test]
    async fn who_waits_takes_what_comes_back() {
        let opening = Opening::default();
        let mut turns = Vec::new();
        for _turn in 0..AT_ONCE {
            match opening.wait("a", || None::<()>).await {
                Got::Turn(turn) => turns.push(turn),
                Got::Back(()) => panic!("nothing has come back"),
            }
        }
        let back = AtomicBool::new(false);
        let waiting = opening.wait("a", || back.load(Ordering::Relaxed).then_some(()));
        let giving = async {
            back.store(true, Ordering::Relaxed);
            opening.tell();
        };
        let (got, ()) = tokio::join!(waiting, giving);
        assert!(matches!(got, Got::Back(())));
        // Another database has its own turns.
        assert!(matches!(
            opening.wait("b", || None::<()>).await,
            Got::Turn(_)
        ));
        // The end of a turn is a turn for the next; and after a while it is not waited for.
        turns.pop();
        let next = opening.wait("a", || None::<()>).await;
        assert!(matches!(next, Got::Turn(_)));
        let begun = Instant::now();
        assert!(matches!(
            opening.wait("a", || None::<()>).await,
            Got::Turn(_)
        ));
        assert!(begun.elapsed() >= PATIENCE);
        drop((turns, next));
        assert!(opening.counts().is_empty());
    }
}
