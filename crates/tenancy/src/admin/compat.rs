//! Whether a module's programs of one release can work on the tables of the next: expand, then contract.
//!
//! Both packages' migrations run in a schema of their own, without rows, in one transaction that is
//! rolled back; what the catalogue says after the first is compared with what it says after the second
//! ([`compare`]). So nothing is asked of a parser, and nobody sees it.
//!
//! Left out: whether a migration fits the rows that are there (that shows in its rollout, tenant by
//! tenant); what a changed function or trigger does; what new values mean to an old program. The
//! previous release's own contract suite on the new tables tells more (`waangu_testkit::contract`).

use std::collections::BTreeMap;
use std::time::Duration;

use deadpool_postgres::Transaction;
use waangu_kernel::placement::SHARED_DATABASE;
use waangu_kernel::{Fault, fault};

use super::literal;
use super::package::migration_sql;
use super::{CellAdmin, ModulePackage, quoted};
use crate::error::from_driver;

const FACTS: &str = include_str!("../../sql/facts/compat.sql");

/// Longest statement of a trial.
const LONGEST: Duration = Duration::from_secs(20);

/// Something of a schema: what about it must stay, how wide it is, and which columns it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fact {
    keeps: String,
    width: String,
    columns: Vec<String>,
}

/// By kind and name.
type Facts = BTreeMap<(String, String), Fact>;

impl CellAdmin {
    /// What programs of `before` could not do any more on the tables of `after`, for people; empty, if
    /// nothing. `after` continues `before`. One that removes what is old may not change which tables
    /// only grow; the rest is its author's word.
    ///
    /// # Errors
    /// `module-manifest-invalid` when a migration of `after` fails even without rows;
    /// `database-unavailable`.
    pub async fn incompatibilities(
        &self,
        before: &ModulePackage,
        after: &ModulePackage,
    ) -> Result<Vec<String>, Fault> {
        let have = before.migrations.len();
        let schema = format!("trial_{}", before.id());
        let mut client = self.visit(SHARED_DATABASE).await?;
        let tx = client.transaction().await.map_err(from_driver)?;
        // Several control planes may try at once; a name can be taken by one transaction only.
        let begin = format!(
            "set local statement_timeout = {}; set local lock_timeout = '10s';
             select pg_advisory_xact_lock(-3, hashtext({}));
             create schema {} authorization waangu_owner;",
            LONGEST.as_millis(),
            literal(&schema),
            quoted(&schema)
        );
        let first = begin + &migration_sql(&schema, before, 0);
        tx.batch_execute(&first).await.map_err(from_driver)?;
        let old = facts(&tx, &schema).await?;
        let second = migration_sql(&schema, after, have);
        tx.batch_execute(&second).await.map_err(unable)?;
        let new = facts(&tx, &schema).await?;
        tx.rollback().await.map_err(from_driver)?;
        let mut found = compare(&old, &new, &after.manifest.widened);
        if after.manifest.contract {
            found.clear();
        }
        let lists = [before, after].map(|package| package.manifest.append_only.as_slice());
        found.extend(regrown(lists, &old, &new));
        Ok(found)
    }
}

/// Tables that would only grow from now on, or not any more. That is for ever, also in a release that
/// removes what is old: the rights of all namespaces are compared with one list of such tables, and so are
/// those that each version's programs find.
fn regrown([before, after]: [&[String]; 2], old: &Facts, new: &Facts) -> Vec<String> {
    let stands =
        |facts: &Facts, table: &String| facts.contains_key(&("relation".to_owned(), table.clone()));
    let stays = |table: &&String| stands(old, table) && stands(new, table);
    let only = |these: &'_ [String], those: &[String]| -> Vec<String> {
        let these = these.iter().filter(stays);
        these
            .filter(|table| !those.contains(table))
            .cloned()
            .collect()
    };
    let grow = only(after, before)
        .into_iter()
        .map(|table| format!("rows of {table} could not be changed or deleted any more"));
    let shrink = only(before, after)
        .into_iter()
        .map(|table| format!("rows of {table} could be changed and deleted from now on"));
    grow.chain(shrink).collect()
}

/// What the server could not do just now is no fault of the migration.
fn unable(error: tokio_postgres::Error) -> Fault {
    let why = error
        .as_db_error()
        .map_or_else(|| error.to_string(), ToString::to_string);
    let fault = from_driver(error);
    if fault.code() == fault::DATABASE_UNAVAILABLE.code {
        return fault;
    }
    fault::MODULE_MANIFEST_INVALID.fault(format!("a migration fails on tables without rows: {why}"))
}

