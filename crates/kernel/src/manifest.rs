//! `module.toml`: what a module declares about itself.
//!
//! Invariants of a parsed manifest: every permission, role and route belongs to the module itself,
//! every route names a declared permission, every role holds declared permissions only; a route that
//! reads a whole subtree can't write.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::entitlement::{self, Flag, Limit};
use crate::fault::{self, Fault};
use crate::name::ModuleId;
use crate::permission::Permission;

/// A module's declaration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The module's id.
    pub id: ModuleId,
    /// Its version, SemVer.
    pub version: String,
    /// Its title by language (`fr`, `en`).
    pub title: BTreeMap<String, String>,
    /// Modules that must be active beside it.
    #[serde(default)]
    pub depends: Vec<ModuleId>,
    /// What may be done in it, with a sentence for people.
    pub permissions: BTreeMap<Permission, String>,
    /// Named sets of permissions; the role's full name is `<module>.<key>`.
    pub roles: BTreeMap<String, Vec<Permission>>,
    /// Its HTTP surface below `/api/<module>`.
    pub routes: Vec<Route>,
    /// Tables that may only grow: the module's login gets SELECT and INSERT, never UPDATE or DELETE.
    #[serde(default)]
    pub append_only: Vec<String>,
    /// Whether this release removes what the previous one does not use any more (contract). It is
    /// installed only when every tenant has the previous one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub contract: bool,
    /// Constraints that this release replaces by wider ones; whether a condition is wider than another
    /// can't be seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub widened: Vec<String>,
    /// What may be different from tenant to tenant; the full key is `<module>.<key>`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub flags: BTreeMap<String, Flag>,
    /// How much a tenant may have of something, enforced by the module; keys likewise.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Limit>,
}

/// One HTTP route of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: String,
    /// Path below `/api/<module>`, with `{name}` for one segment.
    pub path: String,
    /// What the caller must be permitted.
    pub permission: Permission,
    /// Whose rows it reaches.
    #[serde(default, skip_serializing_if = "Scope::is_own")]
    pub scope: Scope,
}

/// Whose rows a route reaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The caller's own tenant's.
    #[default]
    Own,
    /// Its own and those of all tenants below it, to be read only.
    Subtree,
}

impl Scope {
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde hands over a reference"
    )]
    fn is_own(&self) -> bool {
        *self == Self::Own
    }
}

impl Manifest {
    /// Parses and checks a `module.toml`.
    ///
    /// # Errors
    /// `module-manifest-invalid`, saying which rule is broken.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let manifest: Self = toml::from_str(text).map_err(|error| invalid(error.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The permissions of role `<module>.<key>`, if it is one of this module's.
    pub fn role_permissions(&self, role: &str) -> Option<&[Permission]> {
        let key = role.strip_prefix(self.id.as_str())?.strip_prefix('.')?;
        self.roles.get(key).map(Vec::as_slice)
    }

    fn check(&self) -> Result<(), Fault> {
        let id = self.id.as_str();
        if let Some(foreign) = self.permissions.keys().find(|p| p.module() != id) {
            return Err(invalid(format!(
                "permission `{foreign}` belongs to another module"
            )));
        }
        for (role, permissions) in &self.roles {
            if let Some(unknown) = permissions
                .iter()
                .find(|p| !self.permissions.contains_key(p))
            {
                return Err(invalid(format!(
                    "role `{role}` holds undeclared permission `{unknown}`"
                )));
            }
        }
        for route in &self.routes {
            if !matches!(
                route.method.as_str(),
                "GET" | "POST" | "PUT" | "PATCH" | "DELETE"
            ) {
                return Err(invalid(format!(
                    "route method `{}` is not supported",
                    route.method
                )));
            }
            if !route.path.starts_with('/') {
                return Err(invalid(format!(
                    "route path `{}` must start with /",
                    route.path
                )));
            }
            if !self.permissions.contains_key(&route.permission) {
                return Err(invalid(format!(
                    "route {} {} needs undeclared permission `{}`",
                    route.method, route.path, route.permission
                )));
            }
            if route.scope == Scope::Subtree && route.method != "GET" {
                return Err(invalid(format!(
                    "route {} {} can't have the scope `subtree`: only GET routes may",
                    route.method, route.path
                )));
            }
        }
        entitlement::check_declared(self).map_err(invalid)
    }
}

fn invalid(why: String) -> Fault {
    fault::MODULE_MANIFEST_INVALID.fault(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
        id = "crm"
        version = "0.1.0"
        title = { en = "CRM" }
        routes = [{ method = "GET", path = "/people", permission = "crm:person.read" }]
        [permissions]
        "crm:person.read" = "See people"
        [roles]
        viewer = ["crm:person.read"]
    "#;

    /// A route without a declared permission would be a door without a lock.
    #[test]
    fn undeclared_permissions_are_refused() {
        assert!(Manifest::parse(MINIMAL).is_ok());
        let broken = MINIMAL.replace(
            "permission = \"crm:person.read\"",
            "permission = \"crm:person.write\"",
        );
        assert_eq!(
            Manifest::parse(&broken).unwrap_err().code(),
            "module-manifest-invalid"
        );
        let foreign = MINIMAL.replace("crm:person.read", "ledger:entry.read");
        assert!(Manifest::parse(&foreign).is_err());
    }

    /// A head office that could write below itself would do so under its own name in others' books.
    #[test]
    fn only_reading_routes_reach_a_subtree() {
        let route = "path = \"/people\"";
        let own = Manifest::parse(MINIMAL).unwrap();
        assert_eq!(own.routes.first().map(|r| r.scope), Some(Scope::Own));
        let subtree = MINIMAL.replace(route, &format!("{route}, scope = \"subtree\""));
        let read = Manifest::parse(&subtree).unwrap();
        assert_eq!(read.routes.first().map(|r| r.scope), Some(Scope::Subtree));
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            let write = subtree.replace("\"GET\"", &format!("\"{method}\""));
            let refused = Manifest::parse(&write).unwrap_err();
            assert_eq!(refused.code(), "module-manifest-invalid", "{method}");
        }
        assert!(Manifest::parse(&subtree.replace("subtree", "all")).is_err());
    }

    /// A role name of another module must not grant anything here.
    #[test]
    fn roles_are_looked_up_by_full_name() {
        let manifest = Manifest::parse(MINIMAL).unwrap();
        assert!(manifest.role_permissions("crm.viewer").is_some());
        assert!(manifest.role_permissions("crmx.viewer").is_none());
        assert!(manifest.role_permissions("viewer").is_none());
    }
}
