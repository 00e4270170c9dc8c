//! Wire types of `/admin/v1`. Strings where a domain type may be refused; the server parses them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use crate::places::{CellUsageView, SettingView};

mod entitlements;
mod trial;

pub use entitlements::{DeclarationView, EntitlementView, PlanView, PutEntitlement, PutPlan};
pub use trial::{Rehearsed, Trial};

/// `POST /tenants`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTenant {
    /// Its name in addresses: a lower-case DNS label.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// ISO 3166-1 alpha-2.
    pub country: String,
    /// The parent's slug.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The sector blueprint; `sme` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// `shared`, `schema` or `dedicated`; the profile's if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// `standard` or `high`; the profile's if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sla: Option<String>,
    /// Modules to switch on; the profile's if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules: Option<Vec<String>>,
    /// What it subscribes to; nothing if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Flags and limits of its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub entitlements: BTreeMap<String, serde_json::Value>,
}

/// `PATCH /tenants/{slug}`. Fields left out stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchTenant {
    /// A new name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A new parent's slug; an empty text makes it a root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// What it subscribes to from now on; an empty text takes its plan away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
}

/// Where a tenant's data lives, and why there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlacementView {
    /// The cell.
    pub cell: String,
    /// The region that the cell stands in.
    pub region: String,
    /// The isolation model.
    pub tier: String,
    /// The database in the cell.
    pub database: String,
    /// Grows by one at each move.
    pub epoch: i64,
    /// Why there.
    pub reasons: Vec<String>,
}

/// A module of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActivationView {
    /// The module.
    pub module: String,
    /// The version in use.
    pub version: String,
    /// Whether it is switched on.
    pub enabled: bool,
    /// Whether the tenant's place is ready for it.
    pub ready: bool,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TenantView {
    /// Its id, `ten_…`.
    pub id: String,
    /// Its name in addresses.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// ISO 3166-1 alpha-2.
    pub country: String,
    /// The parent's slug.
    pub parent: Option<String>,
    /// The blueprint.
    pub profile: Option<String>,
    /// What it subscribes to.
    pub plan: Option<String>,
    /// `provisioning`, `active`, `suspended`, `deleting`.
    pub state: String,
    /// Where its data lives.
    pub placement: PlacementView,
    /// Its modules.
    pub modules: Vec<ActivationView>,
    /// Its flags and limits that are not the default, with what each comes from.
    pub entitlements: Vec<EntitlementView>,
    /// What its profile gives, and where it differs.
    pub settings: Vec<SettingView>,
    /// Version of what is wanted of the cells.
    pub generation: i64,
    /// The last failure of the reconciler.
    pub last_error: Option<String>,
    /// Its birth.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Its address.
    pub url: String,
}

/// One page of tenants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TenantList {
    /// The tenants.
    pub items: Vec<TenantView>,
    /// Send it as `cursor` to get the next page.
    pub next: Option<String>,
}

/// Which page.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Where the page before ended.
    pub cursor: Option<String>,
    /// How many, 1 to 200.
    pub limit: Option<i64>,
}

/// A long-running change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationView {
    /// Its id, `op_…`.
    pub id: String,
    /// The tenant it changes.
    pub tenant: String,
    /// What it is.
    pub kind: String,
    /// `pending`, `running`, `succeeded` or `failed`.
    pub status: String,
    /// The step in hand.
    pub step: String,
    /// Estimate of the way done, 0 to 100.
    pub percent: i32,
    /// The last failure.
    pub error: Option<String>,
    /// Its beginning.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Its end.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
}

impl OperationView {
    /// Whether nothing more will happen.
    pub fn is_final(&self) -> bool {
        matches!(self.status.as_str(), "succeeded" | "failed")
    }
}

/// The answer to a change that takes time: the operation, and the place that was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Accepted {
    /// The operation; also at `Location`.
    #[serde(flatten)]
    pub operation: OperationView,
    /// Where the tenant's data lives or will live, with the reasons.
    pub placement: PlacementView,
}

/// One event of an operation; the `data` of a server-sent event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationEventView {
    /// Its number; the SSE `id`.
    pub seq: i32,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The step.
    pub step: String,
    /// Estimate of the way done.
    pub percent: i32,
    /// For people.
    pub message: String,
}

