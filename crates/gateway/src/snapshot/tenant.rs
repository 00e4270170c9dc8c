//! A tenant as the gateway keeps it: in a few hundred bytes.
//!
//! Invariant: what many tenants have alike (place, modules, plan and profile together; roles) stands once
//! in memory; [`Shared`] finds it again and forgets what nobody has any more. A request gets whole values,
//! so none of this shows outside.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde_json::Value;
use waangu_kernel::entitlement::{Layers, Lookup, Values};
use waangu_kernel::{ModuleId, Placement, PlanId, ProfileId, RoleName, Slug, TenantId, UserId};
use waangu_registry::{Sets, TenantRoute};

/// A tenant as the gateway serves it.
#[derive(Debug)]
pub(crate) struct Tenant {
    /// Its number.
    pub(crate) id: TenantId,
    /// Its slug.
    pub(crate) slug: Slug,
    /// Its parent.
    pub(crate) parent: Option<TenantId>,
    kind: Arc<Kind>,
    /// Where it will soon be, while it is on its way.
    heading: Option<Box<Placement>>,
    /// Its own flags and limits, if it has any.
    own: Option<Box<Own>>,
    /// Roles of its people, by user.
    grants: Box<[(UserId, Arc<Roles>)]>,
}

/// A tenant as its slug finds it: so the slug stands once.
#[derive(Debug)]
pub(super) struct Named(pub(super) Arc<Tenant>);

impl Borrow<Slug> for Named {
    fn borrow(&self) -> &Slug {
        &self.0.slug
    }
}

impl Hash for Named {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.slug.hash(state);
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.0.slug == other.0.slug
    }
}

impl Eq for Named {}

/// A tenant's own values, by key: a map of a few costs ten times as much.
#[derive(Debug)]
struct Own(Box<[(Box<str>, Value)]>);

impl From<Values> for Own {
    fn from(values: Values) -> Self {
        let pairs = values.into_iter();
        Self(pairs.map(|(key, value)| (key.into(), value)).collect())
    }
}

impl Lookup for Own {
    fn value(&self, key: &str) -> Option<&Value> {
        let found = self.0.iter().find(|(own, _)| **own == *key);
        found.map(|(_, value)| value)
    }
}

/// What a tenant has in common with many others.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Kind {
    placement: Placement,
    active: bool,
    modules: Vec<ModuleId>,
    plan: Option<PlanId>,
    profile: Option<ProfileId>,
}

/// A pointer to one is half as long as to a slice.
type Roles = Vec<RoleName>;

impl Tenant {
    /// Where its data lives.
    pub(crate) fn placement(&self) -> &Placement {
        &self.kind.placement
    }

    /// Where it will soon live, while it is on its way.
    pub(crate) fn heading(&self) -> Option<&Placement> {
        self.heading.as_deref()
    }

    /// Whether it is served.
    pub(crate) fn is_active(&self) -> bool {
        self.kind.active
    }

    /// The modules that are on and ready.
    pub(crate) fn modules(&self) -> &[ModuleId] {
        &self.kind.modules
    }

    /// Whether a module is on.
    pub(crate) fn has(&self, module: &str) -> bool {
        self.modules().iter().any(|on| on.as_str() == module)
    }

    /// A user's roles.
    pub(crate) fn roles(&self, user: UserId) -> &[RoleName] {
        let at = self.grants.binary_search_by_key(&user, |(user, _)| *user);
        at.ok()
            .and_then(|at| self.grants.get(at))
            .map_or(&[], |(_, roles)| roles.as_slice())
    }

    /// Its flags and limits, beside what its plan and its profile give.
    pub(crate) fn layers<'a>(&'a self, sets: &'a Sets) -> Layers<'a> {
        let Kind { plan, profile, .. } = &*self.kind;
        Layers::new(
            plan.as_ref().and_then(|plan| sets.plans.get(plan)),
            profile
                .as_ref()
                .and_then(|profile| sets.profiles.get(profile)),
            self.own.as_deref(),
        )
    }
}

/// What tenants have alike.
#[derive(Debug, Default)]
pub(super) struct Shared {
    kinds: Once<Kind>,
    roles: Once<Roles>,
}

impl Shared {
    /// Packs what the registry says of a tenant.
    pub(super) fn pack(&mut self, route: TenantRoute) -> Tenant {
        let grants = route.grants.into_iter();
        let mut grants: Box<[_]> = grants
            .map(|(user, roles)| (user, self.roles.get(roles)))
            .collect();
        grants.sort_unstable_by_key(|(user, _)| *user);
        let kind = Kind {
            placement: route.placement,
            active: route.active,
            modules: route.modules,
            plan: route.plan,
            profile: route.profile,
        };
        Tenant {
            id: route.id,
            slug: route.slug,
            parent: route.parent,
            kind: self.kinds.get(kind),
            heading: route.heading.map(Box::new),
            own: route.own.map(|own| Box::new(Own::from(own))),
            grants,
        }
    }

    /// Forgets what nobody has any more, when that may be much.
    pub(super) fn tidy(&mut self) {
        self.kinds.tidy();
        self.roles.tidy();
    }
}

/// Values of which each stands once.
#[derive(Debug)]
struct Once<T> {
    known: HashSet<Arc<T>>,
    /// How many there may be before it is worth while to look who is still needed.
    enough: usize,
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self {
            known: HashSet::new(),
            enough: 1024,
        }
    }
}

impl<T: Eq + Hash> Once<T> {
    fn get(&mut self, value: T) -> Arc<T> {
        if let Some(known) = self.known.get(&value) {
            return Arc::clone(known);
        }
        let value = Arc::new(value);
        self.known.insert(Arc::clone(&value));
        value
    }

    fn tidy(&mut self) {
        if self.known.len() > self.enough {
            self.known.retain(|value| Arc::strong_count(value) > 1);
            self.enough = (self.known.len() * 2).max(1024);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was shared must be found again, and what nobody has must go, or a gateway that runs for a
    /// year keeps every place that a tenant ever had.
    #[test]
    fn values_stand_once_and_go_with_their_last_owner() {
        let mut once: Once<Roles> = Once::default();
        let roles = |name: &str| vec![name.parse::<RoleName>().unwrap()];
        let first = once.get(roles("tenant-admin"));
        assert!(Arc::ptr_eq(&first, &once.get(roles("tenant-admin"))));
        for number in 0..3000 {
            drop(once.get(roles(&format!("crm.r{}", "x".repeat(number % 30)))));
        }
        once.enough = 3;
        once.tidy();
        assert_eq!(once.known.len(), 1);
        assert!(Arc::ptr_eq(&first, &once.get(roles("tenant-admin"))));
    }
}
