//! Which namespace is in which wave, and when a rollout goes on, stops or is over. Pure.
//!
//! Invariants: every namespace is in exactly one wave; after the n-th wave at least the n-th percentage
//! of all has been reached; a rollout begins a wave only after the one before has ended within its
//! bound of failures.

use std::collections::BTreeSet;

use waangu_kernel::{CellId, Fault, TenantId, Tier, fault};
use waangu_registry::{Behind, NewItem, RolloutState, WaveCount};

/// Percentages that end the waves if nobody says.
pub(crate) const WAVES: [i32; 3] = [1, 10, 100];

/// The share of failures in a wave, in percent, beyond which a rollout stops if nobody says.
pub(crate) const STOP_PERCENT: i32 = 5;

/// Most waves.
const MOST_WAVES: usize = 20;

/// Where the canaries are: tenants with namespaces of their own, and cells whose shared one holds some.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Canaries {
    pub(crate) tenants: BTreeSet<TenantId>,
    pub(crate) cells: BTreeSet<CellId>,
}

/// Refuses percentages that don't grow to 100.
pub(crate) fn check_waves(waves: &[i32]) -> Result<(), Fault> {
    let grow = waves.iter().zip(waves.iter().skip(1)).all(|(a, b)| a < b);
    let fine = waves.first().is_some_and(|first| *first >= 1)
        && waves.last() == Some(&100)
        && waves.len() <= MOST_WAVES
        && grow;
    if fine {
        return Ok(());
    }
    Err(fault::INVALID_FIELD
        .fault(format!(
            "waves are up to {MOST_WAVES} growing percentages, the last of which is 100, such as 1, 10, 100"
        ))
        .field("waves"))
}

/// The namespaces in the order of work. Those of one tenant come first, mixed over all cells; the shared
/// ones last, because each holds many tenants.
pub(crate) fn assign(behind: &[Behind], canaries: &Canaries, waves: &[i32]) -> Vec<NewItem> {
    let is_canary = |unit: &Behind| match unit.tenant {
        Some(tenant) => canaries.tenants.contains(&tenant),
        None => canaries.cells.contains(&unit.cell),
    };
    let (first, mut rest): (Vec<&Behind>, Vec<&Behind>) =
        behind.iter().partition(|unit| is_canary(unit));
    rest.sort_by_key(|unit| (unit.tenant.is_none(), mixed(unit), unit.cell.clone()));
    let mut placed: Vec<(i32, &Behind)> = first.iter().map(|unit| (0, *unit)).collect();
    for (position, unit) in (first.len()..).zip(rest) {
        let reached = |percent: &i32| position < share(behind.len(), *percent);
        let wave = waves.iter().position(reached).unwrap_or(waves.len());
        placed.push((i32::try_from(wave + 1).unwrap_or(i32::MAX), unit));
    }
    // Within a wave database by database, so that a connection serves many.
    placed.sort_by_key(|(wave, unit)| {
        let tier = Tier::ALL.iter().position(|tier| *tier == unit.tier);
        (*wave, unit.cell.clone(), tier, unit.bucket, unit.tenant)
    });
    placed
        .into_iter()
        .map(|(wave, unit)| NewItem {
            wave,
            cell: unit.cell.clone(),
            tier: unit.tier,
            tenant: unit.tenant,
        })
        .collect()
}

/// So many of `total` are `percent` of it, rounded up.
fn share(total: usize, percent: i32) -> usize {
    let percent = usize::try_from(percent).unwrap_or(0);
    total.saturating_mul(percent).div_ceil(100)
}

/// A number without order (Fibonacci hashing): neighbours in number are mostly of the same age and size.
/// Shared namespaces are taken by their tenants, few first.
fn mixed(unit: &Behind) -> u64 {
    let number = unit.tenant.map_or(unit.tenants, TenantId::number);
    let number = u64::try_from(number).unwrap_or(0);
    match unit.tenant {
        Some(_) => number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        None => number,
    }
}

/// What a running rollout does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The wave in hand is not over.
    GoOn,
    /// Begins another wave.
    Begin(i32),
    /// So many of so many have failed: it stops.
    Stop(i64, i64),
    /// Nothing is left.
    End(RolloutState),
}

