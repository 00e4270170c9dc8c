//! Service levels: what a tenant was promised, and what a cell is run for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fault::{self, Fault, excerpt};

/// A service level, the lesser first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sla {
    /// The ordinary promise.
    #[default]
    Standard,
    /// Nobody else's load may be felt: a database of its own, on a cell that is run for it.
    High,
}

impl Sla {
    /// The name in API and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::High => "high",
        }
    }
}

impl FromStr for Sla {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        [Self::Standard, Self::High]
            .into_iter()
            .find(|sla| sla.as_str() == text)
            .ok_or_else(|| {
                fault::INVALID_FIELD
                    .fault(format!(
                        "`{}` is not a service level: standard or high",
                        excerpt(text)
                    ))
                    .field("sla")
            })
    }
}

impl fmt::Display for Sla {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
