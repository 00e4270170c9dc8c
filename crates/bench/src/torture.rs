//! `bench --torture NAME`: random work under random kills and cuts, and then the question what was lost.
//!
//! Invariant: the last line is the count of operations, kills and losses; the exit code is 0 if nothing
//! was lost, 3 if something was, 1 if it could not be tried.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::failure::Failure;
use crate::progress::{line, talk};

mod cuts;
mod debris;
mod fleet;
mod kills;
mod model;
mod relocation;

/// How long, and from which seed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ordeal {
    pub(crate) length: Duration,
    pub(crate) seed: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) operations: u64,
    pub(crate) kills: u64,
    /// What is not as it was promised.
    pub(crate) losses: Vec<String>,
}

/// Runs one by its name.
pub(crate) async fn run(name: &str, ordeal: Ordeal, programs: &Path) -> Result<ExitCode, Failure> {
    if !matches!(name, "fleet" | "relocation") {
        let text = format!("there is no torture `{name}`; there is fleet, relocation");
        return Err(Failure::new(text));
    }
    talk(&format!(
        "torture {name} for {} s from seed {}",
        ordeal.length.as_secs(),
        ordeal.seed
    ));
    let outcome = match name {
        "fleet" => fleet::run(ordeal, programs).await?,
        _ => relocation::run(ordeal, programs).await?,
    };
    for loss in &outcome.losses {
        line(&format!("lost: {loss}"));
    }
    line(&format!(
        "{} operations, {} kills, {} losses",
        outcome.operations,
        outcome.kills,
        outcome.losses.len()
    ));
    Ok(ExitCode::from(if outcome.losses.is_empty() {
        0
    } else {
        3
    }))
}

/// Random numbers that a seed repeats (SplitMix64, Steele et al. 2014).
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    /// One of them, if there is one.
    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(from.len()).unwrap_or(0);
        let index = self.below(count);
        from.get(usize::try_from(index).unwrap_or(0))
    }
}
