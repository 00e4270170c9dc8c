//! What every database of a cell holds of the platform itself, the helper schema and the gateway's keys,
//! and how it is brought up to date while its tenants are served.
//!
//! Each database says which version of the schema it has (`waangu.core`). A comment on it repeats that,
//! with a digest of the keys, for all to be seen at once: where nothing is out of date, a look costs one
//! query for the cell and no visit.
//!
//! Invariants:
//! - a database is brought up to date by one transaction, mark and all: who dies has done nothing;
//! - meanwhile no transaction of a tenant is open there, so none begins under one version and reads under
//!   another. Those that run are waited for, a second at most, and the next ones wait behind us; if that is
//!   too long everybody goes on, and we try again. Who waits has begun with the old `enter`: it finds
//!   another version at its key and says that the tenant is moving, which modules wait out;
//! - what a newer program has made stays as it is;
//! - the template comes first: a copy of it is never older than what is looked at afterwards.
//!
//! Left out: what a version that changes policies means for modules' tables (`fleet repair` mends them).

use std::sync::LazyLock;
use std::time::Duration;

use deadpool_postgres::{Object, Transaction};
use futures_util::{StreamExt as _, stream};
use tokio_postgres::error::SqlState;
use waangu_identity::ContextKey;
use waangu_kernel::placement::SHARED_DATABASE;
use waangu_kernel::{Fault, fault};

use super::literal;
use super::{CORE, CellAdmin, PREPARE, PROTECT, TEMPLATE_DATABASE, column, database_closed};
use crate::error::{from_driver, is_unreachable, sql_state};

mod mark;

use mark::{Mark, Told, UNTOLD, digest};
pub(super) use mark::{copied_mark_sql, mark_sql};

/// The version of `sql/core.sql` and `sql/protect.sql`. A test compares it with their text.
const VERSION: i32 = 5;

/// Databases that are visited in the same moment.
const AT_ONCE: usize = 4;

/// How often a database whose tenants don't let us in is tried before the next look.
const ATTEMPTS: u32 = 4;

/// Pause after an attempt.
const PAUSE: Duration = Duration::from_millis(250);

/// Both scripts.
static TEXT: LazyLock<String> = LazyLock::new(|| {
    let core = CORE.replace("{version}", &VERSION.to_string());
    format!("{core};\n{PROTECT}")
});

/// The hash of that text.
pub(super) static HASH: LazyLock<String> = LazyLock::new(|| digest(TEXT.as_bytes()));

impl CellAdmin {
    /// Makes template and shared database if need be, and brings all databases up to date, with these keys
    /// and no others. The caller holds the lock of preparing.
    pub(super) async fn bring_up_to_date(
        &self,
        admin: &Object,
        keys: &[ContextKey],
    ) -> Result<(), Fault> {
        let told = Told::new(keys);
        if database_closed(admin, TEMPLATE_DATABASE).await?.is_none() {
            self.build_template(admin).await?;
        }
        let is_behind = |mark: &Option<Mark>| {
            let current = |mark: &Mark| !mark.is_behind() && mark.keys == told.digest;
            !mark.as_ref().is_some_and(current)
        };
        if is_behind(&self.mark(TEMPLATE_DATABASE).await?) {
            let open = format!("alter database {TEMPLATE_DATABASE} with allow_connections true");
            admin.batch_execute(&open).await.map_err(from_driver)?;
            self.refresh(TEMPLATE_DATABASE, None, Some(&told), true)
                .await?;
        }
        // Only superusers get in meanwhile. Whoever opened it may have been killed.
        let close = format!(
            "alter database {TEMPLATE_DATABASE} with is_template true allow_connections false"
        );
        admin.batch_execute(&close).await.map_err(from_driver)?;
        self.ensure_database(SHARED_DATABASE).await?;
        self.visit_all(admin, is_behind, Some(&told)).await
    }

