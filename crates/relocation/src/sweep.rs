//! What moves have left on a cell, and its removal: a slot that nobody reads fills the disk, and rows at
//! a place where their tenant is not at home are nobody's.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_postgres::Client;
use waangu_kernel::placement::{SHARED_DATABASE, Tier};
use waangu_kernel::{Placement, TenantId};
use waangu_tenancy::{CellAdmin, CellAdminConfig};

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
    /// Rows, schemas or the whole of this database, copied for the tenant of this number, which is not
    /// at home there.
    Copy(String, i64),
}

/// A tenant that has left its place and is not seen to have arrived: nobody may be serving it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranded {
    /// The tenant's number.
    pub tenant: i64,
    /// The epoch at which its new place is to be opened.
    pub epoch: i64,
    /// How long ago it was fenced.
    pub since: Duration,
}

impl Debris {
    /// Whether it belongs to one of these tenants.
    pub fn is_of(&self, tenants: &[TenantId]) -> bool {
        let owner = self.tenant();
        tenants.iter().any(|tenant| Some(tenant.number()) == owner)
    }

    /// The database that it is in; a slot belongs to the server.
    pub fn database(&self) -> Option<String> {
        match self {
            Self::Copy(database, _) | Self::Publication(database, _) => Some(database.clone()),
            Self::Slot(_) => None,
        }
    }

    /// The number of the tenant that was moved.
    fn tenant(&self) -> Option<i64> {
        let name = match self {
            Self::Copy(_, tenant) => return Some(*tenant),
            Self::Slot(name) | Self::Publication(_, name) => name,
        };
        name.strip_prefix(PREFIX)?.split('_').next()?.parse().ok()
    }
}

/// Slots, publications and unfinished copies of moves on a cell.
///
/// # Errors
/// `Database`.
pub async fn debris(cell: &CellAdminConfig) -> Result<Vec<Debris>, Error> {
    debris_in(cell, &databases_of(cell).await?).await
}

/// The same, looked for in these databases alone, and in those of slots. One look at the server shows all
/// slots; but each database has to be visited, and a cell may have thousands.
///
/// # Errors
/// `Database`.
pub async fn debris_in(
    cell: &CellAdminConfig,
    databases: &BTreeSet<String>,
) -> Result<Vec<Debris>, Error> {
    let client = connect(cell, "postgres").await?;
    let mut found = Vec::new();
    let mut places = databases.clone();
    let sql = "select slot_name::text, database::text from pg_replication_slots
                where starts_with(slot_name, $1)";
    for row in client.query(sql, &[&PREFIX]).await? {
        found.push(Debris::Slot(row.try_get(0)?));
        places.extend(row.try_get::<_, Option<String>>(1)?);
    }
    // Some may be gone.
    let there = databases_on(&client).await?;
    for database in there.intersection(&places) {
        let visitor = connect(cell, database).await?;
        let sql = "select pubname::text from pg_publication where starts_with(pubname, $1)";
        for row in visitor.query(sql, &[&PREFIX]).await? {
            found.push(Debris::Publication(database.clone(), row.try_get(0)?));
        }
        if !has_notes(&visitor, "progress").await? {
            continue;
        }
        let sql = "select p.tenant_id
                     from waangu_relocation.progress p
                     left join waangu.home h on h.tenant_id = p.tenant_id and h.state <> 'moved'
                    where h.tenant_id is null";
        for row in visitor.query(sql, &[]).await? {
            found.push(Debris::Copy(database.clone(), row.try_get(0)?));
        }
    }
    Ok(found)
}

