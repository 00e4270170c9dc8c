//! Goals, and the exit code that follows from them (architecture §5).

use std::process::ExitCode;

use serde::Serialize;

/// Exit code when a goal is missed.
const MISSED: u8 = 3;

/// A number with its limit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Goal {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    /// What was measured.
    pub(crate) value: f64,
    /// What it is held against; to reach it exactly is to meet the goal.
    pub(crate) limit: f64,
    pub(crate) higher_is_better: bool,
}

impl Goal {
    /// Met by values up to the limit.
    pub(crate) fn at_most(name: String, unit: &'static str, value: f64, limit: f64) -> Self {
        Self {
            name,
            unit,
            value,
            limit,
            higher_is_better: false,
        }
    }

    /// Whether it is met. What is not a number meets nothing.
    pub(crate) fn is_met(&self) -> bool {
        if self.higher_is_better {
            self.value >= self.limit
        } else {
            self.value <= self.limit
        }
    }
}

/// The last line of a bench.
pub(crate) fn closing_line(goals: &[Goal]) -> String {
    let met = goals.iter().filter(|goal| goal.is_met()).count();
    format!("goals: {met} met, {} missed", goals.len() - met)
}

/// Success only when every goal is met.
pub(crate) fn exit_code(goals: &[Goal]) -> ExitCode {
    if goals.iter().all(Goal::is_met) {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(MISSED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_most(value: f64) -> Goal {
        Goal::at_most("a".to_owned(), "s", value, 10.0)
    }

    fn at_least(value: f64) -> Goal {
        Goal {
            higher_is_better: true,
            ..at_most(value)
        }
    }

    #[test]
    fn the_direction_counts_and_the_limit_itself_is_good_enough() {
        assert!(at_most(9.9).is_met());
        assert!(at_most(10.0).is_met());
        assert!(!at_most(10.1).is_met());
        assert!(!at_least(9.9).is_met());
        assert!(at_least(10.0).is_met());
        assert!(at_least(10.1).is_met());
    }

    /// A ratio of nothing by nothing must not pass for a success.
    #[test]
    fn what_is_not_a_number_is_missed() {
        assert!(!at_most(f64::NAN).is_met());
        assert!(!at_least(f64::NAN).is_met());
    }

    #[test]
    fn one_missed_goal_decides_the_exit_code() {
        let (good, bad) = (at_most(1.0), at_most(11.0));
        // `ExitCode` can't be compared; its debug form shows the number.
        let code = |goals: &[Goal]| format!("{:?}", exit_code(goals));
        assert_eq!(
            code(&[good.clone(), good.clone()]),
            format!("{:?}", ExitCode::SUCCESS)
        );
        assert_eq!(
            code(&[good.clone(), bad.clone()]),
            format!("{:?}", ExitCode::from(3))
        );
        assert_eq!(closing_line(&[good, bad]), "goals: 1 met, 1 missed");
    }
}
