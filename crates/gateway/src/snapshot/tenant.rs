//! A tenant as the gateway keeps it: in a few hundred bytes.
//!
//! Invariant: what many tenants have alike (place, modules, roles, plan and profile) stands once in
//! memory; [`Shared`] finds it again and forgets what nobody has any more. A request gets whole values,
//! so none of this shows outside.

use std::collections::HashSet;
use std::hash::Hash;
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
    /// Where its data lives.
    pub(crate) placement: Arc<Placement>,
    /// Whether it is served.
    pub(crate) active: bool,
    modules: Arc<[ModuleId]>,
    terms: Arc<Terms>,
    /// Its own flags and limits, if it has any.
    own: Option<Box<Own>>,
    /// Roles of its people, by user.
    grants: Box<[(UserId, Arc<[RoleName]>)]>,
}

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

/// What a tenant shares with others by way of flags and limits.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Terms {
    plan: Option<PlanId>,
    profile: Option<ProfileId>,
}

impl Tenant {
    /// The modules that are on and ready.
    pub(crate) fn modules(&self) -> &[ModuleId] {
        &self.modules
    }

    /// Whether a module is on.
    pub(crate) fn has(&self, module: &str) -> bool {
        self.modules.iter().any(|on| on.as_str() == module)
    }

    /// A user's roles.
    pub(crate) fn roles(&self, user: UserId) -> &[RoleName] {
        let at = self.grants.binary_search_by_key(&user, |(user, _)| *user);
        at.ok()
            .and_then(|at| self.grants.get(at))
            .map_or(&[], |(_, roles)| roles)
    }

    /// Its flags and limits, beside what its plan and its profile give.
    pub(crate) fn layers<'a>(&'a self, sets: &'a Sets) -> Layers<'a> {
        let Terms { plan, profile } = &*self.terms;
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
    placements: Once<Placement>,
    modules: Once<[ModuleId]>,
    terms: Once<Terms>,
    roles: Once<[RoleName]>,
}

impl Shared {
    /// Packs what the registry says of a tenant.
    pub(super) fn pack(&mut self, route: TenantRoute) -> Tenant {
        let grants = route.grants.into_iter();
        let mut grants: Box<[_]> = grants
            .map(|(user, roles)| (user, self.roles.get(roles)))
            .collect();
        grants.sort_unstable_by_key(|(user, _)| *user);
        let (plan, profile) = (route.plan, route.profile);
        Tenant {
            id: route.id,
            slug: route.slug,
            parent: route.parent,
            placement: self.placements.get(route.placement),
            active: route.active,
            modules: self.modules.get(route.modules),
            terms: self.terms.get(Terms { plan, profile }),
            own: route.own.map(|own| Box::new(Own::from(own))),
            grants,
        }
    }

    /// Forgets what nobody has any more, when that may be much.
    pub(super) fn tidy(&mut self) {
        self.placements.tidy();
        self.modules.tidy();
        self.terms.tidy();
        self.roles.tidy();
    }
}

/// Values of which each stands once.
#[derive(Debug)]
struct Once<T: ?Sized> {
    known: HashSet<Arc<T>>,
    /// How many there may be before it is worth while to look who is still needed.
    enough: usize,
}

impl<T: ?Sized> Default for Once<T> {
    fn default() -> Self {
        Self {
            known: HashSet::new(),
            enough: 1024,
        }
    }
}

impl<T: ?Sized + Eq + Hash> Once<T> {
    fn get(&mut self, value: impl Into<Arc<T>>) -> Arc<T> {
        let value = value.into();
        if let Some(known) = self.known.get(&value) {
            return Arc::clone(known);
        }
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
        let mut once: Once<[RoleName]> = Once::default();
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