/// Tenants of a cell that are fenced there and whose move is not finished: normally for milliseconds.
/// Whoever finds one goes on with its move, whose next step is then [`crate::Step::Open`] or
/// [`crate::Step::Finish`].
///
/// # Errors
/// `Database`.
pub async fn stranded(cell: &CellAdminConfig) -> Result<Vec<Stranded>, Error> {
    let client = connect(cell, "postgres").await?;
    let mut found = Vec::new();
    for database in databases_on(&client).await? {
        let visitor = connect(cell, &database).await?;
        if !has_notes(&visitor, "fence").await? {
            continue;
        }
        let sql = "select f.tenant_id, f.epoch
                        , greatest(date_part('epoch', clock_timestamp() - f.fenced_at), 0)
                     from waangu_relocation.fence f
                     join waangu.home h on h.tenant_id = f.tenant_id
                                       and h.epoch = f.epoch and h.state = 'moved'";
        for row in visitor.query(sql, &[]).await? {
            found.push(Stranded {
                tenant: row.try_get(0)?,
                epoch: row.try_get(1)?,
                since: Duration::from_secs_f64(row.try_get(2)?),
            });
        }
    }
    Ok(found)
}

/// The databases of a cell that may hold tenants.
///
/// # Errors
/// `Database`.
pub async fn databases_of(cell: &CellAdminConfig) -> Result<BTreeSet<String>, Error> {
    databases_on(&connect(cell, "postgres").await?).await
}

async fn databases_on(client: &Client) -> Result<BTreeSet<String>, Error> {
    let sql = "select datname::text from pg_database
                where datallowconn and datconnlimit <> -2 and datname ~ '^waangu(_schema_[0-9]+|_t_[0-9]+)?$'";
    let rows = client.query(sql, &[]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

async fn has_notes(client: &Client, table: &str) -> Result<bool, Error> {
    let sql = "select to_regclass('waangu_relocation.' || $1) is not null";
    Ok(client.query_one(sql, &[&table]).await?.try_get(0)?)
}

/// Removes what belongs to none of the tenants that are on their way; says what was removed.
///
/// # Errors
/// `Database`.
pub async fn sweep(cell: &CellAdminConfig, moving: &[TenantId]) -> Result<Vec<Debris>, Error> {
    sweep_in(cell, &databases_of(cell).await?, moving).await
}

/// The same, looked for as by [`debris_in`].
///
/// # Errors
/// `Database`.
pub async fn sweep_in(
    cell: &CellAdminConfig,
    databases: &BTreeSet<String>,
    moving: &[TenantId],
) -> Result<Vec<Debris>, Error> {
    let mut found = debris_in(cell, databases).await?;
    found.retain(|debris| !debris.is_of(moving));
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
            Debris::Copy(database, number) => remove_copy(cell, database, *number).await?,
        }
    }
    Ok(found)
}

/// Drops slots that hold back more of the log than this and that nobody reads, whoever wants them; says
/// which. A move whose slot is gone begins anew, or is behind its fence and needs none. The worker of a move
/// looks after its own: this is for one that waits for its next try, or for a server that is away.
///
/// # Errors
/// `Database`.
pub async fn drop_overdrawn(cell: &CellAdminConfig, max_held: i64) -> Result<Vec<String>, Error> {
    let client = connect(cell, "postgres").await?;
    let sql = "select slot_name::text, pg_drop_replication_slot(slot_name)::text
                 from pg_replication_slots
                where starts_with(slot_name, $1)
                  and not active
                  and pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) > $2::bigint";
    let rows = client.query(sql, &[&PREFIX, &max_held]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Only what is surely nobody's: the tenant has no open door there.
async fn remove_copy(cell: &CellAdminConfig, database: &str, number: i64) -> Result<(), Error> {
    let Ok(tenant) = TenantId::new(number) else {
        return Ok(());
    };
    let tier = match database {
        SHARED_DATABASE => Tier::Shared,
        _ if database.starts_with("waangu_schema_") => Tier::Schema,
        _ => Tier::Dedicated,
    };
    let bucket = database.strip_prefix("waangu_schema_").unwrap_or("0");
    let placement = Placement {
        cell: cell.id.clone(),
        tier,
        bucket: bucket.parse().unwrap_or(0),
        epoch: 1,
    };
    if placement.database(tenant) != database {
        return Ok(());
    }
    let admin = CellAdmin::new(cell.clone());
    if tier == Tier::Dedicated {
        return Ok(admin.drop_database(database).await?);
    }
    admin.clear_place(tenant, &placement).await?;
    let client = connect(cell, database).await?;
    let sql = "delete from waangu_relocation.progress where tenant_id = $1";
    client.execute(sql, &[&number]).await?;
    Ok(())
}
