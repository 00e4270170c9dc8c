//! Permissions and roles.
//!
//! A permission is `module:object.action`, such as `inventory:product.write`. A role is a named set
//! of permissions: `module.role` from a module's manifest, or one of the platform's own.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fault::{self, Fault, excerpt};
use crate::name::ModuleId;

/// The role that holds every permission of every module of its own tenant.
pub const TENANT_ADMIN: &str = "tenant-admin";

/// One thing that may be done in one module.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Permission(Box<str>);

impl Permission {
    /// The whole text, `module:object.action`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the colon.
    pub fn module(&self) -> &str {
        self.0.split_once(':').map_or("", |(module, _)| module)
    }
}

impl FromStr for Permission {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let word = |w: &str| {
            !w.is_empty()
                && w.len() <= 40
                && w.chars()
                    .all(|c| c.is_ascii_lowercase() || c == '-' || c == '_')
        };
        let parts = text
            .split_once(':')
            .and_then(|(m, rest)| Some((m, rest.split_once('.')?)));
        match parts {
            Some((module, (object, action)))
                if module.parse::<ModuleId>().is_ok() && word(object) && word(action) =>
            {
                Ok(Self(text.into()))
            }
            _ => Err(fault::INVALID_FIELD
                .fault(format!(
                    "`{}` is not a permission (module:object.action)",
                    excerpt(text)
                ))
                .field("permission")),
        }
    }
}

impl TryFrom<String> for Permission {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        text.parse()
    }
}

impl From<Permission> for String {
    fn from(permission: Permission) -> Self {
        permission.0.into()
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A role's name: `tenant-admin` or `module.role`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoleName(Box<str>);

impl RoleName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RoleName {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let fine = (1..=80).contains(&text.len())
            && text
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.');
        if fine {
            Ok(Self(text.into()))
        } else {
            Err(fault::ROLE_UNKNOWN
                .fault(format!(
                    "`{}` is not a role name (`tenant-admin` or `module.role`)",
                    excerpt(text)
                ))
                .field("role"))
        }
    }
}

impl TryFrom<String> for RoleName {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        text.parse()
    }
}

impl From<RoleName> for String {
    fn from(role: RoleName) -> Self {
        role.0.into()
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
