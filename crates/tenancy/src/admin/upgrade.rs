//! Bringing many namespaces of one database to a package, one transaction for each.
//!
//! What it costs is what bounds a fleet, so a namespace is one message: the migrations; `waangu.protect`,
//! which mostly does no more than look whether every table still has the uniform rules; and the commit.
//!
//! Invariants:
//! - after the commit every rule of isolation holds: a schema that breaks one is not committed, and a table
//!   whose policies or rights differ in anything from what `waangu.policies` says is protected anew;
//! - a namespace whose migration fails is as it was;
//! - no statement waits for a lock or runs longer than the limits say;
//! - no migration decides how the next message is read: it is the simple protocol only, so there are no
//!   statements whose names could be taken, and what would change its meaning is reset before the commit.
//!   Settings that don't may stay for the package's next namespace, which they can make fail.

use std::collections::HashMap;
use std::time::Duration;

use deadpool_postgres::Object;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;
use waangu_kernel::{Fault, fault};

use super::package::{migration_sql, protection_sql};
use super::{CellAdmin, ModulePackage, literal};
use crate::error::from_driver;

/// Namespaces after which a connection is closed: a server process never gives back the catalogue
/// memory of the schemas it has seen (data-plane design §4).
const LIFE: usize = 200;

/// What bounds an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpgradeLimits {
    /// Longest wait for a lock: everybody who wants the table waits behind us meanwhile.
    pub lock: Duration,
    /// Longest run of one statement.
    pub statement: Duration,
}

impl Default for UpgradeLimits {
    fn default() -> Self {
        Self {
            lock: Duration::from_secs(2),
            statement: Duration::from_mins(5),
        }
    }
}

/// What was done for a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgraded {
    /// So many migrations ran.
    Migrated(usize),
    /// It had them all.
    AlreadyThere,
    /// It has more than the package knows.
    Newer,
}

/// A connection on which namespaces of one database are brought to one package, one after another.
#[derive(Debug)]
pub struct Upgrader {
    client: Object,
    package: ModulePackage,
    limits: UpgradeLimits,
    /// How many migrations each schema has, as far as is known.
    have: HashMap<String, usize>,
    worked: usize,
}

impl CellAdmin {
    /// Opens a connection for upgrades.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn upgrader(
        &self,
        database: &str,
        package: &ModulePackage,
        limits: UpgradeLimits,
    ) -> Result<Upgrader, Fault> {
        let client = self.visit(database).await?;
        // The server of a control process that has died shall notice within a second; not all systems on
        // which PostgreSQL runs can.
        let _noticed = client
            .batch_execute("set client_connection_check_interval = 1000")
            .await;
        let sql = "select schema_name, count(*) from waangu.migration where module = $1 group by 1";
        let rows = client
            .query(sql, &[&package.id().as_str()])
            .await
            .map_err(from_driver)?;
        let mut have = HashMap::with_capacity(rows.len());
        for row in rows {
            let count: i64 = row.try_get(1).map_err(from_driver)?;
            let schema = row.try_get(0).map_err(from_driver)?;
            have.insert(schema, usize::try_from(count).unwrap_or(0));
        }
        Ok(Upgrader {
            client,
            package: package.clone(),
            limits,
            have,
            worked: 0,
        })
    }
}

impl Upgrader {
    /// Whether the connection has seen enough and should be closed.
    pub fn is_spent(&self) -> bool {
        self.worked >= LIFE || self.client.is_closed()
    }

    /// Brings a schema to the package, which it is known to have had `steps` migrations of.
    ///
    /// # Errors
    /// `namespace-lost` when it has none of them; `module-manifest-invalid` when a migration breaks a rule
    /// of isolation; `internal` when its SQL fails; `database-unavailable` when a lock was not to be had
    /// or the server does not answer.
    pub async fn upgrade(&mut self, schema: &str, steps: usize) -> Result<Upgraded, Fault> {
        let have = self.have.get(schema).copied().unwrap_or(0);
        let wanted = self.package.migrations.len();
        if have == 0 && steps > 0 {
            return Err(
                fault::NAMESPACE_LOST.fault(format!("schema {schema} is not there any more"))
            );
        }
        if have > wanted {
            return Ok(Upgraded::Newer);
        }
        self.worked += 1;
        let done = self.migrate(schema, have).await;
        if done.is_err() && !self.client.is_closed() {
            // The transaction has failed; on this connection the next can begin.
            let rolled_back = self.client.batch_execute("rollback").await;
            rolled_back.map_err(from_driver)?;
        }
        match done {
            Ok(()) => {}
            Err(error) if is_taken(&error) && self.count(schema).await? > have => {
                return Box::pin(self.upgrade(schema, steps)).await;
            }
            Err(error) => return Err(from_driver(error)),
        }
        self.have.insert(schema.to_owned(), wanted);
        Ok(if have == wanted {
            Upgraded::AlreadyThere
        } else {
            Upgraded::Migrated(wanted - have)
        })
    }

    /// Looks again how many migrations a schema has.
    async fn count(&mut self, schema: &str) -> Result<usize, Fault> {
        let (name, module) = (literal(schema), literal(self.package.id().as_str()));
        let sql = format!(
            "select count(*) from waangu.migration where schema_name = {name} and module = {module}"
        );
        let answer = self.client.simple_query(&sql).await.map_err(from_driver)?;
        let count = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
            _ => None,
        });
        let count = count.unwrap_or(0);
        self.have.insert(schema.to_owned(), count);
        Ok(count)
    }

    async fn migrate(&self, schema: &str, have: usize) -> Result<(), tokio_postgres::Error> {
        // Set for each, because a migration can set it for the session. Nothing is compiled for statements of
        // which each runs once. The same lock as a reconciler's that brings in the first tenant of a shared
        // schema; whoever was first, the migration's number is then taken.
        let script = format!(
            "begin;
             set local lock_timeout = {lock}; set local statement_timeout = {statement}; set local jit = off;
             select pg_advisory_xact_lock(-3, hashtext({name}));
             {migrations}
             set local lock_timeout = {lock}; set local statement_timeout = {statement};
             {protection};
             commit",
            lock = self.limits.lock.as_millis(),
            statement = self.limits.statement.as_millis(),
            name = literal(schema),
            migrations = migration_sql(schema, &self.package, have),
            protection = protection_sql(schema, &self.package),
        );
        self.client.batch_execute(&script).await
    }
}

/// Whether a migration's number was taken.
fn is_taken(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|said| {
        *said.code() == SqlState::UNIQUE_VIOLATION
            && (said.schema(), said.table()) == (Some("waangu"), Some("migration"))
    })
}
