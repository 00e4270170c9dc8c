//! How much each tenant of a cell holds.
//!
//! What measuring costs is bounded, and told: one query for all dedicated databases (PostgreSQL asks
//! the file system for their sizes; nobody connects to them), one look into the catalogue of each
//! bucket database, and in the shared database one sample of each table, of at most [`PAGES`] pages.
//! So the shared tier's figures are estimates: good for a tenant that holds a noticeable part of a
//! table, poor for a small one in a large table, of which nothing hangs on them.
//!
//! Invariants: no statement takes longer than [`LONGEST`] or waits for a lock; a login that does not
//! see all rows gets an error, never a smaller sum.

use std::collections::BTreeMap;
use std::time::Duration;

use deadpool_postgres::Object;
use waangu_kernel::Fault;
use waangu_kernel::placement::SHARED_DATABASE;

use super::{CellAdmin, TEMPLATE_DATABASE, quoted};
use crate::error::from_driver;

/// Most pages of 8 KiB that are read of one shared table.
const PAGES: f64 = 2_000.0;

/// Longest statement.
const LONGEST: Duration = Duration::from_secs(10);

/// What the tenants of a cell hold, and what it cost to find out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Volumes {
    /// By the tenant's number.
    pub tenants: BTreeMap<i64, Held>,
    /// Queries that were asked.
    pub queries: u32,
    /// Pages of tables that were read; those of indexes and catalogues are not counted.
    pub pages: u64,
}

/// What a tenant holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Bytes on disk, with indexes; of a dedicated database, what it has beyond an empty one.
    pub bytes: i64,
    /// Rows; `None`, if they were not counted.
    pub rows: Option<i64>,
}

impl Volumes {
    fn add(&mut self, tenant: i64, bytes: i64, rows: i64) {
        let held = self.tenants.entry(tenant).or_default();
        held.bytes = held.bytes.saturating_add(bytes);
        held.rows = Some(held.rows.unwrap_or(0).saturating_add(rows));
    }
}

impl CellAdmin {
    /// Measures what each tenant holds.
    ///
    /// # Errors
    /// `database-unavailable`, also when a statement takes too long.
    pub async fn measure_tenants(&self) -> Result<Volumes, Fault> {
        let mut volumes = Volumes::default();
        self.measure_dedicated(&mut volumes).await?;
        for bucket in self.list_buckets().await? {
            let database = format!("waangu_schema_{bucket}");
            self.measure_bucket(&database, &mut volumes).await?;
        }
        volumes.queries = volumes.queries.saturating_add(1);
        self.measure_shared(&mut volumes).await?;
        Ok(volumes)
    }

    async fn measure_dedicated(&self, volumes: &mut Volumes) -> Result<(), Fault> {
        let sql = format!(
            "select substr(d.datname, 10)::bigint
                  , greatest(pg_database_size(d.oid) - pg_database_size('{TEMPLATE_DATABASE}'), 0)
               from pg_database d
              where d.datname ~ '^waangu_t_[0-9]+$'"
        );
        let client = self.bounded("postgres").await?;
        volumes.queries = volumes.queries.saturating_add(1);
        for row in client.query(&sql, &[]).await.map_err(from_driver)? {
            let held = Held {
                bytes: row.try_get(1).map_err(from_driver)?,
                rows: None,
            };
            let tenant = row.try_get(0).map_err(from_driver)?;
            volumes.tenants.insert(tenant, held);
        }
        Ok(())
    }

