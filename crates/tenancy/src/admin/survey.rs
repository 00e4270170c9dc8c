//! Everything that a cell has of everybody, with a fixed number of queries for each database.

use std::collections::{HashMap, HashSet};

use deadpool_postgres::Object;
use futures_util::{StreamExt as _, TryStreamExt as _, stream, try_join};
use tokio_postgres::Error;
use waangu_kernel::Fault;

use super::{CellAdmin, HomeState, column as at};
use crate::error::from_driver;

/// Databases that are looked at in the same moment.
const AT_ONCE: usize = 2;

/// What one database has.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Surveyed {
    /// Its name.
    pub database: String,
    /// The home row of each tenant, with its epoch; `None` for a state that nobody serves.
    pub homes: HashMap<i64, (Option<HomeState>, i64)>,
    /// Who may read each tenant, in ascending order.
    pub lineages: HashMap<i64, Vec<i64>>,
    /// Migrations that each schema has had.
    pub steps: HashMap<String, usize>,
    /// The schemas of modules.
    pub schemas: HashSet<String>,
}

impl CellAdmin {
    /// Looks at all databases that hold tenants.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn survey(&self) -> Result<Vec<Surveyed>, Fault> {
        let names = self.list_databases().await?;
        stream::iter(names)
            .map(|database| self.survey_one(database))
            .buffered(AT_ONCE)
            .try_collect()
            .await
    }

    async fn survey_one(&self, database: String) -> Result<Surveyed, Fault> {
        let client = self.visit(&database).await?;
        let (homes, lineages, steps, schemas) = try_join!(
            client.query("select tenant_id, state, epoch from waangu.home", &[]),
            client.query(
                "select descendant, array_agg(ancestor order by ancestor)
                   from waangu.closure group by descendant",
                &[]
            ),
            client.query(
                "select schema_name, count(*) from waangu.migration group by schema_name",
                &[]
            ),
            client.query(
                "select nspname::text from pg_namespace
                  where nspname !~ '^pg_' and nspname not in ('information_schema', 'public', 'waangu'
                                                                  , 'waangu_migration')",
                &[]
            ),
        )
        .map_err(from_driver)?;
        let mut seen = Surveyed {
            database,
            ..Surveyed::default()
        };
        for row in homes {
            let state = match at::<&str>(&row, 1)? {
                "active" => Some(HomeState::Active),
                "suspended" => Some(HomeState::Suspended),
                _ => None,
            };
            seen.homes.insert(at(&row, 0)?, (state, at(&row, 2)?));
        }
        for row in lineages {
            seen.lineages.insert(at(&row, 0)?, at(&row, 1)?);
        }
        for row in steps {
            let count: i64 = at(&row, 1)?;
            let count = usize::try_from(count).unwrap_or(0);
            seen.steps.insert(at(&row, 0)?, count);
        }
        for row in schemas {
            seen.schemas.insert(at(&row, 0)?);
        }
        Ok(seen)
    }

    /// Runs statements in a database, each in a transaction of its own: one that waits in vain for a table
    /// undoes no other.
    ///
    /// # Errors
    /// `database-unavailable`; `internal` when one is refused. It is the first one's; those behind it were tried.
    pub async fn mend(&self, database: &str, statements: &[String]) -> Result<(), Fault> {
        let mut client = self.visit(database).await?;
        let mut all = Ok(());
        for statement in statements {
            all = all.and(run(&mut client, statement).await);
        }
        all.map_err(from_driver)
    }
}

async fn run(client: &mut Object, statement: &str) -> Result<(), Error> {
    let tx = client.transaction().await?;
    tx.batch_execute("set local lock_timeout = '2s'").await?;
    tx.batch_execute(statement).await?;
    tx.commit().await
}
