//! All databases of a cell, as its administrator.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use waangu_kernel::Fault;

use super::{Drift, Rules, inspect};
use crate::admin::CellAdmin;

/// Databases that are looked at in the same moment.
const AT_ONCE: usize = 4;

/// One database of a cell.
#[derive(Debug)]
pub struct Inspected {
    /// Its name.
    pub database: String,
    /// Its drifts. What belongs to the whole server is named with the first database only.
    pub drifts: Vec<Drift>,
}

impl CellAdmin {
    /// Looks at all databases of the cell that hold tenants. Not at the template: nobody can connect
    /// to it, and what is wrong with it is wrong with the databases made from it.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn inspect(&self, rules: &Rules) -> Result<Vec<Inspected>, Fault> {
        let mut names = self.list_databases().await?;
        names.sort_unstable();
        let mut found: Vec<Inspected> = stream::iter(names)
            .map(|database| async {
                let client = self.visit(&database).await?;
                let drifts = inspect(&client, rules).await?;
                Ok::<_, Fault>(Inspected { database, drifts })
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let mut told: Vec<Drift> = Vec::new();
        for Inspected { drifts, .. } in &mut found {
            drifts.retain(|drift| !told.contains(drift));
            told.extend(drifts.iter().filter(|drift| drift.is_shared()).cloned());
        }
        Ok(found)
    }
}

impl Drift {
    /// Whether the object belongs to the server and not to one database.
    fn is_shared(&self) -> bool {
        ["login ", "role ", "database ", "parameter ", "server"]
            .iter()
            .any(|kind| self.object.starts_with(kind))
    }
}
