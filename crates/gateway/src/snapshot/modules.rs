//! The installed modules: which route needs which permission, which role holds which.
//!
//! Invariants: a path matches as it was sent, still percent-encoded, which is how the module matches
//! it too; the most specific route wins; a route that can't be understood is left out and logged, so
//! it is answered 404 and never let through.

use std::collections::{BTreeMap, HashMap, HashSet};

use http::Method;
use waangu_kernel::entitlement::{Catalogue, Declaration, Layers, Origin, Values, declared};
use waangu_kernel::manifest::{Manifest, Route, Scope};
use waangu_kernel::permission::TENANT_ADMIN;
use waangu_kernel::{ModuleId, Permission, RoleName};
use waangu_registry::StoredModule;

/// All installed modules.
#[derive(Debug, Default)]
pub(crate) struct Modules {
    stored: Vec<StoredModule>,
    by_id: HashMap<ModuleId, Module>,
    catalogue: Catalogue,
}

impl Modules {
    pub(crate) fn new(stored: &[StoredModule]) -> Self {
        let by_id = stored
            .iter()
            .map(|module| (module.manifest.id.clone(), Module::new(&module.manifest)))
            .collect();
        Self {
            catalogue: Catalogue::new(stored.iter().map(|module| &module.manifest)),
            stored: stored.to_vec(),
            by_id,
        }
    }

    pub(crate) fn is_made_of(&self, stored: &[StoredModule]) -> bool {
        self.stored == stored
    }

    /// Everything that may have a value, the platform's own included.
    pub(crate) fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// The module of this id.
    pub(crate) fn get(&self, id: &ModuleId) -> Option<&Module> {
        self.by_id.get(id)
    }
}

/// One module's doors and keys.
#[derive(Debug)]
pub(crate) struct Module {
    router: matchit::Router<Doors>,
    roles: HashMap<String, Vec<Permission>>,
    all: Vec<Permission>,
    declared: Vec<Declaration>,
}

/// One path with its methods.
#[derive(Debug)]
struct Doors {
    template: String,
    methods: BTreeMap<String, (Permission, Scope)>,
}

/// What a method and path lead to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Door<'a> {
    /// A route.
    Open {
        /// The path with its placeholders, for logs.
        template: &'a str,
        /// What the caller must be permitted.
        permission: &'a Permission,
        /// Whose rows it reaches.
        scope: Scope,
    },
    /// A route with other methods, as `Allow` lists them.
    OtherMethods(String),
    /// Nothing.
    None,
}

impl Module {
    fn new(manifest: &Manifest) -> Self {
        let roles = manifest
            .roles
            .iter()
            .map(|(key, held)| (format!("{}.{key}", manifest.id), held.clone()))
            .collect();
        Self {
            router: router(manifest),
            roles,
            all: manifest.permissions.keys().cloned().collect(),
            declared: declared(manifest),
        }
    }

    /// Finds the route; HEAD is answered where GET is (RFC 9110 §9.3.2).
    pub(crate) fn door(&self, method: &Method, path: &str) -> Door<'_> {
        let Ok(found) = self.router.at(path) else {
            return Door::None;
        };
        let wanted = if method == Method::HEAD {
            Method::GET.as_str()
        } else {
            method.as_str()
        };
        match found.value.methods.get(wanted) {
            Some((permission, scope)) => Door::Open {
                template: &found.value.template,
                permission,
                scope: *scope,
            },
            None => Door::OtherMethods(allow(&found.value.methods)),
        }
    }

    /// The values that the module does not know from its own manifest.
    pub(crate) fn flags(&self, layers: &Layers<'_>) -> Values {
        self.declared
            .iter()
            .map(|one| (one, layers.find(one)))
            .filter(|(_, (_, origin))| *origin != Origin::Default)
            .map(|(one, (value, _))| (one.key.clone(), value.clone()))
            .collect()
    }

    /// What these roles may do in this module, each permission once.
    pub(crate) fn permissions(&self, roles: &[RoleName]) -> Vec<Permission> {
        if roles.iter().any(|role| role.as_str() == TENANT_ADMIN) {
            return self.all.clone();
        }
        let mut seen = HashSet::new();
        roles
            .iter()
            .filter_map(|role| self.roles.get(role.as_str()))
            .flatten()
            .filter(|permission| seen.insert(permission.as_str()))
            .cloned()
            .collect()
    }
}

