//! What the gateway knows of tenants and modules, in memory.
//!
//! Invariants:
//! - a request takes one [`Tenant`] and one [`Modules`] and uses these to its end, so it never sees
//!   half a change;
//! - the order of changes plays no part: a slug belongs to the live tenant with the highest number
//!   that carries it, because numbers only grow and a slug passes only from a gone tenant to a new
//!   one;
//! - a tenant's shares (rate, concurrency) survive changes to the tenant; they are made with its
//!   first request, so that a hundred thousand quiet tenants cost nothing here.
//!
//! Left out: where changes come from ([`follow`]).

use std::collections::HashSet;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use waangu_kernel::entitlement::REQUESTS_PER_MINUTE;
use waangu_kernel::{Slug, TenantId};
use waangu_registry::{RouteChange, Sets, StoredModule, Traffic};

use crate::config::Limits;
use crate::limit::Share;

pub(crate) mod follow;
pub(crate) mod kin;
pub(crate) mod modules;
pub(crate) mod recency;
mod tenant;

use kin::Kin;
use modules::Modules;
use recency::Recency;
use tenant::{Named, Shared};

pub(crate) use tenant::Tenant;

/// Everything known.
pub struct Snapshot {
    by_id: papaya::HashMap<TenantId, Arc<Tenant>>,
    by_slug: papaya::HashMap<Named, Arc<Tenant>>,
    kin: Kin,
    modules: ArcSwap<Modules>,
    sets: ArcSwap<Sets>,
    loaded: AtomicBool,
    recency: Recency,
    limits: Limits,
    /// What each tenant that has sent a request uses of the gateway.
    shares: papaya::HashMap<TenantId, Arc<Share>>,
    /// Changes are applied one batch at a time; readers don't take it.
    writing: Mutex<Shared>,
    /// Wakes those who wait for a change.
    news: Notify,
}

