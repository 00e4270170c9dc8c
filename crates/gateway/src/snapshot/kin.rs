//! Who stands below whom: what a request of the scope `subtree` may visit.
//!
//! Invariants: an answer is bounded in depth and number, and a cycle in what the registry said can't
//! hold it up; a tenant that is not served, or has not switched the module on, is left out, those
//! below it are not.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use waangu_kernel::placement::Place;
use waangu_kernel::{CellId, Fault, ModuleId, Slug, TenantId, Tier, fault};

use super::{Snapshot, Tenant};

/// Longest way down from a head office.
const MAX_DEPTH: usize = 32;

/// Most tenants that one request looks at.
const MAX_TENANTS: usize = 2_000;

/// Most transactions that one request leads to.
const MAX_VISITS: usize = 500;

/// Children by parent. Written by one at a time ([`Snapshot::apply`]); a reader may meet a child that
/// has just left, so it looks at the child itself too.
#[derive(Default)]
pub(super) struct Kin(papaya::HashMap<TenantId, Arc<BTreeSet<TenantId>>>);

impl Kin {
    /// Takes a child from one parent to another.
    pub(super) fn adopt(&self, child: TenantId, old: Option<TenantId>, new: Option<TenantId>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.change(old, |children| {
                children.remove(&child);
            });
        }
        if let Some(new) = new {
            self.change(new, |children| {
                children.insert(child);
            });
        }
    }

    fn change(&self, parent: TenantId, change: impl FnOnce(&mut BTreeSet<TenantId>)) {
        let map = self.0.pin();
        let mut children = map
            .get(&parent)
            .map(|children| BTreeSet::clone(children))
            .unwrap_or_default();
        change(&mut children);
        if children.is_empty() {
            map.remove(&parent);
        } else {
            map.insert(parent, Arc::new(children));
        }
    }

    fn children(&self, parent: TenantId) -> Arc<BTreeSet<TenantId>> {
        self.0
            .pin()
            .get(&parent)
            .map(Arc::clone)
            .unwrap_or_default()
    }
}

impl Snapshot {
    /// The places of the tenants that have the module, at `root` and below it.
    ///
    /// # Errors
    /// `subtree-too-large`.
    pub(crate) fn subtree(&self, root: &Tenant, module: &ModuleId) -> Result<Vec<Place>, Fault> {
        let mut places = Places::default();
        places.add(root, module);
        let mut seen = HashSet::from([root.id]);
        let mut level = vec![root.id];
        for _depth in 0..MAX_DEPTH {
            let mut next = Vec::new();
            for parent in level {
                for child in self.children(parent) {
                    if !seen.insert(child.id) {
                        continue;
                    }
                    next.push(child.id);
                    places.add(&child, module);
                }
                if seen.len() > MAX_TENANTS {
                    return Err(too_large(&format!("more than {MAX_TENANTS} tenants")));
                }
            }
            if next.is_empty() {
                return places.bounded();
            }
            level = next;
        }
        Err(too_large(&format!("more than {MAX_DEPTH} levels")))
    }

    fn children(&self, parent: TenantId) -> Vec<Arc<Tenant>> {
        let tenants = self.by_id.pin();
        self.kin
            .children(parent)
            .iter()
            .filter_map(|child| tenants.get(child))
            .filter(|child| child.parent == Some(parent))
            .map(Arc::clone)
            .collect()
    }
}

/// Tenants that live side by side are one entry.
#[derive(Default)]
struct Places(BTreeMap<(CellId, Tier, i32), Vec<(TenantId, Slug)>>);

impl Places {
    fn add(&mut self, tenant: &Tenant, module: &ModuleId) {
        if tenant.is_active() && tenant.modules().contains(module) {
            let placement = tenant.placement();
            self.0
                .entry((placement.cell.clone(), placement.tier, placement.bucket))
                .or_default()
                .push((tenant.id, tenant.slug.clone()));
        }
    }

    fn bounded(self) -> Result<Vec<Place>, Fault> {
        let place = |((cell, tier, bucket), tenants)| Place {
            cell,
            tier,
            bucket,
            tenants,
        };
        let places: Vec<Place> = self.0.into_iter().map(place).collect();
        let visits: usize = places.iter().map(Place::visits).sum();
        if visits > MAX_VISITS {
            return Err(too_large(&format!(
                "more than {MAX_VISITS} places to visit"
            )));
        }
        Ok(places)
    }
}

