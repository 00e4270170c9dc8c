//! What moves have left on a cell, and its removal: a slot that nobody reads fills the disk.

use waangu_kernel::TenantId;
use waangu_tenancy::CellAdminConfig;

use crate::Error;
use crate::engine::PREFIX;
use crate::place::{connect, quoted};

/// Something left on a cell by a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Debris {
    /// A replication slot.
    Slot(String),
    /// A publication, with its database.
    Publication(String, String),
}

impl Debris {
    /// The number of the tenant that was moved.
    fn tenant(&self) -> Option<i64> {
        let (Self::Slot(name) | Self::Publication(_, name)) = self;
        name.strip_prefix(PREFIX)?.split('_').next()?.parse().ok()
    }
}

/// Slots and publications of moves on a cell.
///
/// # Errors
/// `Database`.
pub async fn debris(cell: &CellAdminConfig) -> Result<Vec<Debris>, Error> {
    let client = connect(cell, "postgres").await?;
    let mut found = Vec::new();
    let sql = "select slot_name::text from pg_replication_slots where starts_with(slot_name, $1)";
    for row in client.query(sql, &[&PREFIX]).await? {
        found.push(Debris::Slot(row.try_get(0)?));
    }
    let sql = "select datname::text from pg_database where datallowconn and starts_with(datname, 'waangu')";
    for row in client.query(sql, &[]).await? {
        let database: String = row.try_get(0)?;
        let visitor = connect(cell, &database).await?;
        let sql = "select pubname::text from pg_publication where starts_with(pubname, $1)";
        for row in visitor.query(sql, &[&PREFIX]).await? {
            found.push(Debris::Publication(database.clone(), row.try_get(0)?));
        }
    }
    Ok(found)
}

/// Removes what belongs to none of the tenants that are on their way; says what was removed.
///
/// # Errors
/// `Database`.
pub async fn sweep(cell: &CellAdminConfig, moving: &[TenantId]) -> Result<Vec<Debris>, Error> {
    let mut found = debris(cell).await?;
    found.retain(|debris| {
        let owner = debris.tenant();
        !moving.iter().any(|tenant| Some(tenant.number()) == owner)
    });
    for debris in &found {
        match debris {
            Debris::Slot(name) => {
                let client = connect(cell, "postgres").await?;
                let sql = "select pg_drop_replication_slot(slot_name) from pg_replication_slots
                            where slot_name = $1 and not active";
                client.execute(sql, &[name]).await?;
            }
            Debris::Publication(database, name) => {
                let client = connect(cell, database).await?;
                let sql = format!("drop publication if exists {}", quoted(name));
                client.batch_execute(&sql).await?;
            }
        }
    }
    Ok(found)
}
