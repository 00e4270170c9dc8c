//! Giving way: copying and comparing leave room to the tenants of both servers.
//!
//! Rows are read for a share of the time, in stretches of milliseconds, so that whoever else wants the
//! processors gets them, and soon. How large the share is follows from a probe: it commits next to nothing at both
//! ends, again and again, and so measures what a commit costs there, before rows are read and while they
//! are. The share grows while that is about what it was, and shrinks while it is clearly more. (LEDBAT does
//! so with packets, RFC 6817: a background transfer yields when the delay grows beyond what it was without
//! it.)
//!
//! A rest has a price, too: all the while rows are read in one snapshot, and as long as somebody reads in it,
//! a row that is changed again and again keeps all its versions, and whoever looks for it meets them. So
//! the older the snapshot, the larger the share, up to all of the time.
//!
//! Invariants: rows never stand still: the share has a floor, a rest an end, and the nearer a bound of the
//! move is ([`Pace::hurry`]), the larger the share, up to all of the time. Without a probe (a server that
//! takes no more connections) the share is the one it began with.
//!
//! Left out: what follows the changes, which may not fall behind, and everything from the freeze on.

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

/// How long a server works for us at a stretch. Whoever else wants the processors meanwhile waits about so
/// long, at each of the processes that a request passes, however small our share of the time is.
pub(crate) const STRETCH: Duration = Duration::from_millis(3);

/// Time between two probes, and before any rows are read: what is compared with has to come quickly.
const TICK: Duration = Duration::from_millis(25);
const TICK_BEFORE: Duration = Duration::from_millis(5);

/// Probes that are looked at together. How long a flush takes varies much: few of them say nothing.
const SAMPLES: usize = 12;

/// Probes that say what a commit costs before any rows are read.
const CALM: usize = 60;

/// The share of the time at first, the smallest and the largest.
const FIRST: f64 = 0.4;
const LEAST: f64 = 0.1;
const MOST: f64 = 0.8;

/// From so much of a bound on the share is larger than it would be, and from when on it is all.
const HURRY: f64 = 0.25;
const ALL: f64 = 0.75;

/// The longest rest: a server whose answer is not read for long takes us for lost.
const LONGEST: Duration = Duration::from_secs(2);

/// A commit that is flushed, and seen by nobody: no stream looks at this prefix.
const PROBE: &str = "select pg_logical_emit_message(true, 'waangu-probe', '')";

/// For which share of the time rows may be read now. Clones are the same pace.
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
    /// The smallest share that a bound of the move allows.
    hurry: f64,
    /// Since when rows are read in the same snapshot, and how old that should not become.
    young: Option<(Instant, Duration)>,
    rested: Duration,
    is_calm: bool,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            work: Work::Before,
            share: FIRST,
            hurry: 0.0,
            young: None,
            rested: Duration::ZERO,
            is_calm: true,
        })))
    }

    /// Rows are read from here on, until [`Pace::end`], in a snapshot that should not become older than this.
    pub(crate) fn begin(&self, young: Duration) {
        let mut state = self.state();
        (state.work, state.hurry) = (Work::Now, 0.0);
        state.young = Some((Instant::now(), young));
    }

    /// No more rows; says for how long it rested since it was last asked.
    pub(crate) fn end(&self) -> Duration {
        let mut state = self.state();
        (state.work, state.young) = (Work::Over, None);
        std::mem::take(&mut state.rested)
    }

    /// One stream of rows, which works so long at a stretch.
    pub(crate) fn stream(&self, stretch: Duration) -> Stream {
        Stream {
            pace: self.clone(),
            stretch,
            since: Instant::now(),
        }
    }

    /// So much of a bound has been used up.
    pub(crate) fn hurry(&self, used: f64) {
        let mut state = self.state();
        state.hurry = state.hurry.max(hurried(used));
    }

    /// Whether a commit costs not clearly more than before.
    pub(crate) fn is_calm(&self) -> bool {
        self.state().is_calm
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream of rows.
#[derive(Debug)]
pub(crate) struct Stream {
    pace: Pace,
    stretch: Duration,
    since: Instant,
}

impl Stream {
    /// Some rows have passed; returns when the next ones may, `due` at the earliest, and how long that was.
    pub(crate) async fn pass(&mut self, due: Option<Instant>) -> Duration {
        let now = Instant::now();
        let rest = self
            .rest(now)
            .max(due.unwrap_or(now).saturating_duration_since(now));
        if !rest.is_zero() {
            self.pace.state().rested += rest;
            sleep(rest).await;
            self.since = Instant::now();
        }
        self.since.duration_since(now)
    }

    fn rest(&self, now: Instant) -> Duration {
        let worked = now.duration_since(self.since);
        if worked < self.stretch {
            return Duration::ZERO;
        }
        let state = self.pace.state();
        let aged = state.young.map_or(0.0, |(since, young)| {
            hurried(now.duration_since(since).div_duration_f64(young))
        });
        let share = state.share.max(state.hurry).max(aged).clamp(LEAST, 1.0);
        worked.mul_f64(1.0 / share - 1.0).min(LONGEST)
    }
}

/// The share when so much of a bound has been used up.
fn hurried(used: f64) -> f64 {
    (used - HURRY) / (ALL - HURRY)
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
    /// More, or too little is known.
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
        if self.calm.len() < SAMPLES || self.now.len() < SAMPLES {
            return Load::Some;
        }
        let (calm, now) = (median(&self.calm), median(&self.now));
        if now > calm * 2.5 && now > calm + 0.005 {
            Load::HeldUp
        } else if now > calm * 1.5 && now > calm + 0.002 {
            Load::Some
        } else {
            Load::Calm
        }
    }
}

