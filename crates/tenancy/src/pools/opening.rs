//! Who opens a connection, when many want one to the same database at once.
//!
//! A tenant that has just come to a database of its own is asked for by all of its users at once, and a
//! connection's first transaction costs many times what the next one does. So a few are opened at a time,
//! and who waits for a turn takes what comes back meanwhile.
//!
//! Where others have connections to the database, one may come back any moment, and opening another takes
//! the processor from those who would give it back. So one is waited for as long as the last opening took
//! there, and no longer: if the next takes as long, that costs at most twice what the better of the two would
//! have (the ski-rental problem; Karlin et al., "Competitive snoopy caching", Algorithmica 3, 1988).
//!
//! Invariant: nobody waits for a turn longer than [`PATIENCE`]: behind a server that answers slowly, or not
//! at all, all find that out side by side.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Weak};
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
    counts: std::sync::Mutex<Counts>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    /// Turns, by database.
    turns: HashMap<Box<str>, usize>,
    /// What the open connections to a database share, and how long the last one took to open.
    kin: HashMap<Box<str>, (Weak<()>, Duration)>,
}

/// A share in the connections to one database, held by each of them.
#[derive(Debug)]
pub(super) struct Kin {
    _shared: Arc<()>,
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
    /// What `take` finds, or a turn, whichever comes first; half of the time until the deadline is for opening.
    pub(super) async fn wait<T>(
        &self,
        database: &str,
        deadline: Instant,
        take: impl Fn() -> Option<T>,
    ) -> Got<'_, T> {
        let begun = Instant::now();
        let half = deadline.saturating_duration_since(begun) / 2;
        let early = begun + self.worth_waiting(database).min(half);
        let end = begun + PATIENCE;
        loop {
            let mut changed = pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            if let Some(found) = take() {
                return Got::Back(found);
            }
            let now = Instant::now();
            let most = match now {
                _ if now < early => 0,
                _ if now < end => AT_ONCE,
                _ => usize::MAX,
            };
            if let Some(turn) = self.turn(database, most) {
                return Got::Turn(turn);
            }
            let until = if now < early { early } else { end };
            let _late = timeout_at(until, changed).await;
        }
    }

    /// For how long a connection that comes back is better than a new one.
    fn worth_waiting(&self, database: &str) -> Duration {
        let counts = self.counts();
        let open = counts.kin.get(database);
        let open = open.filter(|(kin, _)| kin.strong_count() > 0);
        open.map_or(Duration::ZERO, |(_, took)| *took).min(PATIENCE)
    }

    /// One was opened, in so much time.
    pub(super) fn opened(&self, database: &str, took: Duration) -> Kin {
        let mut counts = self.counts();
        let known = counts.kin.get(database).and_then(|(kin, _)| kin.upgrade());
        if known.is_none() {
            counts.kin.retain(|_, (kin, _)| kin.strong_count() > 0);
        }
        let shared = known.unwrap_or_default();
        let kin = (Arc::downgrade(&shared), took);
        counts.kin.insert(database.into(), kin);
        Kin { _shared: shared }
    }

    /// Something has come back.
    pub(super) fn tell(&self) {
        self.changed.notify_waiters();
    }

    fn turn(&self, database: &str, most: usize) -> Option<Turn<'_>> {
        let mut counts = self.counts();
        let count = counts.turns.get(database).copied().unwrap_or(0);
        if count >= most {
            return None;
        }
        counts.turns.insert(database.into(), count + 1);
        Some(Turn {
            opening: self,
            database: database.into(),
        })
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        let counts = self.counts.lock();
        counts.unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut counts = self.opening.counts();
        let turns = &mut counts.turns;
        let left = turns.get(&self.database).map_or(0, |count| count - 1);
        if left == 0 {
            turns.remove(&self.database);
        } else {
            turns.insert(std::mem::take(&mut self.database), left);
        }
        drop(counts);
        self.opening.tell();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    /// A stampede would keep the users of a tenant that has just moved waiting for all of its connections.
    #[tokio::test]
    async fn who_waits_takes_what_comes_back() {
        let opening = Opening::default();
        let mut turns = Vec::new();
        for _turn in 0..AT_ONCE {
            match opening.wait("a", later(), || None::<()>).await {
                Got::Turn(turn) => turns.push(turn),
                Got::Back(()) => panic!("nothing has come back"),
            }
        }
        let back = AtomicBool::new(false);
        let waiting = opening.wait("a", later(), || back.load(Ordering::Relaxed).then_some(()));
        let giving = async {
            back.store(true, Ordering::Relaxed);
            opening.tell();
        };
        let (got, ()) = tokio::join!(waiting, giving);
        assert!(matches!(got, Got::Back(())));
        // Another database has its own turns.
        assert!(matches!(
            opening.wait("b", later(), || None::<()>).await,
            Got::Turn(_)
        ));
        // The end of a turn is a turn for the next; and after a while it is not waited for.
        turns.pop();
        let next = opening.wait("a", later(), || None::<()>).await;
        assert!(matches!(next, Got::Turn(_)));
        let begun = Instant::now();
        assert!(matches!(
            opening.wait("a", later(), || None::<()>).await,
            Got::Turn(_)
        ));
        assert!(begun.elapsed() >= PATIENCE);
        drop((turns, next));
        assert!(opening.counts().turns.is_empty());
    }

    /// On a busy machine each user of a tenant that has just moved would open one more, and take the
    /// processor from the few that could serve them all.
    #[tokio::test]
    async fn where_some_are_open_one_is_waited_for_as_long_as_an_opening_takes() {
        let opening = Opening::default();
        let took = Duration::from_millis(60);
        let asks = async || {
            let begun = Instant::now();
            assert!(matches!(
                opening.wait("a", later(), || None::<()>).await,
                Got::Turn(_)
            ));
            begun.elapsed()
        };
        let kin = opening.opened("a", took);
        let other = opening.opened("a", took);
        assert!(asks().await >= took);
        drop(kin);
        assert!(asks().await >= took);
        drop(other);
        assert!(asks().await < took, "nobody has one that could come back");
        let _elsewhere = opening.opened("b", took);
        assert!(asks().await < took);
        assert_eq!(opening.counts().kin.len(), 1);
    }
}
