//! Drift: what the cells have is compared with what is wanted; what can be mended without losing data is
//! mended, the rest is reported.
//!
//! - a home row, lineage or migration that differs: the tenant's generation is raised, and the same loop
//!   as for everything else mends it;
//! - rights, policies and the like (the isolation inspection): its own statements, if they only grant,
//!   revoke, or make and drop policies;
//! - tables or databases that are gone, and such that belong to nobody: reported.
//!
//! Invariants: every query is over a whole database, so that a pass over ten thousand tenants asks as
//! often as one over ten; a tenant that is changed meanwhile is left out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use waangu_kernel::{CellId, Fault, TenantId};
use waangu_registry::{Desired, Finding, Repair, Session, Tx, WantedNamespace, WantedPlace};
use waangu_tenancy::admin::Surveyed;
use waangu_tenancy::{CellAdmin, HomeState, Mend, Rules};

use crate::reconcile::{Reconciler, operator_text};

const LOST: &str = "restore it from its backup; nothing is made in its place";
const NOBODYS: &str = "if nobody needs it, remove it by hand";
const AGAIN: &str = "reconciled again";

/// Verbs of statements that touch no row.
const HARMLESS: [&str; 5] = [
    "revoke ",
    "grant ",
    "create policy ",
    "drop policy ",
    "alter default privileges ",
];

/// What the registry wants of a cell.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) places: Vec<WantedPlace>,
    pub(crate) namespaces: Vec<WantedNamespace>,
    /// Each tenant's parent.
    pub(crate) parents: HashMap<i64, i64>,
}

/// A finding, and the tenant that the reconciler should look at again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) database: String,
    pub(crate) object: String,
    pub(crate) what: String,
    pub(crate) again: Option<(TenantId, i64)>,
    pub(crate) advice: &'static str,
}

/// How often is looked whether a repair is due or was asked for.
const POLL: Duration = Duration::from_secs(2);

/// A process that has just started has more urgent things to do.
const CALM: Duration = Duration::from_mins(1);

