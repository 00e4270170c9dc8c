//! The ready file: what a started platform tells about itself. Written by `waangu up`, read by the
//! command line and by outside checks. The form is a contract (architecture §5).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The ready file. It holds secrets: mode 0600.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// Version of this form.
    pub version: u32,
    /// Process id of `waangu up`.
    pub pid: u32,
    /// The gateway's root address.
    pub gateway: String,
    /// The common API address.
    pub api: String,
    /// The built-in directory's address, its OIDC issuer.
    pub login: String,
    /// The domain whose sub-domains are tenants.
    pub domain: String,
    /// The local CA's certificate.
    pub ca: PathBuf,
    /// The admin API.
    pub admin: Admin,
    /// The control database.
    pub control_dsn: String,
    /// The cells.
    pub cells: Vec<ReadyCell>,
    /// The demo fleet, when it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub demo: Option<Demo>,
}

/// Where operators go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admin {
    /// `https://…/admin/v1`.
    pub url: String,
    /// The operator's bearer token.
    pub token: String,
}

/// A cell with its logins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyCell {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub region: String,
    /// The administrator's DSN.
    pub superuser_dsn: String,
    /// Each module's own DSN, as a compromised module would hold it.
    pub module_dsns: BTreeMap<String, String>,
}

/// The demo fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demo {
    /// The password of every demo user.
    pub password: String,
    /// Its tenants.
    pub tenants: Vec<DemoTenant>,
}

/// A demo tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemoTenant {
    /// Its slug.
    pub slug: String,
    /// Its tier.
    pub tier: String,
    /// Its users.
    pub users: Vec<DemoUser>,
}

/// A demo user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemoUser {
    /// What to sign in with, `name@slug`.
    pub username: String,
    /// Its roles.
    pub roles: Vec<String>,
}
