//! A plain session of the administrator, for what a bench sets up and counts.

use tokio_postgres::Client;
use tokio_postgres::types::FromSqlOwned;

use crate::failure::{Failure, Of as _};
use crate::peers::server::Server;

/// A session; it ends when this is dropped.
pub(super) struct Database(Client);

impl Database {
    /// Connects to one of the server's databases.
    pub(super) async fn open(server: &Server, database: &str) -> Result<Self, Failure> {
        server.connect(database).await.map(Self)
    }

    /// Statements without an answer.
    pub(super) async fn run(&self, sql: &str) -> Result<(), Failure> {
        self.0.batch_execute(sql).await.map_err(|error| {
            let why = error
                .as_db_error()
                .map_or_else(|| error.to_string(), |refused| refused.message().to_owned());
            Failure::new(format!("{why}: {sql}"))
        })
    }

    /// The one value of the one row.
    pub(super) async fn one<T: FromSqlOwned>(&self, sql: &str) -> Result<T, Failure> {
        self.0.query_one(sql, &[]).await.of(sql)?.try_get(0).of(sql)
    }

    /// The one value of each row.
    pub(super) async fn all<T: FromSqlOwned>(&self, sql: &str) -> Result<Vec<T>, Failure> {
        let rows = self.0.query(sql, &[]).await.of(sql)?;
        rows.iter().map(|row| row.try_get(0).of(sql)).collect()
    }
}
