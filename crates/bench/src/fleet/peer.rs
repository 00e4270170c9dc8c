//! The peer with many tenants: django-tenants, and how long `migrate_schemas` takes over all of them.
//!
//! Its tenants are made by SQL, the same tables and records as its own migrations make. Its time is that
//! of the command, Python's start (a fraction of a second) included.

use tokio::time::Instant;

use super::crowd::Crowd;
use super::database::Database;
use crate::failure::{Failure, Of as _};
use crate::peers::django::upgrade::{Executor, Seen};
use crate::peers::django::{DATABASE, Django};
use crate::peers::ledger20::{self, Side};

/// Connections that make its tenants.
const CONNECTIONS: usize = 4;

/// It, with so many tenants.
pub(super) struct Peer {
    pub(super) django: Django,
    statistics: Database,
    pub(super) tenants: usize,
}

/// One run of `migrate_schemas`.
pub(super) struct Ran {
    pub(super) seconds: f64,
    /// What it asked the server.
    pub(super) statements: i64,
}

impl Peer {
    /// So many tenants on the crowd's server; one of them is the pattern of the others.
    pub(super) async fn prepare(crowd: &Crowd, tenants: usize) -> Result<Self, Failure> {
        let stage = &crowd.stage;
        let django = Django::prepare(&stage.server, &stage.scratch, 1).await?;
        django.fill(CONNECTIONS, 1..tenants).await?;
        let own = Database::open(&stage.server, DATABASE).await?;
        // A database that lets everybody in is drift on a cell, and would be found.
        let closed = format!("revoke all on database {DATABASE} from public");
        own.run(&closed).await?;
        // Alone: with others it is one transaction, which would lock all tables at once.
        own.run("analyze").await?;
        Ok(Self {
            django,
            statistics: Database::open(&stage.server, "postgres").await?,
            tenants,
        })
    }

    /// A newer version comes with one column and one index more.
    pub(super) fn deploy(&mut self, name: &str, column: &str) -> Result<(), Failure> {
        let sql = ledger20::next(Side::Plain, column);
        self.django.deploy(name, &sql)
    }

    /// `migrate_schemas`, to its end.
    pub(super) async fn migrate(&self, executor: Executor) -> Result<Ran, Failure> {
        let reset = "select pg_stat_statements_reset()";
        self.statistics.run(reset).await?;
        let began = Instant::now();
        self.django.migrate_all(executor).await?;
        let seconds = began.elapsed().as_secs_f64();
        let statements = format!(
            "select coalesce(sum(s.calls), 0)::bigint from pg_stat_statements s
               join pg_database d on d.oid = s.dbid and d.datname = '{DATABASE}'"
        );
        Ok(Ran {
            seconds,
            statements: self.statistics.one(&statements).await?,
        })
    }

    /// Tenants a second.
    pub(super) fn pace(&self, ran: &Ran) -> f64 {
        let tenants = u32::try_from(self.tenants).unwrap_or(u32::MAX);
        f64::from(tenants) / ran.seconds
    }

    /// How many tenants stand so with the last migration.
    pub(super) async fn count(&self, column: &str, state: Seen) -> Result<usize, Failure> {
        let seen = self.django.look(column).await.of("look at the peer")?;
        Ok(seen.iter().filter(|(_, seen)| *seen == state).count())
    }

    /// Refuses a run that has left somebody out: it would look fast.
    pub(super) async fn require_all(&self, column: &str) -> Result<(), Failure> {
        let have = self.count(column, Seen::After).await?;
        if have == self.tenants {
            return Ok(());
        }
        let tenants = self.tenants;
        Err(Failure::new(format!(
            "{have} of the peer's {tenants} tenants have {column}"
        )))
    }
}
