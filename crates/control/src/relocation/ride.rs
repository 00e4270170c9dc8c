//! The engine at work: one place for all that is asked of it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use waangu_registry::Figures;
use waangu_relocation::{Error, Progress, Relocation, Request, Step};

/// The engine on one move.
#[derive(Debug)]
pub(super) struct Ride {
    engine: Relocation,
    /// Since when writers wait, and for how long they had waited by then.
    fenced: Option<(Instant, Duration)>,
    /// For how long they waited in all.
    pause: Option<Duration>,
}

/// Whether the tenant can be taken back without a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WayBack {
    /// Its old place can be brought up to date.
    Kept,
    /// It can't, or the tenant has not arrived.
    Copied,
}

/// How a ride is watched, and stopped before its commit point.
#[derive(Debug)]
pub(super) struct Rein {
    progress: watch::Receiver<Progress>,
    stop: CancellationToken,
}

impl Rein {
    /// Lets the step in hand end as cancelled, if it may still.
    pub(super) fn pull(&self) {
        self.stop.cancel();
    }

    /// How far it is.
    pub(super) fn figures(&self) -> Figures {
        let seen = self.progress.borrow();
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let total = u128::from(seen.bytes) * u128::from(seen.rows_expected.max(seen.rows))
            / u128::from(seen.rows.max(1));
        Figures {
            rows: number(seen.rows),
            bytes: number(seen.bytes),
            total_bytes: (seen.rows > 0).then(|| i64::try_from(total).unwrap_or(i64::MAX)),
            lag_bytes: Some(number(seen.lag)),
            table: seen.table.clone(),
            pause_us: None,
        }
    }
}

impl Ride {
    pub(super) async fn begin(request: Request) -> Result<Self, Error> {
        Ok(Self {
            engine: Relocation::begin(request).await?,
            fenced: None,
            pause: None,
        })
    }

    pub(super) fn rein(&self) -> Rein {
        Rein {
            progress: self.engine.progress(),
            stop: self.engine.stop_token(),
        }
    }

    /// For how long writers were kept waiting, in microseconds, once the new place is open and if this
    /// ride saw all of it.
    pub(super) fn pause_us(&self) -> Option<i64> {
        i64::try_from(self.pause?.as_micros()).ok()
    }

    pub(super) async fn next(&self) -> Result<Step, Error> {
        self.engine.next().await
    }

    /// What was made of the way back, once nothing else is to be done.
    pub(super) async fn has_way_back(&self, next: &Step) -> Result<WayBack, Error> {
        if *next == Step::Done && self.engine.way_back().await?.is_some() {
            return Ok(WayBack::Kept);
        }
        Ok(WayBack::Copied)
    }

    /// Does one step. Dropped half-way, its outcome is what the databases say.
    pub(super) async fn apply(&mut self, step: &Step) -> Result<(), Error> {
        self.engine.apply(step).await?;
        match step {
            Step::CutOver => {
                let before = self.engine.progress().borrow().pause;
                self.fenced = Some((Instant::now(), before));
            }
            Step::Open => {
                let whole = |(since, before): (Instant, Duration)| before + since.elapsed();
                self.pause = self.fenced.map(whole);
            }
            _ => {}
        }
        Ok(())
    }
}
