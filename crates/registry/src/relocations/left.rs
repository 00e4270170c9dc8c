//! What moves have left behind: rows, schemas or a database of a tenant that lives elsewhere now.

use std::collections::BTreeSet;

use tokio_postgres::Row;
use uuid::Uuid;
use waangu_kernel::{CellId, Fault, Placement, RelocationId, TenantId};

use crate::db::{Session, Tx, column, from_driver, parsed};

/// One place that a tenant has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// By which move.
    pub relocation: RelocationId,
    /// Whose.
    pub tenant: TenantId,
    /// Which place.
    pub place: Placement,
    /// Whether the tenant lives there again: then nothing is to be removed.
    pub back: bool,
}

/// The tenant's lock keeps moves away, whose target it may be. What belongs to a deleted tenant goes at
/// once.
const TAKE: &str = "
select id, tenant_id
  from (select r.id, r.tenant_id
          from registry.relocation r
          join registry.tenant t on t.id = r.tenant_id
         where r.clean_at is not null
           and r.cleaned_at is null
           and (r.clean_at <= now() or t.desired = 'deleted')
           and r.from_cell = $1
           and registry.holds_still(r.tenant_id)
         order by r.clean_at
         limit 100) due
 where pg_try_advisory_lock(tenant_id)
 limit 1";

const LOOK: &str = "
select r.id, r.tenant_id, r.epoch
     , r.from_cell as cell
     , r.from_tier as tier
     , r.from_bucket as bucket
     , (t.cell, t.tier, t.bucket) = (r.from_cell, r.from_tier, r.from_bucket)
       and t.state <> 'deleted' as back
  from registry.relocation r
  join registry.tenant t on t.id = r.tenant_id
 where r.id = $1 and r.cleaned_at is null and registry.holds_still(r.tenant_id)";

const ENDED: &str = "
select r.tenant_id, r.epoch, p.tier, p.bucket
  from registry.relocation r
 cross join lateral (values (r.from_cell, r.from_tier, r.from_bucket)
                          , (r.to_cell, r.to_tier, r.to_bucket)) p (cell, tier, bucket)
 where r.finished_at > now() - make_interval(secs => $2::integer::double precision)
   and p.cell = $1";

impl Session {
    /// Claims a place at a cell that has served its grace time, or returns `None`. To be given back with
    /// [`Session::release_all`].
    ///
    /// # Errors
    /// `database-unavailable`; drop the session then.
    pub async fn claim_left(&mut self, cell: &CellId) -> Result<Option<Left>, Fault> {
        self.claims.push(LEFT);
        let row = self
            .client()?
            .query_opt(TAKE, &[&cell.as_str()])
            .await
            .map_err(from_driver)?;
        let Some(row) = row else {
            self.claims.retain(|held| *held != LEFT);
            return Ok(None);
        };
        let id: Uuid = column(&row, "id")?;
        let found = self
            .client()?
            .query_opt(LOOK, &[&id])
            .await
            .map_err(from_driver)?;
        if found.is_none() {
            self.release_all().await?;
        }
        found.as_ref().map(left_from).transpose()
    }
}

/// Stands for a place left among a session's claims; no lock has this number.
const LEFT: i64 = i64::MIN + 2;

impl Tx<'_> {
    /// Ends a move that has arrived; what stayed behind may be removed after so many seconds.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn leave_for_cleaning(&self, id: RelocationId, seconds: i64) -> Result<(), Fault> {
        let sql = "update registry.relocation
                      set clean_at = now() + make_interval(secs => $2::bigint::double precision)
                        , lag_bytes = null
                        , error = null
                    where id = $1";
        self.execute(sql, &[&id.uuid(), &seconds]).await.map(drop)
    }

    /// Records that nothing is left behind any more.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn record_cleaned(&self, id: RelocationId) -> Result<(), Fault> {
        let sql = "update registry.relocation set cleaned_at = now()
                    where id = $1 and cleaned_at is null";
        self.execute(sql, &[&id.uuid()]).await?;
        self.tell_relocation(id, "nothing is left at the old place")
            .await
    }
}

impl Tx<'_> {
    /// The databases of a cell that moves which ended in the last so many seconds went from or to: if a
    /// worker was late, something of it may be there.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_ended_places(
        &self,
        cell: &CellId,
        seconds: i32,
    ) -> Result<BTreeSet<String>, Fault> {
        let rows = self.rows(ENDED, &[&cell.as_str(), &seconds]).await?;
        rows.iter()
            .map(|row| {
                let tenant = TenantId::new(column(row, "tenant_id")?)?;
                let place = Placement {
                    cell: cell.clone(),
                    tier: parsed(row, "tier")?,
                    bucket: column(row, "bucket")?,
                    epoch: column(row, "epoch")?,
                };
                Ok(place.database(tenant))
            })
            .collect()
    }
}

fn left_from(row: &Row) -> Result<Left, Fault> {
    let id: Uuid = column(row, "id")?;
    Ok(Left {
        relocation: RelocationId::from_uuid(id),
        tenant: TenantId::new(column(row, "tenant_id")?)?,
        place: Placement {
            cell: parsed(row, "cell")?,
            tier: parsed(row, "tier")?,
            bucket: column(row, "bucket")?,
            epoch: column(row, "epoch")?,
        },
        back: column(row, "back")?,
    })
}