/// The subtree can't be read in one request.
pub(crate) fn too_large(why: &str) -> Fault {
    fault::SUBTREE_TOO_LARGE.fault(format!("the subtree has {why}"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use waangu_kernel::Placement;
    use waangu_registry::{RouteChange, TenantRoute};

    use super::*;
    use crate::config::Limits;

    fn route(id: i64, parent: Option<i64>, tier: Tier) -> TenantRoute {
        TenantRoute {
            id: TenantId::new(id).unwrap(),
            slug: format!("t{id}").parse().unwrap(),
            active: true,
            parent: parent.map(|id| TenantId::new(id).unwrap()),
            placement: Placement {
                cell: "cell-1".parse().unwrap(),
                tier,
                bucket: i32::from(tier == Tier::Schema),
                epoch: 1,
            },
            heading: None,
            modules: vec!["inventory".parse().unwrap()],
            grants: HashMap::new(),
            plan: None,
            profile: None,
            own: None,
        }
    }

    fn put(id: i64, parent: Option<i64>) -> RouteChange {
        RouteChange::Put(Box::new(route(id, parent, Tier::Shared)))
    }

    fn seen(snapshot: &Snapshot, root: i64) -> Result<Vec<i64>, &'static str> {
        let root = snapshot.tenant(&format!("t{root}").parse().unwrap());
        let places = snapshot.subtree(&root.unwrap(), &"inventory".parse().unwrap());
        let places = places.map_err(|fault| fault.code())?;
        let mut ids: Vec<i64> = places
            .iter()
            .flat_map(|place| place.tenants.iter().map(|(id, _)| id.number()))
            .collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// A tenant too many is a leak, one too few a wrong balance sheet.
    #[test]
    fn a_subtree_is_the_tenant_and_all_below_it_in_any_order_of_arrival() {
        let all = [
            put(1, None),
            put(2, Some(1)),
            put(3, Some(2)),
            put(4, None),
            put(5, Some(4)),
        ];
        for turn in 0..all.len() {
            let mut changes = all.to_vec();
            changes.rotate_left(turn);
            let snapshot = Snapshot::new(Limits::default());
            snapshot.replace(changes);
            assert_eq!(seen(&snapshot, 1).unwrap(), [1, 2, 3]);
            assert_eq!(seen(&snapshot, 2).unwrap(), [2, 3]);
            assert_eq!(seen(&snapshot, 4).unwrap(), [4, 5]);

            snapshot.apply(vec![put(2, Some(4))]);
            assert_eq!(seen(&snapshot, 1).unwrap(), [1]);
            assert_eq!(seen(&snapshot, 4).unwrap(), [2, 3, 4, 5]);
            let slug = "t2".parse().unwrap();
            snapshot.apply(vec![RouteChange::Gone(TenantId::new(2).unwrap(), slug)]);
            assert_eq!(seen(&snapshot, 4).unwrap(), [4, 5]);
        }
    }

    /// A suspended country branch must not hide the shops below it, nor be read itself.
    #[test]
    fn who_is_not_served_is_left_out_alone() {
        let snapshot = Snapshot::new(Limits::default());
        let mut asleep = route(2, Some(1), Tier::Shared);
        asleep.active = false;
        let mut without = route(4, Some(1), Tier::Shared);
        without.modules.clear();
        snapshot.replace(vec![
            put(1, None),
            RouteChange::Put(Box::new(asleep)),
            put(3, Some(2)),
            RouteChange::Put(Box::new(without)),
        ]);
        assert_eq!(seen(&snapshot, 1).unwrap(), [1, 3]);
    }

    /// One bad row in the registry must not stop a gateway.
    #[test]
    fn cycles_and_endless_trees_end() {
        let snapshot = Snapshot::new(Limits::default());
        snapshot.replace(vec![put(1, Some(3)), put(2, Some(1)), put(3, Some(2))]);
        assert_eq!(seen(&snapshot, 1).unwrap(), [1, 2, 3]);
        let line = |n: i64| put(n, (n > 1).then(|| n - 1));
        snapshot.replace((1..=40).map(line).collect());
        assert_eq!(seen(&snapshot, 1), Err("subtree-too-large"));
        assert_eq!(seen(&snapshot, 20).unwrap().len(), 21);
        let fan = |n: i64| put(n, (n > 1).then_some(1));
        snapshot.replace((1..=2_000).map(fan).collect());
        assert_eq!(seen(&snapshot, 1).unwrap().len(), 2_000);
        snapshot.apply(vec![put(2_001, Some(1))]);
        assert_eq!(seen(&snapshot, 1), Err("subtree-too-large"));
    }

    /// A hundred shops in one database are one transaction, in databases of their own a hundred.
    #[test]
    fn places_are_grouped_and_their_visits_counted() {
        let snapshot = Snapshot::new(Limits::default());
        let fan =
            |tier| move |n: i64| RouteChange::Put(Box::new(route(n, (n > 1).then_some(1), tier)));
        for (tier, visits) in [
            (Tier::Shared, 1),
            (Tier::Schema, 100),
            (Tier::Dedicated, 100),
        ] {
            snapshot.replace((1..=100).map(fan(tier)).collect());
            let root = snapshot.tenant(&"t1".parse().unwrap()).unwrap();
            let places = snapshot.subtree(&root, &"inventory".parse().unwrap());
            let places = places.unwrap();
            assert_eq!(places.len(), 1, "{tier}");
            assert_eq!(places.iter().map(Place::visits).sum::<usize>(), visits);
        }
        snapshot.replace((1..=501).map(fan(Tier::Dedicated)).collect());
        assert_eq!(seen(&snapshot, 1), Err("subtree-too-large"));
    }
}
