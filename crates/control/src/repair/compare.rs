//! What differs between what is wanted in a cell and what is there. Pure.
//!
//! Invariant: what could be somebody's data is reported, never made anew and never dropped.

use std::collections::{HashMap, HashSet};

use waangu_kernel::TenantId;
use waangu_registry::{Desired, WantedNamespace, WantedPlace};
use waangu_tenancy::HomeState;
use waangu_tenancy::admin::Surveyed;

const LOST: &str = "restore it from its backup; nothing is made in its place";
const OUTDATED: &str =
    "the registry is older than the cell: restore both to one time; nothing is opened here";
const NOBODYS: &str = "if nobody needs it, remove it by hand";
pub(super) const AGAIN: &str = "reconciled again";

/// What the registry wants of a cell.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) places: Vec<WantedPlace>,
    pub(super) namespaces: Vec<WantedNamespace>,
    /// Each tenant's parent.
    pub(super) parents: HashMap<i64, i64>,
}

/// A finding, and the tenant that the reconciler should look at again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) database: String,
    pub(super) object: String,
    pub(super) what: String,
    pub(super) again: Option<(TenantId, i64)>,
    pub(super) advice: &'static str,
}

/// What differs between what is wanted and what is.
pub(super) fn compare(wanted: &Wanted, seen: &[Surveyed]) -> Vec<Found> {
    let databases: HashMap<&str, &Surveyed> = seen
        .iter()
        .map(|seen| (seen.database.as_str(), seen))
        .collect();
    let mut found = Vec::new();
    let mut gone = HashSet::new();
    for place in wanted.places.iter().filter(|place| place.settled) {
        let database = place.placement.database(place.id);
        if let Some(seen) = databases.get(database.as_str()) {
            door(place, &wanted.parents, seen, &mut found);
        } else {
            gone.insert(place.id);
            let object = format!("tenant {}", place.slug);
            found.push(report(&database, object, "its database is gone", LOST));
        }
    }
    let places: HashMap<TenantId, &WantedPlace> = wanted
        .places
        .iter()
        .map(|place| (place.id, place))
        .collect();
    for namespace in &wanted.namespaces {
        let place = namespace.tenant.and_then(|id| places.get(&id)).copied();
        if place.is_some_and(|place| !place.settled || gone.contains(&place.id)) {
            continue;
        }
        tables(namespace, place, &databases, &mut found);
    }
    for seen in seen {
        nobodys(&places, seen, &mut found);
    }
    found
}

/// A tenant's home row and lineage.
fn door(place: &WantedPlace, parents: &HashMap<i64, i64>, seen: &Surveyed, found: &mut Vec<Found>) {
    let state = match place.desired {
        Desired::Active => HomeState::Active,
        Desired::Suspended => HomeState::Suspended,
        Desired::Deleted => return,
    };
    let number = place.id.number();
    let mut differs = |what: &str| {
        found.push(Found {
            database: seen.database.clone(),
            object: format!("tenant {}", place.slug),
            what: what.to_owned(),
            again: Some((place.id, place.generation)),
            advice: AGAIN,
        });
    };
    match seen.homes.get(&number) {
        None => differs("its home row is missing"),
        // Only a move makes the epoch grow, and one on its way is not looked at.
        Some((_, epoch)) if *epoch > place.placement.epoch => {
            let object = format!("tenant {}", place.slug);
            let what = format!("it has left at epoch {epoch}, which the registry does not know");
            found.push(report(&seen.database, object, &what, OUTDATED));
            return;
        }
        Some(home) if *home != (Some(state), place.placement.epoch) => {
            differs("its home row has another state or epoch");
        }
        Some(_) => {}
    }
    let lineage = seen.lineages.get(&number).cloned().unwrap_or_default();
    if lineage != ancestors(number, parents) {
        differs("other tenants may read it than its ancestors");
    }
}

/// The numbers of a tenant's ancestors, itself included, in ascending order.
fn ancestors(number: i64, parents: &HashMap<i64, i64>) -> Vec<i64> {
    let mut line = vec![number];
    let mut next = number;
    while let Some(parent) = parents.get(&next) {
        // A cycle, made by hand, ends too.
        if line.contains(parent) {
            break;
        }
        line.push(*parent);
        next = *parent;
    }
    line.sort_unstable();
    line
}

/// The tables of a namespace.
fn tables(
    namespace: &WantedNamespace,
    place: Option<&WantedPlace>,
    databases: &HashMap<&str, &Surveyed>,
    found: &mut Vec<Found>,
) {
    let own = place.and_then(|place| Some((place, place.own_schema(&namespace.module)?)));
    let (database, schema) = match own {
        Some((place, schema)) => (place.placement.database(place.id), schema),
        // A tenant that has just moved into the shared tier has no tables of its own any more.
        None if namespace.tenant.is_some() => return,
        None => (
            waangu_kernel::placement::SHARED_DATABASE.to_owned(),
            namespace.module.to_string(),
        ),
    };
    let wanted = usize::try_from(namespace.steps).unwrap_or(0);
    let seen = databases.get(database.as_str());
    let stands = seen.is_some_and(|seen| seen.schemas.contains(&schema));
    let have = seen
        .and_then(|seen| seen.steps.get(&schema))
        .copied()
        .unwrap_or(0);
    if !stands || have == 0 && wanted > 0 {
        found.push(report(
            &database,
            format!("schema {schema}"),
            "it is gone",
            LOST,
        ));
    } else if have < wanted {
        found.push(Found {
            again: place.map(|place| (place.id, place.generation)),
            ..report(
                &database,
                format!("schema {schema}"),
                &format!("it has {have} of {wanted} migrations"),
                "switch the module off and on for one of its tenants: that runs what is missing",
            )
        });
    }
}