    /// Brings the helper schema up to date wherever that was not possible so far. Keys are left alone.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn catch_up(&self) -> Result<(), Fault> {
        // What has no mark is of an older program or new, and is looked into once.
        let is_behind = |mark: &Option<Mark>| mark.as_ref().is_none_or(Mark::is_behind);
        let marks = self.list_marks().await?;
        if !marks.iter().any(|(_, mark)| is_behind(mark)) {
            return Ok(());
        }
        let admin = self.locked(PREPARE).await?;
        self.visit_all(&admin, is_behind, None).await
    }

    async fn visit_all(
        &self,
        admin: &Object,
        is_behind: impl Fn(&Option<Mark>) -> bool,
        told: Option<&Told<'_>>,
    ) -> Result<(), Fault> {
        let marks = self.list_marks().await?;
        let behind = marks.into_iter().filter(|(_, mark)| is_behind(mark));
        let visits = stream::iter(behind).map(async |(database, mark)| {
            let done = self.refresh_patiently(&database, mark, told).await;
            // A tenant may have been deleted meanwhile.
            if done.is_err() && database_closed(admin, &database).await?.is_some() {
                return done;
            }
            Ok(())
        });
        // One that is broken holds no other up.
        let done: Vec<_> = visits.buffer_unordered(AT_ONCE).collect().await;
        done.into_iter().collect()
    }

    /// Tries a few times. A database whose tenants are too busy, or that somebody has broken, is left for
    /// the next look; keys are told there all the same.
    async fn refresh_patiently(
        &self,
        database: &str,
        mark: Option<Mark>,
        told: Option<&Told<'_>>,
    ) -> Result<(), Fault> {
        for attempt in 1..=ATTEMPTS {
            let done = self.refresh(database, mark.as_ref(), told, true).await;
            match done {
                Err(failure) if is_busy(&failure) => {
                    tracing::info!(database, attempt, "no pause for a newer helper schema yet");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(failure) if told.is_some() && !is_unreachable(&failure) => {
                    let why = failure.operator_cause();
                    tracing::error!(
                        database,
                        why,
                        "the helper schema can't be brought up to date"
                    );
                    break;
                }
                done => return done,
            }
        }
        match told {
            Some(_) => self.refresh(database, mark.as_ref(), told, false).await,
            None => Ok(()),
        }
    }

    /// One visit, one transaction: the helper schema if it is behind and `schema` says so, and the keys.
    async fn refresh(
        &self,
        database: &str,
        mark: Option<&Mark>,
        told: Option<&Told<'_>>,
        schema: bool,
    ) -> Result<(), Fault> {
        let mut client = self.visit(database).await?;
        let tx = client.transaction().await.map_err(from_driver)?;
        let bounds = "set local lock_timeout = '1s'; set local statement_timeout = '60s';
                      set local client_min_messages = warning";
        tx.batch_execute(bounds).await.map_err(from_driver)?;
        let keys = match (told, mark) {
            (Some(told), _) => told.digest.as_str(),
            (None, Some(mark)) => mark.keys.as_str(),
            (None, None) => UNTOLD,
        };
        let mut has = installed(&tx, keys).await?;
        if schema && has.as_ref().is_none_or(Mark::is_behind) {
            install(&tx).await?;
            has = Some(Mark::own(keys));
            tracing::info!(
                database,
                version = VERSION,
                "helper schema brought up to date"
            );
        } else if has.as_ref().is_some_and(|has| has.version > VERSION) {
            tracing::warn!(database, "the helper schema is of a newer program");
        }
        if let Some(told) = told {
            put_keys(&tx, told.keys).await?;
        }
        if let Some(mark) = has {
            let sql = mark_sql(database, &mark.to_string());
            tx.batch_execute(&sql).await.map_err(from_driver)?;
        }
        tx.commit().await.map_err(from_driver)
    }

    /// What the databases that can be visited are known to hold.
    async fn list_marks(&self) -> Result<Vec<(String, Option<Mark>)>, Fault> {
        let client = self.client("postgres").await?;
        let mut names = self.list_databases().await?;
        names.extend(self.list_stock().await?);
        let sql = "select datname::text, shobj_description(oid, 'pg_database') from pg_database
                    where datname = any ($1::text[])";
        let rows = client.query(sql, &[&names]).await.map_err(from_driver)?;
        rows.iter()
            .map(|row| {
                let mark: Option<&str> = column(row, 1)?;
                Ok((column(row, 0)?, mark.and_then(|text| text.parse().ok())))
            })
            .collect()
    }

    async fn mark(&self, database: &str) -> Result<Option<Mark>, Fault> {
        Ok(self
            .comment(database)
            .await?
            .and_then(|text| text.parse().ok()))
    }

    /// The comment on a database.
    pub(super) async fn comment(&self, database: &str) -> Result<Option<String>, Fault> {
        let client = self.client("postgres").await?;
        let sql =
            "select shobj_description(oid, 'pg_database') from pg_database where datname = $1";
        let row = client.query_opt(sql, &[&database]).await;
        let row = row.map_err(from_driver)?;
        row.map_or(Ok(None), |row| column(&row, 0))
    }
}

