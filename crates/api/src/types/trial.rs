//! A dry run of onboarding.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::PlacementView;

/// Whether a request is made for its checks alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Check all, change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// In a dry run: the country of a parent that does not exist yet and that the body leaves out.
    pub parent_country: Option<String>,
}

/// What a dry run found: the tenant could be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rehearsed {
    /// Where its data would live, with the reasons.
    pub placement: PlacementView,
}
