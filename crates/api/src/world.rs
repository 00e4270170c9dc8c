//! The declared world: what `fleet/*.toml` holds, and what `GET` and `PUT /world` speak.
//!
//! Invariants: a file has any of the sections, and the sections of all files together are one world;
//! an option that is left out of an entry is either its documented default, or, where it says so, not
//! declared: then it stays as it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

/// The version of this document that this program knows.
pub const WORLD_VERSION: u32 = 1;

/// Environments, regions, countries, profiles and cells.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct World {
    /// The version of this document: 1.
    pub version: u32,
    /// In the order of promotion.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<EnvironmentSpec>,
    /// Places with a provider.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<RegionSpec>,
    /// Countries with their residency rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub countries: Vec<CountrySpec>,
    /// Sector blueprints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<ProfileSpec>,
    /// PostgreSQL servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cells: Vec<CellSpec>,
    /// From how much use on the advisor proposes another tier.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub thresholds: Vec<ThresholdSpec>,
    /// What may follow from a proposal of the advisor by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advisor: Vec<PolicySpec>,
}

impl World {
    /// Takes in what another file declares.
    pub fn merge(&mut self, other: Self) {
        self.environments.extend(other.environments);
        self.regions.extend(other.regions);
        self.countries.extend(other.countries);
        self.profiles.extend(other.profiles);
        self.cells.extend(other.cells);
        self.thresholds.extend(other.thresholds);
        self.advisor.extend(other.advisor);
    }
}

/// An environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentSpec {
    /// `dev`, `test`, `preprod` or `prod`.
    pub id: String,
}

/// A region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegionSpec {
    /// Its id.
    pub id: String,
    /// `aws`, `azure`, `hetzner` or `dc`.
    pub provider: String,
    /// The country it stands in, ISO 3166-1 alpha-2.
    pub country: String,
    /// Its name for people.
    pub name: String,
}

/// A country and its residency rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CountrySpec {
    /// ISO 3166-1 alpha-2.
    pub code: String,
    /// Regions where its tenants may live, best first.
    pub regions: Vec<String>,
    /// Whether parents and sub-tenants may be in another country.
    #[serde(default)]
    pub kin_abroad: bool,
}

/// A sector blueprint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileSpec {
    /// Its id.
    pub id: String,
    /// Title by language.
    pub title: BTreeMap<String, String>,
    /// The isolation model that its tenants get: `shared`, `schema` or `dedicated`.
    pub tier: String,
    /// What they are promised: `standard`, or `high`, which needs the tier `dedicated`.
    #[serde(default = "standard")]
    pub sla: String,
    /// Whether data must stay in the tenant's own country.
    #[serde(default)]
    pub in_country: bool,
    /// Modules that are switched on at birth.
    pub modules: Vec<String>,
    /// Roles that the sector's people usually need, the first administrator's first.
    #[serde(default)]
    pub roles: Vec<String>,
    /// How long their audit is kept at least, in days; left out: for ever.
    #[serde(default)]
    pub retention_days: Option<i32>,
    /// Whether people need a second factor: `optional` or `required`.
    #[serde(default = "optional")]
    pub mfa: String,
    /// Which reports are made, how often.
    #[serde(default)]
    pub reports: Vec<ReportSpec>,
    /// Limits and flags by key.
    #[serde(default)]
    pub limits: BTreeMap<String, Value>,
}

/// A report that is made again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportSpec {
    /// What it tells, such as `audit`.
    pub kind: String,
    /// `day`, `week`, `month`, `quarter` or `year`.
    pub every: String,
}

/// A PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CellSpec {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub region: String,
    /// The best service level that it is run for: `standard` or `high`.
    #[serde(default = "standard")]
    pub sla: String,
    /// How many tenants it may hold.
    pub capacity: i32,
    /// How many bytes it may hold; left out: no bound.
    #[serde(default)]
    pub capacity_bytes: Option<i64>,
    /// How many connections it may have; left out: no bound.
    #[serde(default)]
    pub capacity_connections: Option<i32>,
    /// How many tenants one of its schema-tier databases may hold.
    #[serde(default = "bucket_limit")]
    pub bucket_limit: i32,
    /// Its environment; left out: not declared, at first this installation's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// `active`, `full`, `draining` or `down`; left out: not declared, at first `active`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Host name or address; left out: not declared, whoever starts the server fills it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// TCP port, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// From how much use on the advisor proposes a tier to tenants of weaker ones. A bound that is left out
