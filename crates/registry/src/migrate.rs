//! The control database's own migrations: numbered, applied once, in one transaction each.

use waangu_kernel::Fault;
use waangu_kernel::fault;

use crate::db::{Session, column, from_driver};

const MIGRATIONS: [&str; 5] = [
    include_str!("../migrations/0001_registry.sql"),
    include_str!("../migrations/0002_world.sql"),
    include_str!("../migrations/0003_fleet.sql"),
    include_str!("../migrations/0004_entitlements.sql"),
    include_str!("../migrations/0005_key_rotation.sql"),
];

/// The schema version that this program knows.
pub const SCHEMA_VERSION: i32 = 5;

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
        let row = tx
            .one(
                "select coalesce(max(version), 0) as version from public.waangu_schema_version",
                &[],
            )
            .await?;
        let have: i32 = column(&row, "version")?;
        if have > SCHEMA_VERSION {
            return Err(newer(have));
        }
        for (version, sql) in (1_i32..).zip(MIGRATIONS) {
            if version > have {
                tx.batch(sql).await?;
                tx.execute(
                    "insert into public.waangu_schema_version values ($1)",
                    &[&version],
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
