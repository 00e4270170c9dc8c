//! Giving way: copying and comparing leave room to the tenants of both servers.
//!
//! Rows go at a share of the speed that they could have, never more than half, so that whoever else wants
//! the processors gets them. How large the share is follows from a probe: it commits next to nothing at both ends, again and
//! again, and so measures what a commit costs there, before rows are read and while they are. The share
//! grows while that is about what it was, and shrinks while it is clearly more. (LEDBAT does so with
//! packets, RFC 6817: a background transfer yields when the delay grows beyond what it was without it.)
//!
//! Invariants: rows never stand still ([`LEAST`]); what the operator allows at most (`--rate`) holds
//! besides. Without a probe (a server that takes no more connections) the share stays what it was.
//!
//! Left out: what follows the changes, which may not fall behind, and everything in the freeze.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, Statement};

use crate::Error;
use crate::place::{Side, connect};

/// Time between two probes.
const TICK: Duration = Duration::from_millis(25);

/// Probes that are looked at together. How long a flush takes varies much: few of them say nothing.
const SAMPLES: usize = 12;

/// Probes that say what a commit costs before any rows are read.
const CALM: usize = 60;

/// For so long rows go as fast as they can, to see how fast that is.
const TRIAL: Duration = Duration::from_millis(200);

/// The share of the full speed at first, the smallest and the largest.
const FIRST: f64 = 0.35;
const LEAST: f64 = 0.1;
const MOST: f64 = 0.5;

/// A commit that is flushed, and seen by nobody: no stream looks at this prefix.
const PROBE: &str = "select pg_logical_emit_message(true, 'waangu-probe', '')";

/// How fast rows may be read now. Clones are the same pace.
#[derive(Debug, Clone)]
pub(crate) struct Pace(Arc<Mutex<State>>);

/// What the probes measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// No rows have been read yet.
    Before,
    Now,
    Over,
}

#[derive(Debug)]
struct State {
    work: Work,
    share: f64,
    /// Units in a second that the operator allows.
    allowed: f64,
    /// Units in a second without a rest, once that is known.
    speed: Option<f64>,
    /// Since when, and how many have passed since.
    since: Instant,
    passed: f64,
    /// When the next unit may pass.
    due: Instant,
    rested: Duration,
    is_calm: bool,
}

impl Pace {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self(Arc::new(Mutex::new(State {
            work: Work::Before,
            share: FIRST,
            allowed: f64::INFINITY,
            speed: None,
            since: now,
            passed: 0.0,
            due: now,
            rested: Duration::ZERO,
            is_calm: true,
        })))
    }

    /// Rows of another kind are read from here on, until [`Pace::end`].
    pub(crate) fn begin(&self, allowed: Option<f64>) {
        let mut state = self.state();
        state.work = Work::Now;
        state.allowed = allowed.unwrap_or(f64::INFINITY);
        state.speed = None;
        (state.since, state.passed) = (Instant::now(), 0.0);
    }

    /// No more rows; says for how long it rested since it was last asked.
    pub(crate) fn end(&self) -> Duration {
        let mut state = self.state();
        state.work = Work::Over;
        std::mem::take(&mut state.rested)
    }

    /// Whether a commit costs about what it did before.
    pub(crate) fn is_calm(&self) -> bool {
        self.state().is_calm
    }

    /// So many units have passed; returns when the next ones may.
    pub(crate) async fn pass(&self, units: f64) {
        let rest = self.state().rest(units, Instant::now());
        if !rest.is_zero() {
            sleep(rest).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn rest(&mut self, units: f64, now: Instant) -> Duration {
        self.passed += units;
        if self.speed.is_none() {
            let spent = now.duration_since(self.since);
            if spent < TRIAL && self.allowed.is_infinite() {
                self.due = now;
                return Duration::ZERO;
            }
            self.speed = Some(self.passed / spent.as_secs_f64().max(1e-3));
        }
        let full = self.speed.unwrap_or(f64::INFINITY);
        let takes = Duration::try_from_secs_f64(units / (full * self.share).min(self.allowed));
        let takes = takes.unwrap_or_default();
        // Work is part of the time that its units have; what was not used of it is not given back. Units
        // of the other end may be waiting already.
        let earliest = now.checked_sub(takes).unwrap_or(self.due);
        self.due = self.due.max(earliest) + takes;
        let rest = self.due.saturating_duration_since(now);
        self.rested += rest;
        rest
    }
}

/// The next share, after a look at the probes.
fn next_share(share: f64, load: Load) -> f64 {
    match load {
        Load::HeldUp => (share * 0.7).max(LEAST),
        Load::Some => share,
        Load::Calm => (share + 0.03).min(MOST),
    }
}

/// What the probes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Load {
    /// A commit costs about what it did.
    Calm,
    /// More.
    Some,
    /// Clearly more.
    HeldUp,
}

/// What commits cost at one end, in seconds.
#[derive(Debug, Default)]
struct Gauge {
    calm: VecDeque<f64>,
    now: VecDeque<f64>,
}