/// plays no part; a tier that is not declared has the platform's own bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ThresholdSpec {
    /// The tier: `schema` or `dedicated`.
    pub id: String,
    /// Bytes on disk, with indexes.
    #[serde(default)]
    pub bytes: Option<i64>,
    /// Rows in all tables.
    #[serde(default)]
    pub rows: Option<i64>,
    /// Requests, on average over the window.
    #[serde(default)]
    pub requests_per_minute: Option<i64>,
    /// Milliseconds for which modules held database connections, on average over the window; 60000 is
    /// one connection that is never free.
    #[serde(default)]
    pub database_ms_per_minute: Option<i64>,
    /// The window, in hours: 1 to 720.
    #[serde(default = "window_hours")]
    pub window_hours: i32,
    /// How long a bound must be passed before the tier is proposed, and not passed any more before the
    /// proposal is taken back.
    #[serde(default = "hold_minutes")]
    pub hold_minutes: i32,
    /// Below this percentage of every bound it is not passed any more; between the two, nothing changes.
    #[serde(default = "release_percent")]
    pub release_percent: i32,
}

/// Whether, when and how often the advisor may move a tenant as it proposes. The entry `global` is about
/// everybody: its bounds hold for all moves of the advisor, and it says whether there are any. Whoever
/// is named by others (the tenant's profile; the cell and region where it lives, or would go) is moved
/// if all of those say so, whatever the global one says, within the bounds of each. What is not
/// declared is `global` with the defaults: nothing is moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicySpec {
    /// `global`, `region/ID`, `cell/ID` or `profile/ID`.
    pub id: String,
    /// `propose`, or `move`.
    #[serde(default = "propose")]
    pub act: String,
    /// The hour, in UTC, from which on a move may begin: 0 to 23.
    #[serde(default)]
    pub from_hour: i32,
    /// The hour at which none may begin any more; the same as `from_hour`: at any time.
    #[serde(default)]
    pub until_hour: i32,
    /// How many moves may begin within 24 hours.
    #[serde(default = "most_per_day")]
    pub most_per_day: i32,
    /// How many may be under way.
    #[serde(default = "most_at_once")]
    pub most_at_once: i32,
    /// How long a tenant is left alone after a move, whoever wanted it, in hours: 1 to 720.
    #[serde(default = "quiet_hours")]
    pub quiet_hours: i32,
}

fn propose() -> String {
    "propose".to_owned()
}

fn most_per_day() -> i32 {
    4
}

fn most_at_once() -> i32 {
    1
}

fn quiet_hours() -> i32 {
    168
}

fn window_hours() -> i32 {
    24
}

fn hold_minutes() -> i32 {
    60
}

fn release_percent() -> i32 {
    70
}

fn standard() -> String {
    "standard".to_owned()
}

fn optional() -> String {
    "optional".to_owned()
}

fn bucket_limit() -> i32 {
    400
}

/// How to apply a world.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ApplyQuery {
    /// Only say what would change.
    #[serde(default)]
    pub dry_run: bool,
    /// Remove what is not declared and not used.
    #[serde(default)]
    pub prune: bool,
}

/// What applying a world changes, or would.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorldDiff {
    /// Whether it has been done.
    pub applied: bool,
    /// One for each thing that differs.
    pub changes: Vec<WorldChange>,
    /// What follows from it that somebody should know.
    pub warnings: Vec<String>,
}

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorldChange {
    /// `add`, `change`, `remove`, or `extra`: in the registry, not declared, left alone.
    pub action: String,
    /// `environment`, `region`, `country`, `profile`, `cell`, `threshold` or `policy`.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// What differs about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
    /// What uses it, if it is to be removed or could be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used_by: Vec<String>,
}

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FieldChange {
    /// The field.
    pub field: String,
    /// Its value so far; null if the thing is new.
    pub old: Value,
    /// Its value from now on.
    pub new: Value,
}
