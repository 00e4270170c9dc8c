//! Module versions on their way through the environments.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// The version of [`PromotionRecord`] that this program knows.
pub const RECORD_VERSION: u32 = 1;

/// `POST /promotions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Promote {
    /// The module.
    pub module: String,
    /// The version; left out: the newest that the environment before has run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The environment that may receive it.
    pub to: String,
}

/// What an installation knows of versions and environments; also the file that installations of
/// different environments hand to each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PromotionRecord {
    /// The version of this document: 1.
    pub version: u32,
    /// The environment of the installation that wrote it.
    pub environment: String,
    /// What ran where.
    pub runs: Vec<RunView>,
    /// What may go where.
    pub promotions: Vec<PromotionView>,
    /// Versions at hand here that this environment may not receive yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<WaitingView>,
}

/// A version that an environment has run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunView {
    /// The environment.
    pub environment: String,
    /// The module.
    pub module: String,
    /// The version.
    pub version: String,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
}

/// A version that an environment may receive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PromotionView {
    /// The environment.
    pub environment: String,
    /// The module.
    pub module: String,
    /// The version.
    pub version: String,
    /// Who said so.
    pub actor: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// A version that is at hand and waits for its promotion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WaitingView {
    /// The module.
    pub module: String,
    /// The version.
    pub version: String,
}