fn allow(methods: &BTreeMap<String, (Permission, Scope)>) -> String {
    let mut names: Vec<&str> = methods.keys().map(String::as_str).collect();
    if methods.contains_key("GET") {
        names.push("HEAD");
    }
    names.join(", ")
}

fn router(manifest: &Manifest) -> matchit::Router<Doors> {
    let mut by_shape: BTreeMap<String, Doors> = BTreeMap::new();
    for Route {
        method,
        path,
        permission,
        scope,
    } in &manifest.routes
    {
        by_shape
            .entry(shape(path))
            .or_insert_with(|| Doors {
                template: path.clone(),
                methods: BTreeMap::new(),
            })
            .methods
            .insert(method.clone(), (permission.clone(), *scope));
    }
    let mut router = matchit::Router::new();
    for (shape, doors) in by_shape {
        let template = doors.template.clone();
        if let Err(error) = router.insert(shape, doors) {
            tracing::error!(module = %manifest.id, route = template, %error, "route left out");
        }
    }
    router
}

/// The path with its placeholders numbered, so that `/x/{id}` and `/x/{key}` are one path.
fn shape(path: &str) -> String {
    path.split('/')
        .enumerate()
        .map(|(place, segment)| match segment.strip_prefix('{') {
            Some(name) if name.starts_with('*') => format!("{{*p{place}}}"),
            Some(name) if name.ends_with('}') => format!("{{p{place}}}"),
            _ => segment.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"
        id = "inventory"
        version = "0.1.0"
        title = { en = "Inventory" }
        routes = [
          { method = "GET", path = "/", permission = "inventory:product.read" },
          { method = "GET", path = "/products/{id}", permission = "inventory:product.read" },
          { method = "PUT", path = "/products/{key}", permission = "inventory:product.write" },
          { method = "POST", path = "/products/import", permission = "inventory:product.write" },
        ]
        [permissions]
        "inventory:product.read" = "See"
        "inventory:product.write" = "Change"
        [roles]
        viewer = ["inventory:product.read"]
        keeper = ["inventory:product.read", "inventory:product.write"]
    "#;

    fn module() -> Module {
        Module::new(&Manifest::parse(MANIFEST).unwrap())
    }

    /// A route matched to the wrong permission lets a viewer write.
    #[test]
    fn method_and_path_lead_to_the_declared_permission() {
        let module = module();
        let permission = |method: &Method, path: &str| match module.door(method, path) {
            Door::Open { permission, .. } => permission.as_str().to_owned(),
            other => format!("{other:?}"),
        };
        let read = "inventory:product.read";
        let write = "inventory:product.write";
        assert_eq!(permission(&Method::GET, "/"), read);
        assert_eq!(permission(&Method::GET, "/products/7"), read);
        assert_eq!(permission(&Method::HEAD, "/products/7"), read);
        assert_eq!(permission(&Method::PUT, "/products/7"), write);
        assert_eq!(permission(&Method::POST, "/products/import"), write);
        let others = |allow: &str| Door::OtherMethods(allow.to_owned());
        assert_eq!(
            module.door(&Method::DELETE, "/products/7"),
            others("GET, PUT, HEAD")
        );
        assert_eq!(
            module.door(&Method::GET, "/products/import"),
            others("POST")
        );
        for nothing in [
            "",
            "/products",
            "/products/",
            "/products/7/",
            "/products/7/x",
            "//",
        ] {
            assert_eq!(module.door(&Method::GET, nothing), Door::None, "{nothing}");
        }
    }

    /// Roles must give what they hold, once, and a foreign role nothing.
    #[test]
    fn roles_hold_their_permissions() {
        let module = module();
        let held = |roles: &[&str]| {
            let roles: Vec<RoleName> = roles.iter().map(|role| role.parse().unwrap()).collect();
            module.permissions(&roles).len()
        };
        assert_eq!(held(&[]), 0);
        assert_eq!(held(&["inventory.viewer"]), 1);
        assert_eq!(held(&["inventory.viewer", "inventory.keeper"]), 2);
        assert_eq!(
            held(&["crm.keeper", "keeper", "admin", "tenant-admin.x"]),
            0
        );
        assert_eq!(held(&["tenant-admin"]), 2);
    }
}
