//! Connections and transactions, and the one place where driver errors become faults.

use std::fmt;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{NoTls, Row};
use waangu_kernel::Fault;
use waangu_kernel::fault;

/// Longest wait for a free connection before a request is answered 503.
const POOL_WAIT: Duration = Duration::from_secs(5);

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
        let config: tokio_postgres::Config = dsn
            .parse()
            .map_err(|error| internal(format!("control dsn: {error}")))?;
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
        Ok(Session { client })
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registry")
    }
}

/// One connection. Session-level locks ([`Session::claim`]) live as long as it does.
pub struct Session {
    pub(crate) client: Object,
}

impl Session {
    /// Begins a transaction; dropping it rolls back.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn begin(&mut self) -> Result<Tx<'_>, Fault> {
        let inner = self.client.transaction().await.map_err(from_driver)?;
        Ok(Tx { inner })
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

/// One transaction: the only door to the data.
pub struct Tx<'a> {
    inner: deadpool_postgres::Transaction<'a>,
}

impl Tx<'_> {
    /// Commits.
    ///
    /// # Errors
    /// `database-unavailable`; then it is unknown whether the commit happened.
    pub async fn commit(self) -> Result<(), Fault> {
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
        let statement = self.inner.prepare_cached(sql).await.map_err(from_driver)?;
        self.inner
            .query(&statement, params)
            .await
            .map_err(from_driver)
    }

    pub(crate) async fn row(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, Fault> {
        let statement = self.inner.prepare_cached(sql).await.map_err(from_driver)?;
        self.inner
            .query_opt(&statement, params)
            .await
            .map_err(from_driver)
    }

    pub(crate) async fn one(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, Fault> {
        let statement = self.inner.prepare_cached(sql).await.map_err(from_driver)?;
        self.inner
            .query_one(&statement, params)
            .await
            .map_err(from_driver)
    }

    pub(crate) async fn execute(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Fault> {
        let statement = self.inner.prepare_cached(sql).await.map_err(from_driver)?;
        self.inner
            .execute(&statement, params)
            .await
            .map_err(from_driver)
    }

    pub(crate) async fn batch(&self, sql: &str) -> Result<(), Fault> {
        self.inner.batch_execute(sql).await.map_err(from_driver)
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
        Some("tenant_not_its_own_parent") => fault::PARENT_CYCLE
            .fault("a tenant can't be its own parent")
            .field("parent"),
        _ if *db.code() == SqlState::QUERY_CANCELED
            || *db.code() == SqlState::ADMIN_SHUTDOWN
            || *db.code() == SqlState::TOO_MANY_CONNECTIONS =>
        {
            unavailable(db)
        }
        _ => internal(format!("{db} [{}]", db.code().code())),
    }
}
