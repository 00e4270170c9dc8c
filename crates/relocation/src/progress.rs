//! How far a move is, for whoever watches it; and how it is told to stop.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// What is being done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Target and slot are made ready.
    #[default]
    Prepare,
    /// The rows of a snapshot are copied.
    Copy,
    /// Changes are followed.
    Follow,
    /// Both ends are compared, while changes are followed.
    Compare,
    /// Writers wait, until the fence.
    Freeze,
    /// The source is closed for good; the target is to be opened.
    Fenced,
    /// The target is open.
    Open,
    /// Nothing is left to do.
    Done,
}

impl Phase {
    /// Its name, as shown and stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Copy => "copy",
            Self::Follow => "follow",
            Self::Compare => "compare",
            Self::Freeze => "freeze",
            Self::Fenced => "fenced",
            Self::Open => "open",
            Self::Done => "done",
        }
    }
}

/// How far a move is. Figures are of this worker; one that comes later begins at nought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// The table that is copied or compared, with its schema at the source.
    pub table: Option<String>,
    /// Rows copied, of about so many.
    pub rows: u64,
    /// The planner's guess of all rows.
    pub rows_expected: u64,
    /// Bytes copied.
    pub bytes: u64,
    /// Changes applied.
    pub changes: u64,
    /// Bytes of the source's log that are still to be read.
    pub lag: u64,
    /// Rows that have changed since they were compared.
    pub touched: u64,
    /// Tries to freeze.
    pub tries: u32,
    /// Longest time that writers waited at a stretch, up to the fence.
    pub pause: Duration,
    /// How much longer the present phase may take, if that can be told.
    pub left: Option<Duration>,
}

/// Where the engine tells it.
#[derive(Debug, Clone)]
pub(crate) struct Teller {
    told: watch::Sender<Progress>,
    since: Instant,
}

impl Teller {
    pub(crate) fn new() -> Self {
        Self {
            told: watch::Sender::new(Progress::default()),
            since: Instant::now(),
        }
    }

    pub(crate) fn listen(&self) -> watch::Receiver<Progress> {
        self.told.subscribe()
    }

    pub(crate) fn phase(&mut self, phase: Phase) {
        if self.told.borrow().phase != phase {
            self.since = Instant::now();
            self.tell(|progress| (progress.phase, progress.left) = (phase, None));
        }
    }

    pub(crate) fn table(&self, name: &str) {
        self.tell(|progress| progress.table = Some(name.to_owned()));
    }

    pub(crate) fn copied(&self, rows: u64, bytes: u64) {
        let spent = self.since.elapsed();
        self.tell(|progress| {
            (progress.rows, progress.bytes) = (rows, bytes);
            progress.left = remaining(spent, rows, progress.rows_expected);
        });
    }

    pub(crate) fn tell(&self, change: impl FnOnce(&mut Progress)) {
        self.told.send_modify(change);
    }
}

fn remaining(spent: Duration, done: u64, all: u64) -> Option<Duration> {
    let left = u128::from(all.checked_sub(done)?);
    let millis = spent.as_millis() * left / u128::from(done.max(1));
    (done > 0).then(|| Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An operator would be told nonsense at the first row, or when the guess was too low.
    #[test]
    fn the_rest_is_told_only_when_it_can_be_told() {
        let spent = Duration::from_secs(3);
        assert_eq!(remaining(spent, 100, 400), Some(Duration::from_secs(9)));
        assert_eq!(remaining(spent, 0, 400), None);
        assert_eq!(remaining(spent, 500, 400), None);
    }
}
