//! What tenants are likely to need, so that it can be made before they come.

use waangu_kernel::{CellId, Fault, ModuleId, Tier};

use crate::cells::BUCKETS;
use crate::db::{Tx, column, parsed};

/// Latest tenants of a tier that are looked at.
const LATEST: i64 = 20;

impl Tx<'_> {
    /// The modules that tenants of a tier usually have: those of most of the latest; before the first,
    /// those of most profiles of the tier or, if there are none, of most profiles. Only such as are
    /// installed.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_usual_modules(&self, tier: Tier) -> Result<Vec<ModuleId>, Fault> {
        let sql = "with latest as (
                       select id from registry.tenant
                        where tier = $2 and state <> 'deleted'
                        order by id desc limit $1
                   )
                   , had as (
                       select l.id
                            , coalesce(array_agg(a.module order by a.module) filter (where a.enabled), '{}')
                              as modules
                         from latest l
                         left join registry.activation a on a.tenant_id = l.id
                        group by l.id
                   )
                   , likely as (
                       select 1 as rank, modules, count(*) as n, max(id) as last
                         from had group by modules
                       union all
                       select case tier when $2 then 2 else 3 end, p.modules, count(*), 0
                         from (select tier, (select coalesce(array_agg(x order by x), '{}')
                                               from unnest(modules) x) as modules
                                 from registry.profile) p
                        group by 1, p.modules
                   )
                   select m.id
                     from registry.module m
                    where m.id = any ((select modules from likely
                                        order by rank, n desc, last desc, modules limit 1)::text[])
                      and m.package_hash <> ''
                    order by m.id";
        let rows = self.rows(sql, &[&LATEST, &tier.as_str()]).await?;
        rows.iter().map(|row| parsed(row, "id")).collect()
    }

    /// How many live tenants each bucket of a cell has, those on their way to it included.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn count_bucket_tenants(&self, cell: &CellId) -> Result<Vec<(i32, i64)>, Fault> {
        let sql = format!("select bucket, count(*) as n from ({BUCKETS}) held group by bucket");
        let rows = self.rows(&sql, &[&cell.as_str()]).await?;
        rows.iter()
            .map(|row| Ok((column(row, "bucket")?, column(row, "n")?)))
            .collect()
    }
}
