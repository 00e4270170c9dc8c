//! The control database's own migrations: numbered, applied once, in one transaction each.

use waangu_kernel::Fault;
use waangu_kernel::fault;

use crate::db::{Session, column, from_driver};

/// By number, ascending. What is not in the database yet is applied, whatever else is: two lines of
/// work that each add one may meet in any order.
const MIGRATIONS: &[(i32, &str)] = &[
    (1, include_str!("../migrations/0001_registry.sql")),
    (2, include_str!("../migrations/0002_world.sql")),
    (3, include_str!("../migrations/0003_fleet.sql")),
    (4, include_str!("../migrations/0004_entitlements.sql")),
    (5, include_str!("../migrations/0005_key_rotation.sql")),
    (6, include_str!("../migrations/0006_policy.sql")),
    (7, include_str!("../migrations/0007_advisor.sql")),
    (8, include_str!("../migrations/0008_relocation.sql")),
    (9, include_str!("../migrations/0009_quiet_births.sql")),
    (10, include_str!("../migrations/0010_relocation_ended.sql")),
    (11, include_str!("../migrations/0011_way_back.sql")),
    (12, include_str!("../migrations/0012_heading.sql")),
    (13, include_str!("../migrations/0013_held.sql")),
];

/// The schema version that this program knows.
pub const SCHEMA_VERSION: i32 = match MIGRATIONS.last() {
    Some((number, _)) => *number,
    None => 0,
};

/// Advisory lock of the migration; tenant numbers are positive, so it collides with no claim.
const MIGRATION_LOCK: i64 = -1;

impl Session {
    /// Brings the control database to [`SCHEMA_VERSION`]. Several processes may call it at once.
    ///
    /// # Errors
    /// `internal` when the database is of a newer version; `database-unavailable`.
    pub async fn migrate(&mut self) -> Result<(), Fault> {
        let tx = self.begin().await?;
        tx.execute("select pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK])
            .await?;
        tx.batch(
            "create table if not exists public.waangu_schema_version (version integer not null)",
        )
        .await?;
        let rows = tx
            .rows("select version from public.waangu_schema_version", &[])
            .await?;
        let have: Vec<i32> = rows
            .iter()
            .map(|row| column(row, "version"))
            .collect::<Result<_, _>>()?;
        if let Some(newest) = have.iter().max().filter(|have| **have > SCHEMA_VERSION) {
            return Err(newer(*newest));
        }
        for (number, sql) in MIGRATIONS {
            if !have.contains(number) {
                tx.batch(sql).await?;
                tx.execute(
                    "insert into public.waangu_schema_version values ($1)",
                    &[number],
                )
                .await?;
            }
        }
        tx.commit().await
    }

    /// Whether the connection still answers.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn ping(&self) -> Result<(), Fault> {
        self.client()?
            .simple_query("select 1")
            .await
            .map(drop)
            .map_err(from_driver)
    }
}

fn newer(have: i32) -> Fault {
    fault::INTERNAL.fault(format!(
        "the control database has schema version {have}, this program knows {SCHEMA_VERSION}; \
         start the newer program, or another state folder"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two migrations of one number would leave one of them out on every database.
    #[test]
    fn numbers_ascend() {
        let numbers: Vec<i32> = MIGRATIONS.iter().map(|(number, _)| *number).collect();
        assert!(
            numbers.windows(2).all(|pair| pair[0] < pair[1]),
            "{numbers:?}"
        );
    }
}
