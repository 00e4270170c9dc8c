//! Commands about all tenants at once.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum FleetCommand {
    /// Tenants, cells, versions and rollouts at a glance.
    Status,
    /// Bring a module's installed version to all tenants, wave by wave.
    Upgrade(FleetUpgrade),
    /// The newest rollouts.
    List,
    /// One rollout, with what has failed and why.
    Show {
        /// The rollout.
        id: String,
    },
    /// Hold a rollout; what is in hand is finished.
    Pause {
        /// The rollout.
        id: String,
    },
    /// Let a paused rollout go on.
    Resume {
        /// The rollout.
        id: String,
    },
    /// Give a rollout up; who has the version keeps it.
    Cancel {
        /// The rollout.
        id: String,
    },
    /// Try again what has failed.
    Retry {
        /// The rollout.
        id: String,
    },
    /// Compare all cells with what is wanted there, and mend what loses no data.
    Repair {
        /// Only say what has drifted.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct FleetUpgrade {
    /// The module.
    pub(crate) module: String,
    /// A tenant that goes first; may be repeated.
    #[arg(long = "canary", value_name = "SLUG")]
    pub(crate) canaries: Vec<String>,
    /// Percentages that end the waves.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "PERCENT",
        default_value = "1,10,100"
    )]
    pub(crate) waves: Vec<i32>,
    /// Stop when more than this share of a wave has failed.
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = percent)]
    pub(crate) stop_on: i32,
    /// Wait until it is over, or stops.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Only say what would be done.
    #[arg(long, conflicts_with = "wait")]
    pub(crate) dry_run: bool,
}

/// `5` or `5%`.
fn percent(text: &str) -> Result<i32, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    match number.parse() {
        Ok(percent @ 0..=100) => Ok(percent),
        _ => Err("a percentage from 0 to 100, such as 5%".to_owned()),
    }
}
