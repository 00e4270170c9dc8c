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

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use waangu_kernel::{CellId, Fault, TenantId};
use waangu_registry::{Finding, Repair, Session, Tx};
use waangu_tenancy::{CellAdmin, Mend, Rules};

use crate::reconcile::{Reconciler, operator_text};

mod compare;

use compare::{AGAIN, Wanted, compare};

/// Verbs of statements that touch no row.
const HARMLESS: [&str; 5] = [
    "revoke ",
    "grant ",
    "create policy ",
    "drop policy ",
    "alter default privileges ",
];

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
    // Not of the newest alone: until its rollout is over, others are as they were made.
    let modules = tx.list_manifests_in_use().await?;
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
            tracing::warn!(
                database = inspected.database,
                why,
                "not all drift was mended"
            );
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
    use super::*;

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
