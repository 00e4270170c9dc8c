//! Wire types of `/admin/v1/tenants/{slug}/relocations`.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// `POST /tenants/{slug}/relocations`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartRelocation {
    /// The isolation model: `shared`, `schema` or `dedicated`; the one it has if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// The cell; chosen as for a new tenant if not given, its own if that may keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell: Option<String>,
    /// The region; the cell is chosen there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Back to where the last move came from, while what it left there is kept.
    #[serde(default)]
    pub back: bool,
    /// Longest time that the tenant's writers wait at a stretch, in milliseconds: 50 to 4,000; 500 if
    /// not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pause_ms: Option<i32>,
    /// Bytes copied in a second, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<i64>,
    /// Why, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Answers plan and checks, and does nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// A place that a tenant is at, or goes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlaceView {
    /// The cell.
    pub cell: String,
    /// The isolation model.
    pub tier: String,
    /// The database there.
    pub database: String,
}

/// A move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RelocationView {
    /// Its id, `mov_…`; none of a dry run.
    pub id: Option<String>,
    /// The tenant's slug.
    pub tenant: String,
    /// Where it was.
    pub from: PlaceView,
    /// Where it goes.
    pub to: PlaceView,
    /// `draft`, `queued`, `copying`, `following`, `switching`, `finishing`, `undoing`, `done`,
    /// `cancelled` or `failed`. Its commit point lies between `following` and `switching`.
    pub phase: String,
    /// Why that place.
    pub reasons: Vec<String>,
    /// Why at all.
    pub why: Option<String>,
    /// Who wanted it.
    pub actor: String,
    /// Longest time that writers wait at a stretch, in milliseconds.
    pub max_pause_ms: i32,
    /// Bytes copied in a second, at most.
    pub rate: Option<i64>,
    /// Whether somebody wants it undone.
    pub cancel_wanted: bool,
    /// The table in hand.
    pub table: Option<String>,
    /// Rows copied; of a dry run, those there are.
    pub rows: i64,
    /// Bytes of them.
    pub bytes: i64,
    /// Bytes there are to copy, about.
    pub total_bytes: Option<i64>,
    /// Bytes of the source's log that are still to be followed.
    pub lag_bytes: Option<i64>,
    /// Seconds until the end, about.
    pub eta_seconds: Option<f64>,
    /// Milliseconds for which writers were kept waiting at the commit point.
    pub pause_ms: Option<f64>,
    /// Attempts that failed.
    pub attempts: i32,
    /// What the last one failed of.
    pub error: Option<String>,
    /// What was looked at beforehand; of a dry run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckView>,
    /// What has happened.
    pub trail: Vec<RelocationEventView>,
    /// When it was wanted.
    #[serde(with = "time::serde::rfc3339::option")]
    pub created_at: Option<OffsetDateTime>,
    /// When its work began.
    #[serde(with = "time::serde::rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When gateways were told of the new place.
    #[serde(with = "time::serde::rfc3339::option")]
    pub switched_at: Option<OffsetDateTime>,
    /// Its end.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
    /// Until when `back` leads to what was left at the old place.
    #[serde(with = "time::serde::rfc3339::option")]
    pub clean_at: Option<OffsetDateTime>,
    /// When that was removed.
    #[serde(with = "time::serde::rfc3339::option")]
    pub cleaned_at: Option<OffsetDateTime>,
    /// Whether the rows were at the new place still, so that none is copied; of a dry run, whether they are.
    #[serde(default)]
    pub adopted: bool,
    /// What `back` would be, while what was left at the old place is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way_back: Option<WayBackView>,
}

/// The way back from a move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WayBackView {
    /// `changes` when what has changed since would be brought, `copy` when all rows would.
    pub brings: String,
    /// Bytes of the new place's log that are held back for it, as last seen.
    pub held_bytes: Option<i64>,
    /// Until when.
    #[serde(with = "time::serde::rfc3339")]
    pub until: OffsetDateTime,
}

/// One thing that was looked at before a move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckView {
    /// What.
    pub check: String,
    /// Whether it allows the move.
    pub fine: bool,
    /// What was found.
    pub found: String,
}

/// One thing that happened to a move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RelocationEventView {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// In which phase.
    pub phase: String,
    /// For people.
    pub message: String,
}

impl RelocationView {
    /// Whether nothing goes on by itself any more.
    pub fn is_over(&self) -> bool {
        matches!(
            self.phase.as_str(),
            "draft" | "done" | "cancelled" | "failed"
        )
    }
}
