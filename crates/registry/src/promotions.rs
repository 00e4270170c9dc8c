//! Which version of a module an environment has run, and which it may receive.

use time::OffsetDateTime;
use waangu_kernel::{Fault, ModuleId};

use crate::db::{Tx, column, parsed};

/// A version that an environment has run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleRun {
    /// The environment.
    pub environment: String,
    /// The module.
    pub module: ModuleId,
    /// The version.
    pub version: String,
    /// Since when.
    pub since: OffsetDateTime,
}

/// A version that an environment may receive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promotion {
    /// The environment.
    pub environment: String,
    /// The module.
    pub module: ModuleId,
    /// The version.
    pub version: String,
    /// Who said so.
    pub actor: String,
    /// When.
    pub at: OffsetDateTime,
}

impl Tx<'_> {
    /// Records that an environment runs a version; says whether that is news.
    ///
    /// # Errors
    /// `internal` when there is no such environment; `database-unavailable`.
    pub async fn record_module_run(
        &self,
        environment: &str,
        module: &ModuleId,
        version: &str,
        since: Option<OffsetDateTime>,
    ) -> Result<bool, Fault> {
        let sql = "insert into registry.module_run values ($1, $2, $3, coalesce($4, now()))
                   on conflict do nothing";
        let rows = self
            .execute(sql, &[&environment, &module.as_str(), &version, &since])
            .await?;
        Ok(rows > 0)
    }

    /// All versions that any environment has run, oldest first.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_module_runs(&self) -> Result<Vec<ModuleRun>, Fault> {
        let sql = "select * from registry.module_run order by since, module, version";
        self.rows(sql, &[])
            .await?
            .iter()
            .map(|row| {
                Ok(ModuleRun {
                    environment: column(row, "environment")?,
                    module: parsed(row, "module")?,
                    version: column(row, "version")?,
                    since: column(row, "since")?,
                })
            })
            .collect()
    }

    /// Lets an environment receive a version; says whether that is news.
    ///
    /// # Errors
    /// `internal` when there is no such environment; `database-unavailable`.
    pub async fn put_promotion(
        &self,
        environment: &str,
        module: &ModuleId,
        version: &str,
        actor: &str,
    ) -> Result<bool, Fault> {
        let sql = "insert into registry.promotion values ($1, $2, $3, $4)
                   on conflict do nothing";
        let rows = self
            .execute(sql, &[&environment, &module.as_str(), &version, &actor])
            .await?;
        Ok(rows > 0)
    }

    /// All promotions, oldest first.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_promotions(&self) -> Result<Vec<Promotion>, Fault> {
        let sql = "select * from registry.promotion order by at, module, version";
        self.rows(sql, &[])
            .await?
            .iter()
            .map(|row| {
                Ok(Promotion {
                    environment: column(row, "environment")?,
                    module: parsed(row, "module")?,
                    version: column(row, "version")?,
                    actor: column(row, "actor")?,
                    at: column(row, "at")?,
                })
            })
            .collect()
    }
}