impl Gauge {
    fn add(&mut self, seconds: f64, work: Work) {
        let (list, most) = match work {
            Work::Before => (&mut self.calm, CALM),
            Work::Now | Work::Over => (&mut self.now, SAMPLES),
        };
        list.push_back(seconds);
        if list.len() > most {
            list.pop_front();
        }
    }

    fn load(&self) -> Load {
        let (Some(calm), Some(now)) = (median(&self.calm), median(&self.now)) else {
            return Load::Calm;
        };
        if now > calm * 2.5 && now > calm + 0.005 {
            Load::HeldUp
        } else if now > calm * 1.5 && now > calm + 0.002 {
            Load::Some
        } else {
            Load::Calm
        }
    }
}

fn median(list: &VecDeque<f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = list.iter().copied().collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// Somebody who looks at the probes. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Steering(JoinHandle<()>);

impl Steering {
    /// Begins to measure at both ends.
    pub(crate) fn begin(source: &Side, target: &Side, pace: &Pace) -> Self {
        let mut sides = vec![source.clone()];
        if (&source.cell.host, source.cell.port) != (&target.cell.host, target.cell.port) {
            sides.push(target.clone());
        }
        let pace = pace.clone();
        Self(Handle::current().spawn(async move {
            if let Err(error) = steer(&sides, &pace).await {
                tracing::warn!(%error, "nobody measures what a move costs others");
            }
            pace.state().is_calm = true;
        }))
    }
}

impl Drop for Steering {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn steer(sides: &[Side], pace: &Pace) -> Result<(), Error> {
    let mut probes = Vec::new();
    for side in sides {
        let session = connect(&side.cell, "postgres").await?;
        let statement = session.prepare(PROBE).await?;
        probes.push((session, statement, Gauge::default()));
    }
    for tick in 1_usize.. {
        sleep(TICK).await;
        let work = pace.state().work;
        let looks = probes.iter_mut().map(async |(session, statement, gauge)| {
            gauge.add(probe(session, statement).await?, work);
            Ok::<_, Error>(gauge.load())
        });
        let loads = future::try_join_all(looks).await?;
        let load = loads.into_iter().max().unwrap_or(Load::Calm);
        let mut state = pace.state();
        state.is_calm = load == Load::Calm;
        // Until the probes have seen what the last change has done.
        if work == Work::Now && tick.is_multiple_of(SAMPLES / 2) {
            state.share = next_share(state.share, load);
        }
    }
    Ok(())
}

async fn probe(session: &Client, statement: &Statement) -> Result<f64, Error> {
    let begun = Instant::now();
    session.execute(statement, &[]).await?;
    Ok(begun.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(calm: f64, now: f64, odd: &[f64]) -> Load {
        let mut gauge = Gauge::default();
        for _ in 0..CALM {
            gauge.add(calm, Work::Before);
        }
        for seconds in std::iter::repeat_n(&now, SAMPLES).chain(odd) {
            gauge.add(*seconds, Work::Now);
        }
        gauge.load()
    }

    /// A move that did not notice would slow its neighbours down; one that shied at noise would never end.
    #[test]
    fn a_commit_that_costs_clearly_more_is_noticed() {
        assert_eq!(load(0.004, 0.020, &[]), Load::HeldUp);
        assert_eq!(load(0.004, 0.008, &[]), Load::Some);
        assert_eq!(load(0.004, 0.005, &[]), Load::Calm);
        assert_eq!(load(0.0002, 0.001, &[]), Load::Calm);
        assert_eq!(load(0.004, 0.004, &[0.5, 0.5, 0.5]), Load::Calm);
    }

    /// It would stand still, or take all there is.
    #[test]
    fn the_share_stays_within_its_bounds() {
        let (mut small, mut large) = (MOST, LEAST);
        for _ in 0..100 {
            small = next_share(small, Load::HeldUp);
            large = next_share(large, Load::Calm);
        }
        assert!((LEAST..LEAST * 1.01).contains(&small));
        assert!((MOST * 0.99..=MOST).contains(&large));
    }

    /// A share must be that share of the speed, and an operator's bound must hold from the first unit.
    #[test]
    fn rows_go_at_their_share_and_never_faster_than_allowed() {
        let pace = Pace::new();
        pace.begin(None);
        let mut now = pace.state().since;
        let mut free = 0.0;
        let mut since_trial = Duration::ZERO;
        // A thousand units take a millisecond of work.
        for _ in 0..10_000 {
            now += Duration::from_millis(1);
            let rest = pace.state().rest(1000.0, now);
            now += rest;
            if !rest.is_zero() {
                free += 1000.0;
                since_trial += rest + Duration::from_millis(1);
            }
        }
        let speed = free / since_trial.as_secs_f64();
        assert!((FIRST * 0.95e6..FIRST * 1.05e6).contains(&speed), "{speed}");
        // Both ends of a comparison share it.
        let other = pace.state().rest(1000.0, now);
        assert!(pace.state().rest(1000.0, now) > other);
        pace.begin(Some(1000.0));
        assert!(pace.state().rest(500.0, Instant::now()) >= Duration::from_millis(499));
    }
}