impl Snapshot {
    /// Knows nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            by_id: papaya::HashMap::new(),
            by_slug: papaya::HashMap::new(),
            kin: Kin::default(),
            modules: ArcSwap::from_pointee(Modules::default()),
            sets: ArcSwap::from_pointee(Sets::default()),
            loaded: AtomicBool::new(false),
            recency: Recency::default(),
            limits,
            shares: papaya::HashMap::new(),
            writing: Mutex::new(Shared::default()),
            news: Notify::new(),
        }
    }

    /// Whether everything was read at least once.
    pub(crate) fn loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    /// How new all this is.
    pub(crate) fn recency(&self) -> &Recency {
        &self.recency
    }

    /// The live tenant of this slug.
    pub(crate) fn tenant(&self, slug: &Slug) -> Option<Arc<Tenant>> {
        self.by_slug.pin().get(slug).map(Arc::clone)
    }

    /// The installed modules.
    pub(crate) fn modules(&self) -> Arc<Modules> {
        self.modules.load_full()
    }

    /// Takes over the installed modules. Cheap when nothing has changed.
    pub fn install(&self, stored: &[StoredModule]) {
        if !self.modules.load().is_made_of(stored) {
            self.modules.store(Arc::new(Modules::new(stored)));
        }
    }

    /// What plans and profiles give.
    pub(crate) fn sets(&self) -> Arc<Sets> {
        self.sets.load_full()
    }

    /// Takes over what plans and profiles give. Cheap when nothing has changed.
    pub fn furnish(&self, sets: Sets) {
        if **self.sets.load() != sets {
            self.sets.store(Arc::new(sets));
        }
    }

    /// How many requests a tenant has in a minute; `None` is as many as it likes.
    pub(crate) fn requests_per_minute(&self, tenant: &Tenant) -> Option<u64> {
        let (modules, sets) = (self.modules.load(), self.sets.load());
        let limit = modules.catalogue().get(REQUESTS_PER_MINUTE)?;
        tenant.layers(&sets).limit(limit)
    }

    /// Takes over all tenants: the changes are the whole truth, what they don't name is gone.
    pub fn replace(&self, changes: Vec<RouteChange>) {
        let mut load = self.load();
        load.take(changes);
        load.end();
    }

    /// Begins to take over all tenants, in parts: a hundred thousand at once would take the memory of
    /// several hundred thousand.
    pub fn load(&self) -> Load<'_> {
        Load {
            snapshot: self,
            named: HashSet::new(),
        }
    }

    /// Takes over changes, in any order and any number of times.
    pub fn apply(&self, changes: Vec<RouteChange>) {
        let mut shared = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // First take all names off that are given up, then hand all names out: then no order of two
        // changes in one batch can leave a name with nobody.
        let mut put = Vec::with_capacity(changes.len());
        for change in changes {
            match change {
                RouteChange::Put(route) => {
                    let known = self.by_id.pin().get(&route.id).map(Arc::clone);
                    if let Some(known) = &known
                        && known.slug != route.slug
                    {
                        self.give_up(&known.slug, route.id);
                    }
                    put.push(Arc::new(shared.pack(*route)));
                }
                RouteChange::Gone(id, _slug) => {
                    if let Some(known) = self.by_id.pin().remove(&id) {
                        self.give_up(&known.slug, id);
                        self.kin.adopt(id, known.parent, None);
                        self.shares.pin().remove(&id);
                    }
                }
            }
        }
        for tenant in put {
            self.hand_out(&tenant);
            let (id, parent) = (tenant.id, tenant.parent);
            let tenants = self.by_id.pin();
            let before = tenants.insert(id, tenant);
            let before = before.and_then(|before| before.parent);
            self.kin.adopt(id, before, parent);
        }
        shared.tidy();
        self.news.notify_waiters();
    }

    /// Waits until the tenant of this slug is elsewhere than at that epoch, or gone; at most so long.
    pub(crate) async fn until_elsewhere(&self, slug: &Slug, epoch: i64, wait: Duration) {
        let end = Instant::now() + wait;
        loop {
            let mut news = pin!(self.news.notified());
            // From here on no change is missed.
            news.as_mut().enable();
            let tenant = self.tenant(slug);
            let here = tenant.is_some_and(|tenant| tenant.placement().epoch == epoch);
            if !here || timeout_at(end, news).await.is_err() {
                return;
            }
        }
    }

    /// A tenant's part of the gateway.
    pub(crate) fn share(&self, tenant: &Tenant) -> Arc<Share> {
        let shares = self.shares.pin();
        let made = shares.get_or_insert_with(tenant.id, || Arc::new(Share::new(&self.limits)));
        Arc::clone(made)
    }

    /// What tenants have used since the last call.
    pub(crate) fn take_traffic(&self) -> Vec<(TenantId, Traffic)> {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let shares = self.shares.pin();
        let sums = shares.iter().filter_map(|(tenant, share)| {
            let (requests, database_us) = share.take_counts();
            (requests > 0 || database_us > 0).then(|| {
                let traffic = Traffic {
                    requests: number(requests),
                    database_us: number(database_us),
                };
                (*tenant, traffic)
            })
        });
        sums.collect()
    }

    /// Counts again what could not be reported.
    pub(crate) fn give_back_traffic(&self, sums: &[(TenantId, Traffic)]) {
        let number = |count: i64| u64::try_from(count).unwrap_or(0);
        let shares = self.shares.pin();
        for (tenant, traffic) in sums {
            if let Some(share) = shares.get(tenant) {
                share.count(number(traffic.requests), number(traffic.database_us));
            }
        }
    }

    fn give_up(&self, slug: &Slug, id: TenantId) {
        let names = self.by_slug.pin();
        if names.get(slug).is_some_and(|holder| holder.id == id) {
            names.remove(slug);
        }
    }

    fn hand_out(&self, tenant: &Arc<Tenant>) {
        let names = self.by_slug.pin();
        let taken = names
            .get(&tenant.slug)
            .is_some_and(|holder| holder.id > tenant.id);
        if !taken {
            names.insert(Named(Arc::clone(tenant)), Arc::clone(tenant));
        }
    }
}

/// All tenants on their way in. One that is dropped before its end has only brought changes.
#[derive(Debug)]
pub struct Load<'a> {
    snapshot: &'a Snapshot,
    named: HashSet<TenantId>,
}