/// Judges a rollout by its waves.
pub(crate) fn judge(wave: i32, waves: &[WaveCount], stop_percent: i32) -> Verdict {
    let next = waves.iter().find(|count| count.pending > 0);
    let Some(next) = next else {
        let failed = waves.iter().any(|count| count.failed > 0);
        return Verdict::End(if failed {
            RolloutState::Partial
        } else {
            RolloutState::Succeeded
        });
    };
    let current = waves.iter().find(|count| count.wave == wave);
    if let Some(current) = current
        && current.failed * 100 > i64::from(stop_percent) * current.total()
    {
        return Verdict::Stop(current.failed, current.total());
    }
    if next.wave == wave {
        Verdict::GoOn
    } else {
        Verdict::Begin(next.wave)
    }
}

/// Seconds until nothing is left at this pace; `None` while too little has been seen to say so.
pub(crate) fn estimate(pace: waangu_registry::Pace, pending: i64) -> Option<f64> {
    const ENOUGH: i64 = 5;
    if pace.ended < ENOUGH || pace.seconds < 0.2 {
        return None;
    }
    Some(real(pending) * pace.seconds / real(pace.ended))
}

/// Namespaces in a second.
pub(crate) fn rate(pace: waangu_registry::Pace) -> Option<f64> {
    (pace.seconds > 0.0).then(|| real(pace.ended) / pace.seconds)
}

