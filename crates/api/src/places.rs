//! Cells at work, placements explained, and how a tenant stands to its profile.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::types::{CellView, PlacementView};

/// What a cell held when it was last measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CellUsageView {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub measured_at: OffsetDateTime,
    /// All of its databases together.
    pub bytes: i64,
    /// Clients connected.
    pub connections: i32,
}

/// A cell that is being emptied, with what is still on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrainView {
    /// The cell.
    pub cell: CellView,
    /// How many tenants are still on it.
    pub remaining: i64,
    /// The first of them, with where each could go.
    pub tenants: Vec<DrainTenant>,
}

/// A tenant of a cell that is being emptied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrainTenant {
    /// Its slug.
    pub tenant: String,
    /// Its isolation model.
    pub tier: String,
    /// The cell that it moves to; none, if no cell may take it.
    pub target: Option<String>,
    /// Its move, `mov_…`.
    pub relocation: Option<String>,
    /// Why there, or why nowhere.
    pub reasons: Vec<String>,
}

/// Where a tenant's data lives, why, and where it would be placed today.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlacementExplained {
    /// As it was decided.
    #[serde(flatten)]
    pub placement: PlacementView,
    /// As it would be decided today; none for a tenant without a profile.
    pub today: Option<PlacementToday>,
}

/// A placement as it would be decided today.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlacementToday {
    /// The isolation model, and why that one.
    pub tier_reason: String,
    /// The cells that may take the tenant, best first.
    pub ranked: Vec<WeighedView>,
    /// The cells that may not.
    pub refused: Vec<WeighedView>,
    /// What would be decided otherwise than it was; empty if nothing.
    pub differences: Vec<String>,
}

/// A cell with what speaks for it, or against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WeighedView {
    /// The cell.
    pub cell: String,
    /// For people.
    pub reasons: Vec<String>,
}

/// One of a tenant's settings, and where its value comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SettingView {
    /// Which.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// `profile`; `override`, if somebody has said so for this tenant; or `birth`, if the profile has
    /// changed since.
    pub origin: String,
    /// What the profile gives.
    pub profile: Value,
}

/// `PUT /tenants/{slug}/settings/{key}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutSetting {
    /// The value for this tenant alone.
    pub value: Value,
}
