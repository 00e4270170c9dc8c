//! What a list of samples comes to. Small lists: five starts, fifty onboardings.
//!
//! Definitions, so that nobody has to guess:
//! - *median*: the middle sample in order, or the mean of the two in the middle;
//! - *p95*, nearest rank: the smallest sample that at least 95 % of all samples do not exceed, that is
//!   the one at rank ⌈0.95 · n⌉ counted from 1. Always a sample that was measured, never interpolated.
//!   Of 50 samples the 48th; below 20 samples it is the largest.
//!
//! Left out: means and deviations, which one outlier owns.

use serde::Serialize;

/// A list of samples in a few numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// How many samples.
    pub(crate) count: usize,
    pub(crate) median: f64,
    pub(crate) p95: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Summary {
    /// None of no samples.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            count: sorted.len(),
            median: median(&sorted)?,
            p95: percentile(&sorted, 95)?,
            min: *sorted.first()?,
            max: *sorted.last()?,
        })
    }
}

fn median(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(sorted.len() / 2 - 1)?;
    Some(f64::midpoint(lower, upper))
}

/// The nearest-rank percentile of samples in any order; `percent` is 1 to 100.
pub(crate) fn percentile_of(samples: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    percentile(&sorted, percent)
}

/// The nearest-rank percentile; `percent` is 1 to 100.
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(last: u32) -> Vec<f64> {
        (1..=last).rev().map(f64::from).collect()
    }

    fn summary(samples: &[f64]) -> Summary {
        Summary::of(samples).unwrap()
    }

    #[test]
    fn nothing_comes_to_nothing() {
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn one_sample_is_all_of_it() {
        let expected = Summary {
            count: 1,
            median: 7.0,
            p95: 7.0,
            min: 7.0,
            max: 7.0,
        };
        assert_eq!(summary(&[7.0]), expected);
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "halves of small whole numbers are exact")]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(summary(&[3.0, 1.0, 2.0]).median, 2.0);
        assert_eq!(summary(&[4.0, 1.0, 3.0, 2.0]).median, 2.5);
    }

    /// Ranks of NIST's nearest-rank definition, worked out by hand.
    #[test]
    #[expect(clippy::float_cmp, reason = "samples come out as they went in")]
    fn p95_is_a_sample_at_the_nearest_rank() {
        for (count, rank) in [
            (5, 5),
            (10, 10),
            (19, 19),
            (20, 19),
            (21, 20),
            (50, 48),
            (100, 95),
        ] {
            assert_eq!(summary(&numbers(count)).p95, f64::from(rank), "of {count}");
        }
    }
}
