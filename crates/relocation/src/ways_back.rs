//! The slots of ways back on a cell: what each holds back of its log, and its end. What is wanted is known
//! to the registry alone.

use waangu_tenancy::CellAdminConfig;

use crate::Error;
use crate::engine::{PREFIX, WARM};
use crate::place::{connect, quoted};

/// A slot with which an old place can be brought up to date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayBack {
    /// The number of its tenant.
    pub tenant: i64,
    /// The tenant's epoch at this place.
    pub epoch: i64,
    /// Slot and publication.
    pub name: String,
    /// The database that both are in.
    pub database: String,
    /// Bytes of the log that it holds back.
    pub held: i64,
    /// Whether something that it would tell is gone.
    pub lost: bool,
    /// Whether a move back is reading it.
    pub read: bool,
}

/// All of a cell, by one look.
///
/// # Errors
/// `Database`.
pub async fn ways_back(cell: &CellAdminConfig) -> Result<Vec<WayBack>, Error> {
    let client = connect(cell, "postgres").await?;
    let sql = "select slot_name::text
                    , database::text
                    , coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint
                    , wal_status = 'lost'
                    , active
                 from pg_replication_slots
                where starts_with(slot_name, $1) and slot_type = 'logical'";
    let mut found = Vec::new();
    for row in client.query(sql, &[&PREFIX]).await? {
        let name: String = row.try_get(0)?;
        let Some((tenant, epoch)) = parse(&name) else {
            continue;
        };
        found.push(WayBack {
            tenant,
            epoch,
            database: row.try_get(1)?,
            held: row.try_get(2)?,
            lost: row.try_get::<_, Option<bool>>(3)?.unwrap_or(true),
            read: row.try_get(4)?,
            name,
        });
    }
    Ok(found)
}

/// Drops one, unless it is being read: a move back is then a copy. May be repeated.
///
/// # Errors
/// `Database`.
pub async fn close_way_back(cell: &CellAdminConfig, way: &WayBack) -> Result<(), Error> {
    // What holds the log back goes first, even if its database can't be entered.
    let server = connect(cell, "postgres").await?;
    let sql = "select pg_drop_replication_slot(slot_name) from pg_replication_slots
                where slot_name = $1 and not active";
    server.execute(sql, &[&way.name]).await?;
    let sql = "select exists (select from pg_replication_slots where slot_name = $1)";
    if server.query_one(sql, &[&way.name]).await?.try_get(0)? {
        return Ok(());
    }
    let client = connect(cell, &way.database).await?;
    let drop = format!("drop publication if exists {}", quoted(&way.name));
    Ok(client.batch_execute(&drop).await?)
}

/// Tenant and epoch in the name of such a slot; other moves' slots have none.
fn parse(name: &str) -> Option<(i64, i64)> {
    let mut parts = name.strip_prefix(PREFIX)?.split('_');
    let tenant = parts.next()?.parse().ok()?;
    let epoch = parts.next()?.strip_prefix(WARM)?.parse().ok()?;
    Some((tenant, epoch))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slot of a move on its way would be dropped under it.
    #[test]
    fn only_ways_back_are_taken_for_such() {
        assert_eq!(parse("waangu_move_7_w3_0a1b2c3d4e5f"), Some((7, 3)));
        assert_eq!(parse("waangu_move_7_0a1b2c3d4e5f"), None);
        assert_eq!(parse("other_7_w3_0a1b2c3d4e5f"), None);
    }
}