impl Load<'_> {
    /// Takes over a part.
    pub fn take(&mut self, part: Vec<RouteChange>) {
        let named = part.iter().filter_map(|change| match change {
            RouteChange::Put(route) => Some(route.id),
            RouteChange::Gone(..) => None,
        });
        self.named.extend(named);
        self.snapshot.apply(part);
    }

    /// All parts were taken: what none of them named is gone.
    pub fn end(self) {
        let Self { snapshot, named } = self;
        let tenants = snapshot.by_id.pin();
        let lost: Vec<RouteChange> = tenants
            .iter()
            .filter(|(id, _)| !named.contains(id))
            .map(|(id, tenant)| RouteChange::Gone(*id, tenant.slug.clone()))
            .collect();
        if !lost.is_empty() {
            snapshot.apply(lost);
            // A name that somebody lost may have been wanted by one with a lower number.
            for (_, tenant) in &tenants {
                snapshot.hand_out(tenant);
            }
        }
        snapshot.loaded.store(true, Ordering::Release);
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({} tenants)", self.by_id.len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use waangu_kernel::{Placement, Tier};
    use waangu_registry::TenantRoute;

    use super::*;

    fn put(id: i64, slug: &str) -> RouteChange {
        RouteChange::Put(Box::new(TenantRoute {
            id: TenantId::new(id).unwrap(),
            slug: slug.parse().unwrap(),
            active: true,
            parent: None,
            placement: Placement {
                cell: "cell-1".parse().unwrap(),
                tier: Tier::Shared,
                bucket: 0,
                epoch: 1,
            },
            heading: None,
            modules: Vec::new(),
            grants: HashMap::new(),
            plan: None,
            profile: None,
            own: None,
        }))
    }

    fn gone(id: i64, slug: &str) -> RouteChange {
        RouteChange::Gone(TenantId::new(id).unwrap(), slug.parse().unwrap())
    }

    fn holder(snapshot: &Snapshot, slug: &str) -> Option<i64> {
        snapshot
            .tenant(&slug.parse().unwrap())
            .map(|tenant| tenant.id.number())
    }

    /// A new client who takes a freed name must be served at once, whichever change arrives first,
    /// and never see the old one's data.
    #[test]
    fn a_freed_name_goes_to_its_new_tenant_in_any_order() {
        for batches in [
            vec![vec![gone(1, "acme")], vec![put(2, "acme")]],
            vec![vec![put(2, "acme")], vec![gone(1, "acme")]],
            vec![vec![put(2, "acme"), gone(1, "acme")]],
            vec![vec![gone(1, "acme"), put(2, "acme")]],
            vec![
                vec![put(2, "acme")],
                vec![put(1, "acme")],
                vec![gone(1, "acme")],
            ],
        ] {
            let snapshot = Snapshot::new(Limits::default());
            snapshot.replace(vec![put(1, "acme"), put(3, "other")]);
            for batch in batches {
                snapshot.apply(batch);
            }
            assert_eq!(holder(&snapshot, "acme"), Some(2));
            assert_eq!(holder(&snapshot, "other"), Some(3));
            assert_eq!(snapshot.by_id.len(), 2);
        }
    }

    /// Whoever waits for a tenant's next place would wait longer than the tenant is away.
    #[tokio::test]
    async fn who_waits_hears_of_the_next_place_at_once() {
        let snapshot = Snapshot::new(Limits::default());
        snapshot.replace(vec![put(1, "acme"), put(2, "beta")]);
        let slug: Slug = "acme".parse().unwrap();
        let long = Duration::from_mins(1);
        let waiting = snapshot.until_elsewhere(&slug, 1, long);
        let moving = async {
            snapshot.apply(vec![put(2, "beta")]);
            tokio::task::yield_now().await;
            let RouteChange::Put(mut route) = put(1, "acme") else {
                unreachable!();
            };
            route.placement.epoch = 2;
            snapshot.apply(vec![RouteChange::Put(route)]);
        };
        let both = async { tokio::join!(waiting, moving) };
        let heard = tokio::time::timeout(long / 2, both).await;
        heard.expect("woken by the change");
        // Who is where he was is not waited for without end.
        let short = Duration::from_millis(1);
        snapshot.until_elsewhere(&slug, 2, short).await;
    }

    /// A tenant that was renamed must not answer under its old name.
    #[test]
    fn a_renamed_tenant_leaves_its_old_name() {
        let snapshot = Snapshot::new(Limits::default());
        snapshot.replace(vec![put(1, "acme"), put(2, "beta")]);
        snapshot.apply(vec![put(1, "beta"), put(2, "gamma")]);
        assert_eq!(holder(&snapshot, "acme"), None);
        assert_eq!(holder(&snapshot, "beta"), Some(1));
        assert_eq!(holder(&snapshot, "gamma"), Some(2));
    }

    /// After a reconnect the first read is the whole truth: a row that vanished while we were away
    /// must not be served for ever.
    #[test]
    fn what_a_full_read_does_not_name_is_gone() {
        let snapshot = Snapshot::new(Limits::default());
        assert!(!snapshot.loaded());
        snapshot.replace(vec![put(1, "acme"), put(2, "beta")]);
        snapshot.replace(vec![put(2, "beta")]);
        assert!(snapshot.loaded());
        assert_eq!(holder(&snapshot, "acme"), None);
        assert_eq!(holder(&snapshot, "beta"), Some(2));
    }

    /// A gateway reads a large fleet in parts: nobody of the first part may be lost with the second, and
    /// a name whose holder has vanished goes to whoever has it now.
    #[test]
    fn a_whole_read_in_parts_is_the_same_as_at_once() {
        let snapshot = Snapshot::new(Limits::default());
        snapshot.replace(vec![put(1, "old"), put(7, "acme")]);
        let mut load = snapshot.load();
        load.take(vec![put(2, "beta"), put(3, "acme")]);
        load.take(vec![put(4, "gamma"), gone(5, "delta")]);
        load.end();
        let names = ["old", "beta", "acme", "gamma", "delta"].map(|name| holder(&snapshot, name));
        assert_eq!(names, [None, Some(2), Some(3), Some(4), None]);
        assert_eq!(snapshot.by_id.len(), 3);
    }
}
