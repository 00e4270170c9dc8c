//! A session with one of the platform's databases.

use tokio::task::JoinSet;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row};

/// A session; its connection ends with it.
pub(crate) struct Session {
    client: Client,
    _connection: JoinSet<()>,
}

impl Session {
    pub(crate) async fn open(dsn: &str) -> Self {
        Self::try_open(dsn).await.unwrap()
    }

    pub(crate) async fn try_open(dsn: &str) -> Result<Self, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { drop(connection.await) });
        Ok(Self {
            client,
            _connection: tasks,
        })
    }

    pub(crate) async fn rows(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        let rows = self.client.query(sql, values).await;
        rows.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    pub(crate) async fn try_rows(
        &self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        self.client.query(sql, values).await
    }

    /// The one number that a query gives.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        self.rows(sql, &[]).await[0].get(0)
    }

    /// The one number that a query gives, if it is allowed.
    pub(crate) async fn try_number(&self, sql: &str) -> Result<i64, tokio_postgres::Error> {
        Ok(self.client.query_one(sql, &[]).await?.get(0))
    }

    /// The texts of a query's first column.
    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        let rows = self.rows(sql, &[]).await;
        rows.iter().map(|row| row.get(0)).collect()
    }
}

/// The same login in another database.
pub(crate) fn in_database(dsn: &str, database: &str) -> String {
    let (server, _) = dsn.rsplit_once('/').unwrap();
    format!("{server}/{database}")
}
