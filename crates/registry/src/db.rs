//! Connections and transactions, and the one place where driver errors become faults.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod};
use tokio_postgres::types::ToSql;
use tokio_postgres::{NoTls, Row};
use waangu_kernel::Fault;
use waangu_kernel::fault;

/// Longest wait for a free connection before a request is answered 503.
const POOL_WAIT: Duration = Duration::from_secs(5);

/// No statement, wait for a lock, or forgotten transaction holds the control database up for long; and a
/// process whose machine is gone keeps its claims for 20 s, not for the two hours that systems wait.
pub(crate) const BOUNDS: &str = "-c statement_timeout=30s -c lock_timeout=10s \
                                 -c idle_in_transaction_session_timeout=60s \
                                 -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 \
                                 -c tcp_keepalives_count=2 -c tcp_user_timeout=20s";

/// The control database.
#[derive(Clone)]
pub struct Registry {
    pool: Pool,
}

impl Registry {
    /// A registry behind a bounded pool. Connects lazily.
    ///
    /// # Errors
    /// `internal` when the DSN can't be parsed.
    pub fn new(dsn: &str, connections: usize) -> Result<Self, Fault> {
        let mut config: tokio_postgres::Config = dsn
            .parse()
            .map_err(|error| internal(format!("control dsn: {error}")))?;
        config.connect_timeout(POOL_WAIT).options(BOUNDS);
        let manager = Manager::from_config(
            config,
            NoTls,
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(manager)
            .max_size(connections)
            .wait_timeout(Some(POOL_WAIT))
            .create_timeout(Some(POOL_WAIT))
            .runtime(deadpool_postgres::Runtime::Tokio1)
            .build()
            .map_err(|error| internal(error.to_string()))?;
        Ok(Self { pool })
    }

    /// Borrows a connection.
    ///
    /// # Errors
    /// `database-unavailable` when none is free or the database does not answer in time.
    pub async fn session(&self) -> Result<Session, Fault> {
        let client = self.pool.get().await.map_err(|error| unavailable(&error))?;
        Ok(Session {
            client: Some(client),
            claims: Vec::new(),
        })
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registry")
    }
}

/// One connection. Session-level locks ([`Session::claim`]) live as long as it does.
pub struct Session {
    /// Present until the session is dropped.
    client: Option<Object>,
    /// Tenants whose lock this session has, or may have.
    pub(crate) claims: Vec<i64>,
}

impl Session {
    /// Begins a transaction; dropping it rolls back.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn begin(&mut self) -> Result<Tx<'_>, Fault> {
        let client = self.client.as_mut().ok_or_else(ended)?;
        let inner = client.transaction().await.map_err(from_driver)?;
        Ok(Tx {
            inner,
            failed: AtomicBool::new(false),
        })
    }

    /// Runs one statement, which is a transaction of its own.
    pub(crate) async fn rows(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Fault> {
        let client = self.client()?;
        let statement = client.prepare_cached(sql).await.map_err(from_driver)?;
        client.query(&statement, params).await.map_err(from_driver)
    }

    pub(crate) fn client(&self) -> Result<&Object, Fault> {
        self.client.as_ref().ok_or_else(ended)
    }
}

impl Drop for Session {
    /// Locks are the connection's: back in the pool, it would hold them for nobody.
    fn drop(&mut self) {
        if !self.claims.is_empty()
            && let Some(client) = self.client.take()
        {
            drop(Object::take(client));
        }
    }
}

fn ended() -> Fault {
    internal("the session has ended")
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

/// One transaction: the only door to the data.
pub struct Tx<'a> {
    inner: deadpool_postgres::Transaction<'a>,
    /// Whether a statement failed: PostgreSQL would answer COMMIT with a silent rollback.
    failed: AtomicBool,
}

impl Tx<'_> {
    /// Commits.
    ///
    /// # Errors
    /// `internal` when a statement failed before; `database-unavailable`: then it is unknown whether
    /// the commit happened.
    pub async fn commit(self) -> Result<(), Fault> {
        if self.failed.load(Ordering::Relaxed) {
            return Err(internal("commit after a failed statement"));
        }
        self.inner.commit().await.map_err(from_driver)
    }

