//! What others use for the same job, on the same server and with the same tables: one module each.
//!
//! Invariants:
//! - a peer's programs run before the clock does: what is timed is the tenant, not Python's start;
//! - each peer is measured in its best documented setting, and by as many workers as ours has clients;
//! - what can't be had on this machine is a failure of that peer only: the report says so and goes on;
//! - what fails is counted and asked for again, never dropped.

pub(crate) mod by_hand;
pub(crate) mod crew;
pub(crate) mod django;
pub(crate) mod ledger20;
pub(crate) mod python;
pub(crate) mod server;
pub(crate) mod tryton;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::Instant;

use crate::failure::Failure;

/// What some tenants took.
#[derive(Debug, Default, Clone)]
pub(crate) struct Pass {
    /// Milliseconds of each.
    pub(crate) each: Vec<f64>,
    /// From the first one's begin to the last one's end, in seconds.
    pub(crate) wall: f64,
    /// How often one failed and was asked for again.
    pub(crate) failed: usize,
}

impl Pass {
    /// How many in a second.
    pub(crate) fn per_second(&self) -> f64 {
        let count = u32::try_from(self.each.len()).unwrap_or(u32::MAX);
        f64::from(count) / self.wall
    }

    /// Does `act` for each number, each of the doers one at a time.
    pub(crate) async fn run<D>(
        doers: impl IntoIterator<Item = D>,
        numbers: std::ops::Range<usize>,
        act: impl AsyncFn(&mut D, usize) -> Result<Tries, Failure>,
    ) -> Result<Self, Failure> {
        let next = AtomicUsize::new(numbers.start);
        let (act, next) = (&act, &next);
        let began = Instant::now();
        let parts = doers.into_iter().map(|mut doer| async move {
            let mut part = Self::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= numbers.end {
                    return Ok::<_, Failure>(part);
                }
                let began = Instant::now();
                part.failed += act(&mut doer, number).await?.0;
                part.each.push(milliseconds(began.elapsed()));
            }
        });
        let parts = try_join_all(parts).await?;
        let wall = began.elapsed().as_secs_f64();
        let failed = parts.iter().map(|part| part.failed).sum();
        let each = parts.into_iter().flat_map(|part| part.each).collect();
        Ok(Self { each, wall, failed })
    }
}

/// How often something failed before it was done.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tries(pub(crate) usize);

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
