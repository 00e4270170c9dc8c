//! When what speaks for a tier becomes a proposal, and when a proposal is taken back. Pure.
//!
//! ```text
//!           above            for the hold            below          for the hold
//! (nothing) ─────▶ rising ─────────────────▶ open ─────────▶ falling ────────────▶ (nothing)
//!     ▲              │ below, between          ▲                │ not below
//!     └──────────────┘                         └────────────────┘
//! ```
//!
//! Invariants (property-tested): between a proposal and its end, and between its end and the next one,
//! lies the hold at least, unless a rule calls for it; figures between the two bounds change nothing
//! that stands.

use time::{Duration, OffsetDateTime};
use waangu_registry::AdviceState;

use super::judge::Level;

/// How far an advice is, and since when.
pub(crate) type Standing = (AdviceState, OffsetDateTime);

/// What becomes of it at this look.
pub(crate) fn step(
    before: Option<Standing>,
    level: Level,
    now: OffsetDateTime,
    hold: Duration,
) -> Option<Standing> {
    use AdviceState::{Falling, Open, Rising};
    let long = |since: OffsetDateTime| now - since >= hold;
    match (before, level) {
        (None, Level::Above) if hold.is_zero() => Some((Open, now)),
        (None, Level::Above) => Some((Rising, now)),
        (Some((Rising, since)), Level::Above) if long(since) => Some((Open, now)),
        (Some((Rising, since)), Level::Above) => Some((Rising, since)),
        (None | Some((Rising, _)), Level::Below | Level::Between) => None,
        (Some((Open, _)), Level::Below) if hold.is_zero() => None,
        (Some((Open, _)), Level::Below) => Some((Falling, now)),
        (Some((Falling, since)), Level::Below) if long(since) => None,
        (Some((Falling, since)), Level::Below) => Some((Falling, since)),
        (Some((Open, since)), _) => Some((Open, since)),
        (None | Some((Rising, _)), Level::Required) | (Some((Falling, _)), _) => Some((Open, now)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn level() -> impl Strategy<Value = Level> {
        prop_oneof![Just(Level::Below), Just(Level::Between), Just(Level::Above)]
    }

    fn proposed(standing: Option<Standing>) -> bool {
        standing.is_some_and(|(state, _)| state != AdviceState::Rising)
    }

    proptest! {
        /// An operator who is told "move it", "leave it", "move it" within a day stops listening.
        #[test]
        fn proposals_do_not_flip(looks in prop::collection::vec((level(), 1_i64..90), 1..60)) {
            let hold = Duration::minutes(60);
            let mut now = OffsetDateTime::UNIX_EPOCH;
            let (mut standing, mut turned) = (None, None);
            for (level, minutes) in looks {
                now += Duration::minutes(minutes);
                let next = step(standing, level, now, hold);
                if proposed(next) != proposed(standing) {
                    prop_assert!(level != Level::Between, "the middle changes nothing");
                    if let Some(last) = turned.replace(now) {
                        prop_assert!(now - last >= hold, "turned at {last} and {now}");
                    }
                }
                standing = next;
            }
        }
    }

    /// A tenant whose law has changed must not wait for a statistic.
    #[test]
    fn a_rule_needs_no_time() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let hold = Duration::hours(1);
        let open = Some((AdviceState::Open, now));
        assert_eq!(step(None, Level::Required, now, hold), open);
        assert_eq!(step(open, Level::Below, now, Duration::ZERO), None);
    }
}
