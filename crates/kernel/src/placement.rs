//! Where a tenant's data lives.
//!
//! Invariant: a placement's database and schemas follow from tier, tenant number and bucket alone
//! (architecture §5), so that a crashed provisioning step can be repeated without remembering names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fault::{self, Fault, excerpt};
use crate::id::TenantId;
use crate::name::{CellId, ModuleId, Slug};

/// The database that all tenants of the shared tier of a cell share.
pub const SHARED_DATABASE: &str = "waangu";

/// The isolation model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Shared tables with row-level security.
    Shared,
    /// Schemas of its own in a shared bucket database.
    Schema,
    /// A database of its own.
    Dedicated,
}

impl Tier {
    /// All tiers, in growing isolation.
    pub const ALL: [Self; 3] = [Self::Shared, Self::Schema, Self::Dedicated];

    /// The name in API, SQL and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Schema => "schema",
            Self::Dedicated => "dedicated",
        }
    }
}

impl FromStr for Tier {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        Self::ALL
            .into_iter()
            .find(|tier| tier.as_str() == text)
            .ok_or_else(|| {
                fault::TIER_UNKNOWN
                    .fault(format!(
                        "`{}` is not a tier; use shared, schema or dedicated",
                        excerpt(text)
                    ))
                    .field("tier")
            })
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Tenants of one subtree that live side by side: what a head office's request visits. Short, because
/// a request's context carries all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The cell that holds their data.
    pub cell: CellId,
    /// Their isolation model.
    pub tier: Tier,
    /// Number of the schema-tier bucket database; 0 in the other tiers.
    #[serde(default)]
    pub bucket: i32,
    /// The tenants with their slugs, so that one that can't answer can be named.
    pub tenants: Vec<(TenantId, Slug)>,
}

impl Place {
    /// How many transactions it takes to read all of them: one where they share tables, else one
    /// for each.
    pub fn visits(&self) -> usize {
        match self.tier {
            Tier::Shared => 1,
            Tier::Schema | Tier::Dedicated => self.tenants.len(),
        }
    }
}

/// One tenant's home: which cell, which isolation model, and which version of that decision.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Placement {
    /// The cell that holds the data.
    pub cell: CellId,
    /// The isolation model.
    pub tier: Tier,
    /// Number of the schema-tier bucket database; 0 in the other tiers.
    #[serde(default)]
    pub bucket: i32,
    /// Grows by one at each move; a database accepts only the epoch it knows.
    pub epoch: i64,
}

impl Placement {
    /// The database that holds this tenant's rows.
    pub fn database(&self, tenant: TenantId) -> String {
        match self.tier {
            Tier::Shared => SHARED_DATABASE.to_owned(),
            Tier::Schema => format!("waangu_schema_{}", self.bucket),
            Tier::Dedicated => format!("waangu_t_{}", tenant.number()),
        }
    }

    /// The schema that holds one module's tables of this tenant.
    pub fn schema(&self, tenant: TenantId, module: &ModuleId) -> String {
        match self.tier {
            Tier::Shared | Tier::Dedicated => module.to_string(),
            Tier::Schema => format!("t_{}_{module}", tenant.number()),
        }
    }
}