    /// A tenant's schemas are its own, so the catalogue knows all. Rows are as PostgreSQL counts them
    /// for its own purposes. A tenant of whose tables somebody holds one, or waits for it (a move that fills it,
    /// a migration), is left out: asking for its size would wait.
    async fn measure_bucket(&self, database: &str, volumes: &mut Volumes) -> Result<(), Fault> {
        let sql = "with own as materialized (
                       select (regexp_match(n.nspname, '^t_([0-9]+)_'))[1]::bigint as tenant, c.oid, c.reltuples
                         from pg_class c
                         join pg_namespace n on n.oid = c.relnamespace
                        where c.relkind in ('r', 'm') and n.nspname ~ '^t_[0-9]+_'
                   ), taken as materialized (
                       select o.tenant
                         from own o
                         join pg_locks l on l.relation = o.oid
                        where l.mode = 'AccessExclusiveLock'
                          and l.database = (select oid from pg_database where datname = current_database())
                   )
                   select tenant
                        , sum(pg_total_relation_size(oid))::bigint
                        , sum(greatest(reltuples::bigint, pg_stat_get_live_tuples(oid), 0))::bigint
                     from own
                    where tenant not in (select tenant from taken)
                    group by tenant";
        let client = self.bounded(database).await?;
        volumes.queries = volumes.queries.saturating_add(1);
        for row in client.query(sql, &[]).await.map_err(from_driver)? {
            let tenant = row.try_get(0).map_err(from_driver)?;
            let bytes = row.try_get(1).map_err(from_driver)?;
            volumes.add(tenant, bytes, row.try_get(2).map_err(from_driver)?);
        }
        Ok(())
    }

    /// Of a shared table each tenant holds the share that it has of a sample of whole pages.
    async fn measure_shared(&self, volumes: &mut Volumes) -> Result<(), Fault> {
        let sql = "select n.nspname::text
                        , c.relname::text
                        , pg_total_relation_size(c.oid)
                        , (pg_relation_size(c.oid) / 8192)::double precision
                     from pg_class c
                     join pg_namespace n on n.oid = c.relnamespace
                     join pg_attribute a
                       on a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped
                    where c.relkind = 'r'
                      and pg_relation_size(c.oid) > 0
                      and n.nspname !~ '^pg_'
                      and n.nspname not in ('information_schema', 'public', 'waangu', 'waangu_migration')
                    order by 1, 2";
        let client = self.bounded(SHARED_DATABASE).await?;
        volumes.queries = volumes.queries.saturating_add(1);
        for row in client.query(sql, &[]).await.map_err(from_driver)? {
            let schema: &str = row.try_get(0).map_err(from_driver)?;
            let table: &str = row.try_get(1).map_err(from_driver)?;
            let table = format!("{}.{}", quoted(schema), quoted(table));
            let bytes = row.try_get(2).map_err(from_driver)?;
            let pages: f64 = row.try_get(3).map_err(from_driver)?;
            sample(&client, &table, bytes, pages, volumes).await?;
        }
        Ok(())
    }

    /// A connection of its own that waits for nobody.
    async fn bounded(&self, database: &str) -> Result<Object, Fault> {
        let client = self.visit(database).await?;
        let sql = format!(
            "set statement_timeout = {}; set lock_timeout = '1s'; set row_security = off",
            LONGEST.as_millis()
        );
        client.batch_execute(&sql).await.map_err(from_driver)?;
        Ok(client)
    }
}

async fn sample(
    client: &Object,
    table: &str,
    bytes: i64,
    pages: f64,
    volumes: &mut Volumes,
) -> Result<(), Fault> {
    let percent = (100.0 * PAGES / pages.max(1.0)).min(100.0);
    let sql = format!(
        "with seen as (
             select tenant_id
                  , count(*) as n
               from {table} tablesample system ({percent:.6})
              group by tenant_id
         )
         select tenant_id
              , ($1::bigint * n / sum(n) over ())::bigint
              , round(n * 100 / {percent:.6})::bigint
           from seen"
    );
    volumes.queries = volumes.queries.saturating_add(1);
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most PAGES, at least nothing"
    )]
    let read = pages.clamp(0.0, PAGES) as u64;
    volumes.pages = volumes.pages.saturating_add(read);
    for row in client.query(&sql, &[&bytes]).await.map_err(from_driver)? {
        let tenant = row.try_get(0).map_err(from_driver)?;
        let bytes = row.try_get(1).map_err(from_driver)?;
        volumes.add(tenant, bytes, row.try_get(2).map_err(from_driver)?);
    }
    Ok(())
}