async fn facts(tx: &Transaction<'_>, schema: &str) -> Result<Facts, Fault> {
    let rows = tx.query(FACTS, &[&schema]).await.map_err(from_driver)?;
    rows.iter()
        .map(|row| {
            let name = (
                row.try_get(0).map_err(from_driver)?,
                row.try_get(1).map_err(from_driver)?,
            );
            let fact = Fact {
                keeps: row.try_get(2).map_err(from_driver)?,
                width: row.try_get(3).map_err(from_driver)?,
                columns: row.try_get(4).map_err(from_driver)?,
            };
            Ok((name, fact))
        })
        .collect()
}

/// What has been taken away or narrowed. Constraints in `widened` are their author's word.
fn compare(old: &Facts, new: &Facts, widened: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for ((kind, name), before) in old {
        let key = (kind.clone(), name.clone());
        match (kind.as_str(), new.get(&key)) {
            // Freed rows: what an old program writes still fits.
            ("not-null" | "check" | "foreign key" | "exclusion", None) => {}
            // Of a table or column that is gone as a whole, it says so itself.
            (_, None) if is_orphan(new, kind, name) => {}
            (_, None) => found.push(format!("{kind} {name} is gone")),
            ("check" | "foreign key" | "exclusion" | "unique", Some(after)) => {
                if before.keeps != after.keeps && !is_widened(widened, name) {
                    found.push(format!(
                        "{kind} {name} has changed from `{}` to `{}`",
                        before.keeps, after.keeps
                    ));
                }
            }
            (_, Some(after)) => {
                if before.keeps != after.keeps {
                    found.push(format!(
                        "{kind} {name} has changed from {} to {}",
                        before.keeps, after.keeps
                    ));
                } else if is_narrower(&before.width, &after.width) {
                    found.push(format!("{kind} {name} has become shorter"));
                }
            }
        }
    }
    let added = new
        .iter()
        .filter(|(key, _)| !old.contains_key(*key) && !is_widened(widened, &key.1));
    found.extend(added.filter_map(|((kind, name), fact)| burden(old, new, kind, name, fact)));
    found
}

/// What something new asks of an old program, if anything.
fn burden(old: &Facts, new: &Facts, kind: &str, name: &str, fact: &Fact) -> Option<String> {
    let has = |facts: &Facts, kind: &str, name: &str| {
        facts.contains_key(&(kind.to_owned(), name.to_owned()))
    };
    let table = name.split('.').next().unwrap_or(name);
    // An old program knows nothing of a new table.
    if !has(old, "relation", table) && !has(old, "type", table) {
        return None;
    }
    let old_column = |column: &&String| has(old, "column", column);
    // It leaves a new column out: it is null, unless it has a default.
    let left_null = |column: &&String| {
        !has(old, "column", column) && !has(new, "default", column) && !has(new, "not-null", column)
    };
    match kind {
        "not-null" if has(old, "column", name) => Some(format!("{name} may not be null any more")),
        "not-null" if !has(new, "default", name) => Some(format!(
            "{name} is new, may not be null, and has no default"
        )),
        "check" | "exclusion"
            if fact.columns.iter().any(|c| old_column(&c)) || has(old, "type", table) =>
        {
            Some(format!("{kind} {name} is new: `{}`", fact.keeps))
        }
        "foreign key" | "unique"
            if fact.columns.iter().any(|c| left_null(&c)) && fact.width.is_empty() =>
        {
            None
        }
        "foreign key" | "unique" => Some(format!("{kind} {name} is new: `{}`", fact.keeps)),
        _ => None,
    }
}

fn is_orphan(new: &Facts, kind: &str, name: &str) -> bool {
    let stands = |kind: &str, name: &str| new.contains_key(&(kind.to_owned(), name.to_owned()));
    match (kind, name.split_once('.')) {
        ("relation" | "type" | "function", _) | (_, None) => false,
        ("default", Some(_)) => !stands("column", name),
        (_, Some((table, _))) => !(stands("relation", table) || stands("type", table)),
    }
}

fn is_widened(widened: &[String], name: &str) -> bool {
    let constraint = name.split_once('.').map(|(_, constraint)| constraint);
    widened
        .iter()
        .any(|wider| Some(wider.as_str()) == constraint)
}

/// Lengths as PostgreSQL keeps them; a negative one is none.
fn is_narrower(before: &str, after: &str) -> bool {
    match (before.parse::<i32>(), after.parse::<i32>()) {
        (Ok(before), Ok(after)) => after >= 0 && (before < 0 || after < before),
        _ => before != after,
    }
}
