//! Ways back without a copy: which moves have left one, and what became of it.

use uuid::Uuid;
use waangu_kernel::{CellId, Fault, RelocationId, TenantId};

use crate::db::{Tx, column};

/// A way back that is wanted: its tenant may still be taken back to the place that it has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedWay {
    /// The move that left it.
    pub relocation: RelocationId,
    /// Whose.
    pub tenant: TenantId,
    /// The tenant's epoch at its new place.
    pub epoch: i64,
}

impl Tx<'_> {
    /// Records whether a move that has arrived can be taken back without a copy. What an earlier one had left
    /// at this place is the tenant's again: its time must not end when that of another departure begins.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn open_way_back(&self, id: RelocationId, is_open: bool) -> Result<(), Fault> {
        // Those of earlier moves lead nowhere any more.
        let sql = "update registry.relocation r
                      set way_back = r.id = $1 and $2
                        , held_bytes = null
                     from registry.relocation arrived
                    where arrived.id = $1
                      and r.tenant_id = arrived.tenant_id
                      and (r.way_back or r.id = $1)";
        self.execute(sql, &[&id.uuid(), &is_open]).await?;
        let sql = "update registry.relocation r
                      set cleaned_at = now()
                     from registry.relocation arrived
                    where arrived.id = $1
                      and r.tenant_id = arrived.tenant_id
                      and r.clean_at is not null
                      and r.cleaned_at is null
                      and (r.from_cell, r.from_tier, r.from_bucket)
                        = (arrived.to_cell, arrived.to_tier, arrived.to_bucket)";
        self.execute(sql, &[&id.uuid()]).await.map(drop)
    }

    /// Records that it can't any more, and why.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn close_way_back(&self, id: RelocationId, why: &str) -> Result<(), Fault> {
        let sql = "update registry.relocation
                      set way_back = false
                        , held_bytes = null
                    where id = $1 and way_back";
        if self.execute(sql, &[&id.uuid()]).await? == 0 {
            return Ok(());
        }
        self.tell_relocation(id, why).await
    }

    /// The bucket that a tenant goes back to: the one it has left, if that has room.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn choose_bucket_back(&self, cell: &CellId, left: i32) -> Result<i32, Fault> {
        let other = self.choose_bucket(cell).await?;
        let sql = "select (select count(*) from registry.tenant
                            where cell = $1 and tier = 'schema' and bucket = $2 and state <> 'deleted')
                        + (select count(*) from registry.relocation
                            where to_cell = $1 and to_tier = 'schema' and to_bucket = $2
                              and finished_at is null)
                        < (select bucket_limit from registry.cell where id = $1) as room";
        let row = self.one(sql, &[&cell.as_str(), &left]).await?;
        Ok(if column(&row, "room")? { left } else { other })
    }

    /// Records what a way back holds back.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn record_held(&self, id: RelocationId, bytes: i64) -> Result<(), Fault> {
        let sql = "update registry.relocation set held_bytes = $2
                    where id = $1 and way_back and held_bytes is distinct from $2";
        self.execute(sql, &[&id.uuid(), &bytes]).await.map(drop)
    }

    /// Records that a move copies nothing, because its rows were there.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn record_adopted(&self, id: RelocationId, adopted: bool) -> Result<(), Fault> {
        let sql = "update registry.relocation set adopted = $2 where id = $1";
        self.execute(sql, &[&id.uuid(), &adopted]).await.map(drop)
    }

    /// The ways back that lead from places at a cell and that somebody may still want to go: the tenant
    /// lives where the move has brought it, and what it left is kept.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_wanted_ways(&self, cell: &CellId) -> Result<Vec<WantedWay>, Fault> {
        let sql = "select r.id, r.tenant_id, r.epoch + 1 as epoch
                     from registry.relocation r
                     join registry.tenant t on t.id = r.tenant_id
                    where r.way_back
                      and r.to_cell = $1
                      and r.clean_at > now()
                      and r.cleaned_at is null
                      and t.desired <> 'deleted'
                      and t.epoch = r.epoch + 1";
        self.ways(sql, cell).await
    }

    /// Those that are recorded and that nobody wants any more.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_unwanted_ways(&self, cell: &CellId) -> Result<Vec<WantedWay>, Fault> {
        let sql = "select r.id, r.tenant_id, r.epoch + 1 as epoch
                     from registry.relocation r
                     join registry.tenant t on t.id = r.tenant_id
                    where r.way_back
                      and r.to_cell = $1
                      and not (r.clean_at > now()
                               and r.cleaned_at is null
                               and t.desired <> 'deleted'
                               and t.epoch = r.epoch + 1)";
        self.ways(sql, cell).await
    }

    async fn ways(&self, sql: &'static str, cell: &CellId) -> Result<Vec<WantedWay>, Fault> {
        let rows = self.rows(sql, &[&cell.as_str()]).await?;
        rows.iter()
            .map(|row| {
                let id: Uuid = column(row, "id")?;
                Ok(WantedWay {
                    relocation: RelocationId::from_uuid(id),
                    tenant: TenantId::new(column(row, "tenant_id")?)?,
                    epoch: column(row, "epoch")?,
                })
            })
            .collect()
    }
}