/// `POST /tenants/{slug}/users`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    /// Its name within the tenant.
    pub username: String,
    /// Its name for people; the username if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Its password; one is made and answered once if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Its roles.
    #[serde(default)]
    pub roles: Vec<String>,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserView {
    /// Its id, `usr_…`.
    pub id: String,
    /// Its name within the tenant; people sign in as `username@slug`.
    pub username: String,
    /// Its name for people.
    pub display_name: String,
    /// Whether it is kept from signing in.
    pub disabled: bool,
    /// Its roles.
    pub roles: Vec<String>,
    /// Answered once, when the platform made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// `PUT /tenants/{slug}/users/{username}/roles`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutRoles {
    /// The new roles; they replace the old ones.
    pub roles: Vec<String>,
}

/// A list without pages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct List<T> {
    /// The items.
    pub items: Vec<T>,
}

/// An installed module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModuleView {
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: String,
    /// Title by language.
    pub title: BTreeMap<String, String>,
    /// Modules that must be active beside it.
    pub depends: Vec<String>,
    /// Its roles, by full name.
    pub roles: Vec<String>,
    /// Its permissions.
    pub permissions: Vec<String>,
}

/// A cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CellView {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub region: String,
    /// `dev`, `test`, `preprod` or `prod`.
    pub environment: String,
    /// `active`, `full`, `draining` or `down`.
    pub state: String,
    /// The best service level that it is run for.
    pub sla: String,
    /// How many tenants it may hold.
    pub capacity: i32,
    /// How many bytes it may hold, if there is a bound.
    pub capacity_bytes: Option<i64>,
    /// How many connections it may have, if there is a bound.
    pub capacity_connections: Option<i32>,
    /// How many tenants one of its schema-tier databases may hold.
    pub bucket_limit: i32,
    /// How many it holds.
    pub tenants: i64,
    /// What it held when it was last measured.
    pub usage: Option<CellUsageView>,
    /// Whether this installation has its administrator's login; else it takes no tenants.
    pub configured: bool,
}

/// A region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegionView {
    /// Its id.
    pub id: String,
    /// Who runs it.
    pub provider: String,
    /// The country it stands in.
    pub country: String,
    /// Its name.
    pub name: String,
}

/// A country and its residency rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CountryView {
    /// ISO 3166-1 alpha-2.
    pub code: String,
    /// Its name.
    pub name: String,
    /// Regions where its tenants may live, best first.
    pub regions: Vec<String>,
    /// Whether parents and sub-tenants may be in another country.
    pub kin_abroad: bool,
}

/// An environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnvironmentView {
    /// `dev`, `test`, `preprod` or `prod`.
    pub id: String,
    /// Whether this installation is it.
    pub current: bool,
}

/// One act in the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditView {
    /// Its number.
    pub id: i64,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// The tenant's slug at that time.
    pub tenant: Option<String>,
    /// More.
    pub detail: serde_json::Value,
}

/// Which acts.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Only this tenant's.
    pub tenant: Option<String>,
    /// Only those before this number.
    pub before: Option<i64>,
    /// How many, 1 to 500.
    pub limit: Option<i64>,
}

/// One of the gateway's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyView {
    /// Its id.
    pub id: String,
    /// `context` (signs what modules are told) or `proof` (makes what PostgreSQL checks).
    pub kind: String,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created: OffsetDateTime,
    /// `next`, `current` or `retiring`.
    pub state: String,
    /// Since when it is in this state.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
}

/// A rotation that has not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RotationView {
    /// Its id.
    pub id: String,
    /// Which key is replaced.
    pub kind: String,
    /// Who wants it.
    pub wanted_by: String,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub wanted_at: OffsetDateTime,
    /// What it waits for, if the last step failed.
    pub problem: Option<String>,
}

/// The gateway's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyList {
    /// All that are accepted or soon will be, the oldest of each kind first.
    pub items: Vec<KeyView>,
    /// What is being replaced.
    pub rotations: Vec<RotationView>,
}

/// Which key to replace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateKeys {
    /// `context`, `proof` or `all`.
    pub kind: String,
}