    /// Commits without waiting for the disk: for progress reports, which may be lost in a crash of
    /// the server but never half-written.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn commit_lazily(self) -> Result<(), Fault> {
        self.batch("set local synchronous_commit = off").await?;
        self.commit().await
    }

    pub(crate) async fn rows(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Fault> {
        let result = match self.inner.prepare_cached(sql).await {
            Ok(statement) => self.inner.query(&statement, params).await,
            Err(error) => Err(error),
        };
        self.noted(result)
    }

    pub(crate) async fn row(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, Fault> {
        Ok(self.rows(sql, params).await?.into_iter().next())
    }

    pub(crate) async fn one(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, Fault> {
        let row = self.row(sql, params).await?;
        row.ok_or_else(|| internal("a row that must exist does not"))
    }

    pub(crate) async fn execute(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Fault> {
        let result = match self.inner.prepare_cached(sql).await {
            Ok(statement) => self.inner.execute(&statement, params).await,
            Err(error) => Err(error),
        };
        self.noted(result)
    }

    pub(crate) async fn batch(&self, sql: &str) -> Result<(), Fault> {
        self.noted(self.inner.batch_execute(sql).await)
    }

    fn noted<T>(&self, result: Result<T, tokio_postgres::Error>) -> Result<T, Fault> {
        result.map_err(|error| {
            self.failed.store(true, Ordering::Relaxed);
            from_driver(error)
        })
    }
}

impl fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tx")
    }
}

/// Reads a column, naming the column when the stored value does not fit its type.
pub(crate) fn column<'r, T: tokio_postgres::types::FromSql<'r>>(
    row: &'r Row,
    name: &'static str,
) -> Result<T, Fault> {
    row.try_get(name)
        .map_err(|error| internal(format!("column {name}: {error}")))
}

/// Reads a text column into a domain type.
pub(crate) fn parsed<T>(row: &Row, name: &'static str) -> Result<T, Fault>
where
    T: std::str::FromStr<Err = Fault>,
{
    let text: &str = column(row, name)?;
    text.parse()
        .map_err(|fault: Fault| internal(format!("stored {name} `{text}`: {fault}")))
}

pub(crate) fn internal(cause: impl fmt::Display) -> Fault {
    fault::INTERNAL
        .fault("the registry is in a state it should not be in")
        .cause(cause)
}

fn unavailable(cause: &dyn fmt::Display) -> Fault {
    fault::DATABASE_UNAVAILABLE
        .fault("the control database can't be reached")
        .cause(cause)
}

/// The one place where a constraint becomes a fault in the domain's words.
#[expect(
    clippy::needless_pass_by_value,
    reason = "used as a function value in map_err"
)]
pub(crate) fn from_driver(error: tokio_postgres::Error) -> Fault {
    let Some(db) = error.as_db_error() else {
        return unavailable(&error);
    };
    match db.constraint() {
        Some("tenant_slug_key") => fault::SLUG_TAKEN
            .fault("another tenant has this slug")
            .field("slug"),
        Some("app_user_username_key") => fault::USERNAME_TAKEN
            .fault("the tenant has a user of this name")
            .field("username"),
        Some("tenant_plan_fkey") => fault::PLAN_IN_USE.fault("tenants have this plan"),
        Some("rollout_open_key") => {
            fault::ROLLOUT_OPEN.fault("another rollout of this module is not over yet")
        }
        Some("relocation_open_key") => {
            fault::RELOCATION_OPEN.fault("the tenant is on its way already")
        }
        Some("repair_open_key") => fault::REPAIR_OPEN.fault("another repair is not over yet"),
        Some("tenant_not_its_own_parent") => fault::PARENT_CYCLE
            .fault("a tenant can't be its own parent")
            .field("parent"),
        // 53: out of resources, 55: locked by another, 57: shut down or cancelled, 08: connection,
        // 40: rolled back for another's sake (deadlock): the same request may succeed later.
        _ if matches!(
            db.code().code().get(..2),
            Some("53" | "55" | "57" | "08" | "40")
        ) =>
        {
            unavailable(db)
        }
        _ => internal(format!("{db} [{}]", db.code().code())),
    }
}
