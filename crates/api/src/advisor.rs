//! The advisor: what tenants use, and where they would be better off.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::world::{PolicySpec, ThresholdSpec};

/// What the advisor has to say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AdvisorView {
    /// What follows from a proposal if no other policy names the tenant: `propose`, nothing is moved
    /// until an operator does it; or `move`.
    pub policy: String,
    /// The policies that hold.
    pub policies: Vec<PolicySpec>,
    /// From how much use on a tier is proposed.
    pub thresholds: Vec<ThresholdSpec>,
    /// The newest look at all tenants; none, if there was none yet.
    pub round: Option<AdvisorRoundView>,
    /// Proposals, one for each tenant at most: the strongest tier.
    pub items: Vec<AdviceView>,
    /// Whether there are more than are shown.
    pub more: bool,
    /// What the advisor has done by itself in the last month, the newest first; at most 20.
    pub acts: Vec<ActView>,
}

/// A proposal that the advisor has followed by itself, or could not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActView {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The tenant's slug.
    pub tenant: String,
    /// To which tier.
    pub tier: String,
    /// To which cell.
    pub cell: String,
    /// `compliance`, `volume`, `traffic`, `sla`.
    pub criteria: Vec<String>,
    /// The policies that it counts for.
    pub policies: Vec<String>,
    /// The move; none if it was refused.
    pub relocation: Option<String>,
    /// The phase of the move, or `refused`.
    pub outcome: String,
    /// Why it was refused, or what the move failed of.
    pub error: Option<String>,
}

/// A look at all tenants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdvisorRoundView {
    /// Its number; later ones are higher.
    pub id: i64,
    /// Who asked for it.
    pub wanted_by: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub wanted_at: OffsetDateTime,
    /// When it was over.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
    /// What it cost.
    pub cost: AdvisorCost,
    /// Cells that did not answer, and why.
    pub error: Option<String>,
}

/// What a look at all tenants cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdvisorCost {
    /// Cells that were measured.
    pub cells: i64,
    /// Tenants that were judged.
    pub tenants: i64,
    /// Queries to cells.
    pub queries: i64,
    /// Pages of 8 KiB that were read of shared tables.
    pub pages: i64,
    /// Milliseconds.
    pub ms: i64,
}

/// A place where a tenant would be better off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdviceView {
    /// The tenant's slug.
    pub tenant: String,
    /// Its tier now.
    pub tier_now: String,
    /// Its cell now.
    pub cell_now: String,
    /// The better tier.
    pub tier: String,
    /// The cell for it; none, if no cell would take it.
    pub cell: Option<String>,
    /// `rising`: not long enough yet to be proposed; `open`: proposed; `falling`: about to be taken back.
    pub state: String,
    /// Since when it is in this state.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// `compliance`, `volume`, `traffic`, `sla`.
    pub criteria: Vec<String>,
    /// What was seen.
    pub evidence: Vec<String>,
    /// Why that cell, or why none.
    pub reasons: Vec<String>,
    /// When it was last looked at.
    #[serde(with = "time::serde::rfc3339")]
    pub seen_at: OffsetDateTime,
    /// Why the tenant is not moved by itself now; none if it is about to be.
    pub held: Option<String>,
}

/// What a tenant uses, and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantAdvice {
    /// The tenant's slug.
    pub tenant: String,
    /// Its tier.
    pub tier: String,
    /// Its cell.
    pub cell: String,
    /// When bytes and rows were measured.
    #[serde(with = "time::serde::rfc3339::option")]
    pub measured_at: Option<OffsetDateTime>,
    /// What it uses, beside the bounds of the tiers above its own.
    pub figures: Vec<FigureView>,
    /// All advice, also such that has not held long enough to be proposed; the strongest tier first.
    pub items: Vec<AdviceView>,
}

/// What a tenant uses, beside a bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FigureView {
    /// The tier that is proposed from the bound on.
    pub tier: String,
    /// `bytes`, `rows`, `requests_per_minute` or `database_ms_per_minute`.
    pub name: String,
    /// How much it is.
    pub value: i64,
    /// The bound.
    pub bound: i64,
}