/// Repairs, whenever one is due, until told to stop.
pub(crate) async fn watch(
    reconciler: Arc<Reconciler>,
    every_seconds: i64,
    stop: CancellationToken,
) {
    let begun = Instant::now();
    while !stop.is_cancelled() {
        let every = if begun.elapsed() > CALM {
            every_seconds
        } else {
            0
        };
        if let Err(fault) = turn(&reconciler, every, &stop).await {
            tracing::warn!(cause = fault.operator_cause(), "repair: {fault}");
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = reconciler.repair.notified() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

/// Asks for a repair if the last one is so old, and does the one that is open, if nobody else does.
pub(crate) async fn turn(
    reconciler: &Reconciler,
    every_seconds: i64,
    stop: &CancellationToken,
) -> Result<(), Fault> {
    let mut session = reconciler.registry.session().await?;
    let tx = session.begin().await?;
    if every_seconds > 0 && tx.is_repair_due(every_seconds).await? {
        tx.create_repair("control", false).await?;
    }
    tx.commit().await?;
    let Some(repair) = session.claim_repair().await? else {
        return Ok(());
    };
    tokio::select! {
        done = run(reconciler, &mut session, &repair) => done?,
        // The next process begins it anew.
        () = stop.cancelled() => return Ok(()),
    }
    session.release_all().await
}

async fn run(reconciler: &Reconciler, session: &mut Session, repair: &Repair) -> Result<(), Fault> {
    let mut cells: Vec<_> = reconciler.cells.values().collect();
    cells.sort_by_key(|cell| cell.id().clone());
    let tx = session.begin().await?;
    let modules = tx.list_modules().await?;
    tx.commit().await?;
    let rules = Rules::new(modules.iter().map(|module| &module.manifest));
    let (mut findings, mut failures) = (Vec::new(), Vec::new());
    let (mut databases, mut tenants) = (0, 0);
    for cell in cells {
        let looked = async {
            let (count, places) = look(session, cell, repair.dry_run, &mut findings).await?;
            databases += count;
            tenants += places;
            isolation(cell, &rules, repair.dry_run, &mut findings).await
        };
        if let Err(failure) = looked.await {
            reconciler.circuits.failed(cell, &failure).await;
            failures.push(format!("cell {}: {}", cell.id(), operator_text(&failure)));
        }
    }
    let error = (!failures.is_empty()).then(|| failures.join("; "));
    let mended = findings.iter().filter(|finding| finding.mended).count();
    let summary = json!({
        "databases": databases, "tenants": tenants, "findings": findings.len(), "mended": mended,
    });
    for finding in &findings {
        let Finding {
            database,
            object,
            found,
            mend,
            mended,
            ..
        } = finding;
        tracing::warn!(database, object, found, mend, mended, "drift");
    }
    let tx = session.begin().await?;
    tx.finish_repair(repair.id, &findings, &summary, error.as_deref())
        .await?;
    if !findings.is_empty() {
        tx.record_audit(&repair.actor, "fleet.repair", None, &summary)
            .await?;
    }
    tx.commit().await?;
    reconciler.work.notify_one();
    Ok(())
}

/// Compares a cell with what is wanted there; says how many databases and tenants were looked at.
async fn look(
    session: &mut Session,
    cell: &CellAdmin,
    dry_run: bool,
    findings: &mut Vec<Finding>,
) -> Result<(usize, usize), Fault> {
    let tx = session.begin().await?;
    let before = read(&tx, cell.id()).await?;
    tx.commit().await?;
    let seen = cell.survey().await?;
    let tx = session.begin().await?;
    let mut after = read(&tx, cell.id()).await?;
    // Whoever was changed meanwhile may look odd in between.
    let same: HashSet<(TenantId, i64)> = before
        .places
        .iter()
        .filter(|place| place.settled)
        .map(|place| (place.id, place.generation))
        .collect();
    for place in &mut after.places {
        place.settled &= same.contains(&(place.id, place.generation));
    }
    // Tables that were made, or got newer, after they were looked at.
    after
        .namespaces
        .retain(|namespace| before.namespaces.contains(namespace));
    let found = compare(&after, &seen);
    let mut again: Vec<(TenantId, i64)> = found.iter().filter_map(|found| found.again).collect();
    again.sort_unstable();
    again.dedup();
    if !dry_run && !again.is_empty() {
        tx.touch_places(&again).await?;
    }
    tx.commit().await?;
    findings.extend(found.into_iter().map(|found| {
        Finding {
            cell: cell.id().clone(),
            mended: found.again.is_some() && !dry_run,
            mend: if found.again.is_some() {
                AGAIN
            } else {
                found.advice
            }
            .to_owned(),
            database: found.database,
            object: found.object,
            found: found.what,
        }
    }));
    Ok((seen.len(), after.places.len()))
}

async fn read(tx: &Tx<'_>, cell: &CellId) -> Result<Wanted, Fault> {
    Ok(Wanted {
        places: tx.list_wanted_places(cell).await?,
        namespaces: tx.list_wanted_namespaces(cell).await?,
        parents: tx.list_parents().await?.into_iter().collect(),
    })
}

/// What differs between what is wanted and what is. Pure.
pub(crate) fn compare(wanted: &Wanted, seen: &[Surveyed]) -> Vec<Found> {
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
        // Only a move makes the epoch grow, and it has its own way to end.
        Some((_, epoch)) if *epoch > place.placement.epoch => {}
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
    let mut homes: Vec<&i64> = seen.homes.keys().filter(|id| !lives_here(**id)).collect();
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

/// Looks for what is not as the rules of isolation say, mends what is harmless to mend, and looks again.
async fn isolation(
    cell: &CellAdmin,
    rules: &Rules,
    dry_run: bool,
    findings: &mut Vec<Finding>,
) -> Result<(), Fault> {
    let first = cell.inspect(rules).await?;
    let mut tried = false;
    for inspected in &first {
        let statements: Vec<String> = inspected
            .drifts
            .iter()
            .filter_map(|drift| harmless(&drift.mend))
            .collect();
        if dry_run || statements.is_empty() {
            continue;
        }
        tried = true;
        if let Err(failure) = cell.mend(&inspected.database, &statements).await {
            let why = operator_text(&failure);
            tracing::warn!(database = inspected.database, why, "drift was not mended");
        }
    }
    let left = if tried {
        cell.inspect(rules).await?
    } else {
        Vec::new()
    };
    let is_left = |database: &str, object: &str, found: &str| {
        let same = left
            .iter()
            .filter(|inspected| inspected.database == database);
        same.flat_map(|inspected| &inspected.drifts)
            .any(|drift| drift.object == object && drift.found == found)
    };
    for inspected in first {
        for drift in inspected.drifts {
            let mended = tried
                && harmless(&drift.mend).is_some()
                && !is_left(&inspected.database, &drift.object, &drift.found);
            findings.push(Finding {
                cell: cell.id().clone(),
                database: inspected.database.clone(),
                mend: drift.mend.to_string(),
                object: drift.object,
                found: drift.found,
                mended,
            });
        }
    }
    Ok(())
}

/// The statements, if each of them touches rights and policies only. A quoted name with a semicolon in it
/// is cut in two here, and its second half passes for no such statement: reported, not mended.
fn harmless(mend: &Mend) -> Option<String> {
    let Mend::Sql(sql) = mend else {
        return None;
    };
    let only_rules = sql.split(';').all(|statement| {
        let statement = statement.trim();
        HARMLESS.iter().any(|verb| statement.starts_with(verb))
            || statement.starts_with("alter table ")
                && statement.ends_with(" enable row level security, force row level security")
    });
    only_rules.then(|| sql.clone())
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
            // On its way elsewhere.
            8 => seen[1].homes = HashMap::from([(2, (None, 2))]),
            // Being changed just now.
            9 => {
                wanted.places[1].settled = false;
                seen[1].homes.clear();
                seen[1].schemas.clear();
            }
            _ => {}
        }
    }

    /// What can be made again without loss is, and nothing else.
    #[test]
    fn each_drift_is_told_apart() {
        let again = Some((TenantId::new(2).unwrap(), 3));
        for case in 0..=10 {
            let (mut wanted, mut seen) = world();
            bend(case, &mut wanted, &mut seen);
            let found = compare(&wanted, &seen);
            let cures: Vec<_> = found.iter().map(|found| found.again).collect();
            let expected = match case {
                0..=3 => vec![again],
                4..=7 => vec![None],
                _ => vec![],
            };
            assert_eq!(cures, expected, "case {case}: {found:?}");
        }
    }

    /// What drops a table, or hides that it does behind a name, is left to a person.
    #[test]
    fn only_rules_are_mended() {
        let sql = |text: &str| harmless(&Mend::Sql(text.to_owned())).is_some();
        assert!(sql("revoke select on t from public cascade"));
        assert!(sql(
            "drop policy a on t; create policy a on t as permissive for select to l using (true)"
        ));
        assert!(sql(
            "alter table t enable row level security, force row level security"
        ));
        for text in [
            "drop schema t cascade",
            "drop index i",
            "revoke all on t from public; drop table t",
            "drop policy \"a; drop table t\" on t",
            "alter table t drop constraint c",
            "",
        ] {
            assert!(!sql(text), "{text}");
        }
        assert!(harmless(&Mend::Advice("restore it")).is_none());
    }
}