fn real(count: i64) -> f64 {
    f64::from(i32::try_from(count).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use waangu_registry::Pace;

    use super::*;

    fn unit(number: i64, tier: Tier) -> Behind {
        let shared = tier == Tier::Shared;
        Behind {
            cell: format!("cell-{}", number % 3).parse().unwrap(),
            tier,
            tenant: (!shared).then(|| TenantId::new(number).unwrap()),
            bucket: 0,
            tenants: if shared { number } else { 1 },
        }
    }

    fn count(wave: i32, pending: i64, done: i64, failed: i64) -> WaveCount {
        WaveCount {
            wave,
            pending,
            done,
            failed,
            skipped: 0,
        }
    }

    prop_compose! {
        fn fleet()(own in 0_i64..400, shared in 0_i64..4) -> Vec<Behind> {
            let own = (1..=own).map(|number| unit(number, Tier::Schema));
            own.chain((1..=shared).map(|number| unit(number, Tier::Shared))).collect()
        }
    }

    proptest! {
        /// A namespace that is in no wave is never upgraded; one in two is upgraded as a canary and
        /// everybody. And the first percents must be reached before anything else is risked.
        #[test]
        fn every_namespace_is_in_one_wave(
            behind in fleet(),
            canary in prop::collection::btree_set(1_i64..400, 0..5),
            cuts in prop::collection::btree_set(1_i32..100, 0..5),
        ) {
            let waves: Vec<i32> = cuts.into_iter().chain([100]).collect();
            check_waves(&waves).unwrap();
            let canaries = Canaries {
                tenants: canary.into_iter().map(|n| TenantId::new(n).unwrap()).collect(),
                cells: BTreeSet::new(),
            };
            let items = assign(&behind, &canaries, &waves);
            prop_assert_eq!(items.len(), behind.len());
            let keys: BTreeSet<_> = items.iter().map(|i| (i.cell.clone(), i.tenant)).collect();
            let wanted: BTreeSet<_> = behind.iter().map(|u| (u.cell.clone(), u.tenant)).collect();
            prop_assert_eq!(keys, wanted);
            prop_assert!(items.is_sorted_by_key(|item| item.wave));
            for item in &items {
                let canary = item.tenant.is_some_and(|t| canaries.tenants.contains(&t));
                prop_assert_eq!(item.wave == 0, canary);
            }
            for (number, percent) in (1_i32..).zip(&waves) {
                let reached = items.iter().filter(|item| item.wave <= number).count();
                prop_assert!(reached >= share(behind.len(), *percent));
            }
        }

        /// A rollout that neither goes on nor ends hangs for ever; one that goes on past its bound is
        /// an outage in all cells.
        #[test]
        fn a_rollout_always_comes_to_an_end(
            sizes in prop::collection::vec(1_i64..30, 1..5),
            failures in prop::collection::vec(0_i64..100, 1..5),
            stop in 0_i32..=100,
        ) {
            let mut waves: Vec<WaveCount> = (0_i32..).zip(&sizes).map(|(n, size)| count(n, *size, 0, 0)).collect();
            let (mut wave, mut turns) = (0, 0);
            loop {
                turns += 1;
                prop_assert!(turns < 1000);
                match judge(wave, &waves, stop) {
                    Verdict::GoOn => {
                        let index = usize::try_from(wave).unwrap();
                        let percent = failures[index % failures.len()];
                        let now = &mut waves[index];
                        now.pending -= 1;
                        if now.failed * 100 < percent * now.total() { now.failed += 1 } else { now.done += 1 }
                    }
                    Verdict::Begin(next) => {
                        prop_assert!(next > wave);
                        let before = &waves[usize::try_from(wave).unwrap()];
                        prop_assert_eq!(before.pending, 0);
                        prop_assert!(before.failed * 100 <= i64::from(stop) * before.total());
                        wave = next;
                    }
                    Verdict::Stop(failed, total) => {
                        prop_assert!(failed * 100 > i64::from(stop) * total);
                        break;
                    }
                    Verdict::End(state) => {
                        prop_assert!(waves.iter().all(|w| w.pending == 0));
                        let failed = waves.iter().any(|w| w.failed > 0);
                        prop_assert_eq!(state == RolloutState::Partial, failed);
                        break;
                    }
                }
            }
        }
    }

    /// The order of the cases is that of a rollout's life.
    #[test]
    fn a_rollout_is_judged_by_its_waves() {
        let cases = [
            (0, vec![count(0, 1, 1, 0), count(1, 9, 0, 0)], Verdict::GoOn),
            (
                0,
                vec![count(0, 0, 2, 0), count(1, 9, 0, 0)],
                Verdict::Begin(1),
            ),
            (
                0,
                vec![count(0, 0, 1, 1), count(1, 9, 0, 0)],
                Verdict::Stop(1, 2),
            ),
            (
                1,
                vec![count(1, 80, 19, 1), count(3, 9, 0, 0)],
                Verdict::GoOn,
            ),
            (
                1,
                vec![count(1, 0, 99, 1), count(3, 9, 0, 0)],
                Verdict::Begin(3),
            ),
            (
                1,
                vec![count(1, 50, 44, 6), count(3, 9, 0, 0)],
                Verdict::Stop(6, 100),
            ),
            // Nothing is left that stopping could save.
            (
                3,
                vec![count(3, 0, 0, 9)],
                Verdict::End(RolloutState::Partial),
            ),
            (
                3,
                vec![count(3, 0, 9, 0)],
                Verdict::End(RolloutState::Succeeded),
            ),
            // Tried again: back to the wave of what had failed.
            (
                3,
                vec![count(1, 1, 9, 0), count(3, 0, 9, 0)],
                Verdict::Begin(1),
            ),
            (0, vec![], Verdict::End(RolloutState::Succeeded)),
        ];
        for (wave, waves, verdict) in cases {
            assert_eq!(judge(wave, &waves, 5), verdict, "wave {wave} of {waves:?}");
        }
    }

    /// Waves that do not end at everybody would leave the rest behind for ever.
    #[test]
    fn odd_waves_are_refused() {
        assert!(check_waves(&WAVES).is_ok() && check_waves(&[100]).is_ok());
        for waves in [
            &[][..],
            &[1, 10],
            &[10, 1, 100],
            &[0, 100],
            &[50, 50, 100],
            &[100, 200],
        ] {
            assert_eq!(
                check_waves(waves).unwrap_err().code(),
                "invalid-field",
                "{waves:?}"
            );
        }
    }

    /// An estimate from two namespaces is a lie with a decimal point.
    #[test]
    fn an_estimate_needs_something_to_go_by() {
        let pace = |ended, seconds| Pace { ended, seconds };
        assert_eq!(estimate(pace(2, 1.0), 100), None);
        assert_eq!(estimate(pace(50, 0.0), 100), None);
        assert_eq!(estimate(pace(50, 10.0), 100), Some(20.0));
        assert_eq!(estimate(pace(50, 10.0), 0), Some(0.0));
    }
}
