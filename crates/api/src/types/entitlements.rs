//! Flags, limits and plans on the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A flag or limit that may have a value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeclarationView {
    /// Its key: `module.key`, or one of the platform's own without a dot.
    pub key: String,
    /// `bool`, `number`, `string`, `json` or `limit`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The value of a tenant for whom nobody said anything.
    pub default: serde_json::Value,
    /// What a limit counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// For people.
    pub description: String,
}

/// A flag or limit of a tenant, with what it comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EntitlementView {
    /// Its key.
    pub key: String,
    /// `bool`, `number`, `string`, `json` or `limit`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its value; null for a limit that there is not.
    pub value: serde_json::Value,
    /// `default`, `plan`, `profile` or `override`, the weakest first.
    pub origin: String,
}

/// `PUT /tenants/{slug}/entitlements/{key}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutEntitlement {
    /// The new value.
    pub value: serde_json::Value,
}

/// What tenants subscribe to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlanView {
    /// Its id.
    pub id: String,
    /// Title by language.
    pub title: BTreeMap<String, String>,
    /// The flags and limits it gives.
    pub entitlements: BTreeMap<String, serde_json::Value>,
    /// How many live tenants have it.
    pub tenants: i64,
}

/// `PUT /plans/{id}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutPlan {
    /// Title by language.
    #[serde(default)]
    pub title: BTreeMap<String, String>,
    /// The flags and limits it gives; they replace the old ones.
    #[serde(default)]
    pub entitlements: BTreeMap<String, serde_json::Value>,
}