/// The script that makes a new helper schema.
pub(super) fn fresh_sql() -> String {
    format!("begin; {}; {}; commit", *TEXT, record_sql())
}

/// What the database says itself; `None` if it is older than this record. The keys are as given.
async fn installed(tx: &Transaction<'_>, keys: &str) -> Result<Option<Mark>, Fault> {
    let sql = "select to_regclass('waangu.core') is not null";
    let row = tx.query_one(sql, &[]).await.map_err(from_driver)?;
    if !column(&row, 0)? {
        return Ok(None);
    }
    let sql = "select version, hash from waangu.core";
    let row = tx.query_opt(sql, &[]).await.map_err(from_driver)?;
    row.map(|row| {
        Ok(Mark {
            version: column(&row, 0)?,
            hash: column(&row, 1)?,
            keys: keys.to_owned(),
        })
    })
    .transpose()
}

async fn install(tx: &Transaction<'_>) -> Result<(), Fault> {
    // In the order in which `enter` reads them.
    let alone = "lock table waangu.context_key in access exclusive mode;
                 lock table waangu.home in access exclusive mode";
    let script = format!("{alone}; {}; {}", *TEXT, record_sql());
    tx.batch_execute(&script).await.map_err(from_driver)
}

fn record_sql() -> String {
    format!(
        "insert into waangu.core (version, hash) values ({VERSION}, {})
         on conflict (one) do update
         set version = excluded.version
           , hash = excluded.hash
           , applied_at = now()",
        literal(&HASH)
    )
}

async fn put_keys(tx: &Transaction<'_>, keys: &[ContextKey]) -> Result<(), Fault> {
    for key in keys {
        let (inner, outer) = key.pads();
        let sql = "insert into waangu.context_key (kid, ipad, opad) values ($1, $2, $3)
                   on conflict (kid) do update
                   set ipad = excluded.ipad
                     , opad = excluded.opad
                   where waangu.context_key.ipad <> excluded.ipad";
        let params: [&(dyn crate::ToSql + Sync); 3] =
            [&key.kid(), &inner.as_slice(), &outer.as_slice()];
        tx.execute(sql, &params).await.map_err(from_driver)?;
    }
    // A key that has been rotated out proves nothing any more.
    let kids: Vec<i32> = keys.iter().map(ContextKey::kid).collect();
    let sql = "delete from waangu.context_key where kid <> all ($1)";
    let gone = tx.execute(sql, &[&kids]).await;
    gone.map(drop).map_err(from_driver)
}

/// Whether tenants' transactions were in the way.
fn is_busy(failure: &Fault) -> bool {
    let states = [
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::T_R_DEADLOCK_DETECTED,
    ];
    let found = sql_state(failure);
    failure.code() == fault::DATABASE_UNAVAILABLE.code
        && states.iter().any(|state| found == Some(state.code()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Databases of the version before would never hear of a change.
    #[test]
    fn the_version_was_raised_with_the_text() {
        assert_eq!(
            (VERSION, HASH.as_str()),
            (5, "d626f7be401e10bc"),
            "sql/core.sql or sql/protect.sql has changed: raise VERSION, and write both here"
        );
    }
}
