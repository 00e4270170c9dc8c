//! Batches of several sides, taking turns.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;

use super::cpu::{self, Backends};
use super::plan::{Planner, Shape};
use super::sides::Side;
use crate::failure::{Failure, Of as _};
use crate::stats::Summary;

/// How long a batch should take: long enough for the clock, short enough for many rounds.
const BATCH: Duration = Duration::from_millis(80);

/// Transactions of the first, unmeasured batch of each side: caches and plans get warm (PostgreSQL
/// settles on a generic plan at the sixth execution).
const WARM_UP: usize = 40;

/// What a side's batches took, for each transaction, in microseconds.
#[derive(Debug, Default, Clone)]
pub(super) struct Took {
    pub(super) wall: Vec<f64>,
    /// CPU of the backend.
    pub(super) backend: Vec<f64>,
    /// CPU of this process.
    pub(super) client: Vec<f64>,
}

/// Lets the sides take turns, forwards and backwards; what comes back is in their order.
pub(super) async fn measure(
    sides: &[Side<'_>],
    shape: &Shape,
    planner: &mut Planner,
    superuser: &Client,
    rounds: usize,
) -> Result<Vec<Took>, Failure> {
    let mut slowest = Duration::ZERO;
    for side in sides {
        let batch = side.ready(shape, planner.batch(shape, WARM_UP))?;
        side.run(&batch).await?;
        let batch = side.ready(shape, planner.batch(shape, WARM_UP))?;
        let began = Instant::now();
        side.run(&batch).await?;
        slowest = slowest.max(began.elapsed());
    }
    let count = count(slowest)?;
    let mut took = vec![Took::default(); sides.len()];
    for round in 0..rounds {
        let mut turn: Vec<_> = sides.iter().zip(&mut took).collect();
        if round % 2 == 1 {
            turn.reverse();
        }
        for (side, took) in turn {
            let batch = side.ready(shape, planner.batch(shape, count))?;
            let backends = Backends::of(superuser, side.login());
            let (backend, client) = (backends.used().await?, cpu::our_own());
            let began = Instant::now();
            side.run(&batch).await?;
            let wall = began.elapsed();
            // Ours first: asking for the others' is work of this process, too.
            let client = cpu::our_own().saturating_sub(client);
            let backend = backends.used().await?.saturating_sub(backend);
            took.wall.push(each(wall, count));
            took.backend.push(each(backend, count));
            took.client.push(each(client, count));
        }
    }
    Ok(took)
}

/// Transactions of a batch, from how long [`WARM_UP`] of them took.
fn count(warm_up: Duration) -> Result<usize, Failure> {
    let one = warm_up.as_micros() / 40;
    let count = BATCH.as_micros() / one.max(1);
    usize::try_from(count.clamp(10, 1_000)).of("size of a batch")
}

/// Microseconds for each of `count`.
fn each(all: Duration, count: usize) -> f64 {
    let count = u32::try_from(count).map_or(f64::NAN, f64::from);
    all.as_secs_f64() * 1e6 / count
}

/// The median of `theirs / ours`, round by round: above one, ours is quicker.
pub(super) fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    let ratios: Vec<f64> = ours
        .iter()
        .zip(theirs)
        .map(|(ours, theirs)| theirs / ours)
        .collect();
    Summary::of(&ratios).map_or(f64::NAN, |summary| summary.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The median of the ratios, not the ratio of the medians: rounds belong together.
    #[test]
    #[expect(
        clippy::float_cmp,
        reason = "quotients of small whole numbers are exact"
    )]
    fn a_round_is_compared_with_itself() {
        assert_eq!(ratio(&[1.0, 10.0, 2.0], &[2.0, 20.0, 1.0]), 2.0);
        assert!(ratio(&[], &[]).is_nan());
    }

    #[test]
    fn batches_are_of_a_fair_length() {
        assert_eq!(count(Duration::from_millis(4)).unwrap(), 800);
        assert_eq!(count(Duration::from_secs(40)).unwrap(), 10);
    }
}