/// Home rows and schemas of tenants that do not live there.
fn nobodys(places: &HashMap<TenantId, &WantedPlace>, seen: &Surveyed, found: &mut Vec<Found>) {
    let lives_here = |number: i64| {
        let place = TenantId::new(number).ok().and_then(|id| places.get(&id));
        // One on its way may be in two places.
        place.is_some_and(|place| {
            !place.settled || place.placement.database(place.id) == seen.database
        })
    };
    // A row that says that its tenant has left stays for good.
    let doors = seen.homes.iter().filter(|(_, (state, _))| state.is_some());
    let mut homes: Vec<&i64> = doors
        .map(|(id, _)| id)
        .filter(|id| !lives_here(**id))
        .collect();
    homes.sort_unstable();
    for number in homes {
        let object = format!("home row of ten_{number}");
        found.push(report(
            &seen.database,
            object,
            "no tenant of this number lives here",
            NOBODYS,
        ));
    }
    let owner = |schema: &str| -> Option<i64> {
        schema.strip_prefix("t_")?.split_once('_')?.0.parse().ok()
    };
    let stray = |schema: &&String| owner(schema).is_some_and(|number| !lives_here(number));
    let mut schemas: Vec<&String> = seen.schemas.iter().filter(stray).collect();
    schemas.sort_unstable();
    for schema in schemas {
        found.push(report(
            &seen.database,
            format!("schema {schema}"),
            "no tenant of this number lives here",
            NOBODYS,
        ));
    }
}

fn report(database: &str, object: String, what: &str, advice: &'static str) -> Found {
    Found {
        database: database.to_owned(),
        object,
        what: what.to_owned(),
        again: None,
        advice,
    }
}

#[cfg(test)]
mod tests {
    use waangu_kernel::{Placement, Tier};

    use super::*;

    fn place(number: i64, tier: Tier) -> WantedPlace {
        WantedPlace {
            id: TenantId::new(number).unwrap(),
            slug: format!("t{number}").parse().unwrap(),
            placement: Placement {
                cell: "cell".parse().unwrap(),
                tier,
                bucket: 1,
                epoch: 1,
            },
            desired: Desired::Active,
            generation: 3,
            settled: true,
        }
    }

    fn namespace(tenant: Option<i64>) -> WantedNamespace {
        WantedNamespace {
            module: "stock".parse().unwrap(),
            tenant: tenant.map(|number| TenantId::new(number).unwrap()),
            steps: 2,
        }
    }

    /// Tenant 1 shares tables, 2, below it, has a schema; all is as it should be.
    fn world() -> (Wanted, Vec<Surveyed>) {
        let wanted = Wanted {
            places: vec![place(1, Tier::Shared), place(2, Tier::Schema)],
            namespaces: vec![namespace(None), namespace(Some(2))],
            parents: HashMap::from([(2, 1)]),
        };
        let seen = |database: &str, number, line: &[i64], schema: &str| Surveyed {
            database: database.to_owned(),
            homes: HashMap::from([(number, (Some(HomeState::Active), 1))]),
            lineages: HashMap::from([(number, line.to_vec())]),
            steps: HashMap::from([(schema.to_owned(), 2)]),
            schemas: HashSet::from([schema.to_owned()]),
        };
        let shared = seen("waangu", 1, &[1], "stock");
        let bucket = seen("waangu_schema_1", 2, &[1, 2], "t_2_stock");
        (wanted, vec![shared, bucket])
    }

    /// One thing that somebody may have done by hand.
    fn bend(case: usize, wanted: &mut Wanted, seen: &mut Vec<Surveyed>) {
        let name = "t_2_stock".to_owned();
        let suspended = (Some(HomeState::Suspended), 1);
        match case {
            0 => seen[1].homes.clear(),
            1 => seen[1].homes = HashMap::from([(2, suspended)]),
            2 => seen[1].lineages = HashMap::from([(2, vec![2])]),
            3 => seen[1].steps = HashMap::from([(name, 1)]),
            4 => seen[1].schemas.clear(),
            5 => seen.truncate(1),
            6 => seen[0].homes.extend([(9, suspended)]),
            7 => seen[1].schemas.extend(["t_9_stock".to_owned()]),
            // Left, says the cell.
            8 => seen[1].homes = HashMap::from([(2, (None, 2))]),
            // Being changed just now.
            9 => {
                wanted.places[1].settled = false;
                seen[1].homes.clear();
                seen[1].schemas.clear();
            }
            // Left long ago.
            10 => seen[0].homes.extend([(2, (None, 1))]),
            _ => {}
        }
    }

    /// What can be made again without loss is, and nothing else.
    #[test]
    fn each_drift_is_told_apart() {
        let again = Some((TenantId::new(2).unwrap(), 3));
        for case in 0..=11 {
            let (mut wanted, mut seen) = world();
            bend(case, &mut wanted, &mut seen);
            let found = compare(&wanted, &seen);
            let cures: Vec<_> = found.iter().map(|found| found.again).collect();
            let expected = match case {
                0..=3 => vec![again],
                4..=8 => vec![None],
                _ => vec![],
            };
            assert_eq!(cures, expected, "case {case}: {found:?}");
        }
    }
}
