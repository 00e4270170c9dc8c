//! Wire types of `/admin/v1/fleet` and `/admin/v1/rollouts`.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// `POST /rollouts`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartRollout {
    /// The module whose installed package goes to all that stands on an older one.
    pub module: String,
    /// Growing percentages that end the waves, the last of which is 100; 1, 10, 100 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waves: Option<Vec<i32>>,
    /// Slugs of tenants that go first, in a wave of their own. One of the shared tier takes all tenants
    /// with it that share its tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub canaries: Vec<String>,
    /// The share of failures in a wave, in percent, beyond which the rollout stops; 5 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_on: Option<i32>,
    /// Answers what would be done, and does nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// A rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RolloutView {
    /// Its id, `rol_…`; none of a dry run.
    pub id: Option<String>,
    /// The module.
    pub module: String,
    /// The version that it brings.
    pub version: String,
    /// `draft`, `running`, `paused`, `stopped`, `succeeded`, `partial`, `cancelled` or `superseded`.
    pub state: String,
    /// Why it is not on its way.
    pub reason: Option<String>,
    /// The wave in hand.
    pub wave: i32,
    /// Its waves.
    pub waves: Vec<WaveView>,
    /// Namespaces in all.
    pub total: i64,
    /// Namespaces that have the version, or that nobody needs any more.
    pub done: i64,
    /// Namespaces that keep what they had.
    pub failed: i64,
    /// Namespaces in a second, of late.
    pub rate: Option<f64>,
    /// Seconds until the last one at this rate; none while too little has been seen to say so.
    pub eta_seconds: Option<f64>,
    /// Namespaces that have failed or wait for another try, at most 100.
    pub failures: Vec<FailureView>,
    /// What has happened.
    pub trail: Vec<RolloutEventView>,
    /// The share of failures in a wave, in percent, beyond which it stops.
    pub stop_on: i32,
    /// Who began it.
    pub actor: String,
    /// Its beginning.
    #[serde(with = "time::serde::rfc3339::option")]
    pub created_at: Option<OffsetDateTime>,
    /// Its end.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
}

/// A wave of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaveView {
    /// Its number; 0 are the canaries.
    pub wave: i32,
    /// The percentage of all namespaces that it reaches; none for the canaries.
    pub percent: Option<i32>,
    /// Its namespaces.
    pub namespaces: i64,
    /// Those that wait or are in hand.
    pub pending: i64,
    /// Those that have the version.
    pub done: i64,
    /// Those that keep what they had.
    pub failed: i64,
    /// Those that nobody needs any more.
    pub skipped: i64,
}

/// A namespace that could not be upgraded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailureView {
    /// Its cell.
    pub cell: String,
    /// Its tier.
    pub tier: String,
    /// Its tenant; none if it is shared.
    pub tenant: Option<String>,
    /// How often it was tried.
    pub attempts: i32,
    /// Whether it is tried again by itself.
    pub waiting: bool,
    /// Why it failed.
    pub error: String,
}

/// One thing that happened to a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RolloutEventView {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// For people.
    pub message: String,
}

/// The fleet at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FleetView {
    /// Tenants by cell, tier and state.
    pub tenants: Vec<TenantCountView>,
    /// Tenants that are not yet what is wanted.
    pub behind: i64,
    /// Since when somebody has been waiting for the oldest open operation.
    #[serde(with = "time::serde::rfc3339::option")]
    pub waiting_since: Option<OffsetDateTime>,
    /// Tenants whose last attempt failed, at most 50.
    pub failing: Vec<FailingTenantView>,
    /// Cells, as the answering control process sees them.
    pub cells: Vec<CircuitView>,
    /// Which versions stand in how many namespaces.
    pub namespaces: Vec<StandingView>,
    /// Rollouts that are not over.
    pub rollouts: Vec<RolloutView>,
    /// The newest look for drift.
    pub repair: Option<RepairView>,
    /// Packages that a control process brings along and can't install.
    #[serde(default)]
    pub refused: Vec<RefusedPackageView>,
}

/// A package that can't be installed; its module keeps the version that it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusedPackageView {
    /// The module.
    pub module: String,
    /// The version that is refused.
    pub version: String,
    /// The error code, such as `package-incompatible`.
    pub code: String,
    /// Why.
    pub reason: String,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
}

/// `POST /fleet/repairs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartRepair {
    /// Only tells what has drifted.
    #[serde(default)]
    pub dry_run: bool,
}

/// One look at all cells for what has drifted from what is wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RepairView {
    /// Its id, `rep_…`.
    pub id: String,
    /// `pending`, `running`, `succeeded` or `failed`.
    pub state: String,
    /// Whether it only tells.
    pub dry_run: bool,
    /// Who asked for it.
    pub actor: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Its end.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
    /// What was looked at, in numbers.
    pub summary: serde_json::Value,
    /// What was found.
    pub findings: Vec<FindingView>,
    /// Which cells could not be looked at, and why.
    pub error: Option<String>,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FindingView {
    /// Where.
    pub cell: String,
    /// In which database.
    pub database: String,
    /// What.
    pub object: String,
    /// What is the matter with it.
    pub found: String,
    /// What was done or, if nothing was, what a person can do.
    pub mend: String,
    /// Whether it was mended.
    pub mended: bool,
}

impl RepairView {
    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.finished_at.is_some()
    }
}

/// How many tenants are somewhere in some state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantCountView {
    /// The cell.
    pub cell: String,
    /// The tier.
    pub tier: String,
    /// The state.
    pub state: String,
    /// How many.
    pub tenants: i64,
}

/// A tenant whose last attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailingTenantView {
    /// The tenant.
    pub tenant: String,
    /// Its cell.
    pub cell: String,
    /// Failed attempts.
    pub attempts: i32,
    /// The last failure.
    pub error: String,
}

/// Whether a cell answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CircuitView {
    /// The cell.
    pub cell: String,
    /// `active`, `full`, `draining` or `down`, as an operator has set it.
    pub state: String,
    /// `closed` while it answers; `open` while it does not and is only probed.
    pub circuit: String,
    /// Since when it does not answer.
    #[serde(with = "time::serde::rfc3339::option")]
    pub since: Option<OffsetDateTime>,
    /// Probes that have failed.
    pub probes: u32,
    /// What the last probe said.
    pub cause: Option<String>,
}

/// How many namespaces stand on a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StandingView {
    /// The module.
    pub module: String,
    /// The version; none if it is not known.
    pub version: Option<String>,
    /// Whether new namespaces get it.
    pub current: bool,
    /// How many.
    pub namespaces: i64,
}

impl RolloutView {
    /// Whether something goes on by itself.
    pub fn is_running(&self) -> bool {
        self.state == "running"
    }

    /// Whether it holds its module.
    pub fn is_open(&self) -> bool {
        matches!(self.state.as_str(), "running" | "paused" | "stopped")
    }
}