fn median(list: &VecDeque<f64>) -> f64 {
    let mut sorted: Vec<f64> = list.iter().copied().collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
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
            let mut state = pace.state();
            (state.share, state.is_calm) = (FIRST, true);
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
        let work = pace.state().work;
        sleep(if work == Work::Before {
            TICK_BEFORE
        } else {
            TICK
        })
        .await;
        let looks = probes.iter_mut().map(async |(session, statement, gauge)| {
            gauge.add(probe(session, statement).await?, work);
            Ok::<_, Error>(gauge.load())
        });
        let loads = future::try_join_all(looks).await?;
        let load = loads.into_iter().max().unwrap_or(Load::Some);
        let mut state = pace.state();
        state.is_calm = load != Load::HeldUp;
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

    fn load(before: (f64, usize), now: f64, odd: &[f64]) -> Load {
        let mut gauge = Gauge::default();
        for _ in 0..before.1 {
            gauge.add(before.0, Work::Before);
        }
        for seconds in std::iter::repeat_n(&now, SAMPLES).chain(odd) {
            gauge.add(*seconds, Work::Now);
        }
        gauge.load()
    }

    /// A move that did not notice would slow its neighbours down; one that shied at noise would never end.
    #[test]
    fn a_commit_that_costs_clearly_more_is_noticed() {
        let calm = (0.004, CALM);
        assert_eq!(load(calm, 0.020, &[]), Load::HeldUp);
        assert_eq!(load(calm, 0.008, &[]), Load::Some);
        assert_eq!(load(calm, 0.005, &[]), Load::Calm);
        assert_eq!(load((0.0002, CALM), 0.001, &[]), Load::Calm);
        assert_eq!(load(calm, 0.004, &[0.5, 0.5, 0.5]), Load::Calm);
        assert_eq!(load((0.004, 3), 0.004, &[]), Load::Some);
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

    /// However few rows a stretch brought, and however long it took, the rest follows from its time alone
    /// and has an end; and near a bound of the move there is none.
    #[test]
    fn a_rest_follows_from_the_work_before_it() {
        let pace = Pace::new();
        let stream = pace.stream(Duration::from_millis(100));
        let after = |millis| stream.rest(stream.since + Duration::from_millis(millis));
        assert_eq!(after(99), Duration::ZERO);
        let rest = after(100).as_secs_f64();
        assert!((0.1 / (0.1 + rest) - FIRST).abs() < 0.01, "{rest}");
        assert_eq!(after(3_600_000), LONGEST);
        pace.hurry(0.2);
        assert!((after(100).as_secs_f64() - rest).abs() < 1e-6);
        pace.begin(Duration::from_secs(40));
        let aged = |millis| stream.rest(Instant::now() + Duration::from_millis(millis));
        assert!(aged(9_000) > Duration::ZERO);
        assert_eq!(aged(31_000), Duration::ZERO);
        pace.hurry(0.8);
        assert_eq!(after(100), Duration::ZERO);
    }
}
