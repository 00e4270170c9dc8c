//! What moves of tenants ask of a cell beside the engine: facts before a move, and the removal of what
//! stayed behind.
//!
//! Invariant: a place is emptied only if its own home row says that the tenant has left it; that row
//! stays where there is a database for it.

use std::time::Duration;

use waangu_kernel::placement::Tier;
use waangu_kernel::{Fault, ModuleId, Placement, TenantId, fault};

use super::tenant::forget;
use super::{CellAdmin, CellAdminConfig, database_closed, quoted};
use crate::error::from_driver;

/// Longest look at a tenant's rows, in milliseconds.
const LOOK_MILLISECONDS: u32 = 5_000;

/// What a cell says of itself before a tenant is moved from or to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveFacts {
    /// `wal_level`.
    pub wal_level: String,
    /// Replication slots that are free.
    pub free_slots: i64,
    /// `max_slot_wal_keep_size` in bytes, if the server bounds what a slot holds back.
    pub slot_bound: Option<i64>,
}

/// What a tenant has in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRows {
    /// Tables of its modules.
    pub tables: i64,
    /// Rows; `None` if it took too long to count them.
    pub rows: Option<i64>,
    /// Bytes: of the rows, or of whole tables that nobody shares.
    pub bytes: Option<i64>,
    /// Tables that can't be followed: no primary key, or another replica identity.
    pub unfit: Vec<String>,
}

const FACTS: &str = "
select current_setting('wal_level')
     , current_setting('max_replication_slots')::bigint - (select count(*) from pg_replication_slots)
     , nullif((select setting::bigint from pg_settings where name = 'max_slot_wal_keep_size'), -1)
       * 1024 * 1024";

const TABLES: &str = "
select n.nspname::text
     , c.relname::text
     , c.relreplident = 'd'
       and exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary)
     , pg_total_relation_size(c.oid)
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p') and n.nspname = any ($1)
 order by 1, 2";

impl CellAdmin {
    /// Where the cell answers, and its administrator's login.
    pub fn config(&self) -> &CellAdminConfig {
        &self.config
    }

    /// What counts for a move.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn move_facts(&self) -> Result<MoveFacts, Fault> {
        let client = self.client("postgres").await?;
        let row = client.query_one(FACTS, &[]).await.map_err(from_driver)?;
        Ok(MoveFacts {
            wal_level: row.try_get(0).map_err(from_driver)?,
            free_slots: row.try_get(1).map_err(from_driver)?,
            slot_bound: row.try_get(2).map_err(from_driver)?,
        })
    }

    /// What a tenant has, counted within [`LOOK_MILLISECONDS`].
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn tenant_rows(
        &self,
        tenant: TenantId,
        placement: &Placement,
        modules: &[ModuleId],
    ) -> Result<TenantRows, Fault> {
        let client = self.visit(&placement.database(tenant)).await?;
        let schemas: Vec<String> = modules
            .iter()
            .map(|module| placement.schema(tenant, module))
            .collect();
        let tables = client.query(TABLES, &[&schemas]).await;
        let (mut unfit, mut sizes, mut names) = (Vec::new(), 0, Vec::new());
        for row in tables.map_err(from_driver)? {
            let schema: &str = row.try_get(0).map_err(from_driver)?;
            let table: &str = row.try_get(1).map_err(from_driver)?;
            if !row.try_get::<_, bool>(2).map_err(from_driver)? {
                unfit.push(format!("{schema}.{table}"));
            }
            sizes += row.try_get::<_, i64>(3).map_err(from_driver)?;
            names.push(format!("{}.{}", quoted(schema), quoted(table)));
        }
        let bound = format!("set statement_timeout = {LOOK_MILLISECONDS}");
        client.batch_execute(&bound).await.map_err(from_driver)?;
        let counts: Vec<String> = names
            .iter()
            .map(|name| {
                format!(
                    "select count(*) as n, coalesce(sum(pg_column_size(t.*)), 0)::bigint as b
                       from {name} t where tenant_id = {}",
                    tenant.number()
                )
            })
            .collect();
        let mut found = TenantRows {
            tables: i64::try_from(names.len()).unwrap_or(i64::MAX),
            rows: Some(0),
            bytes: Some(0),
            unfit,
        };
        if counts.is_empty() {
            return Ok(found);
        }
        let sql = format!(
            "select sum(n)::bigint, sum(b)::bigint from ({}) as counted",
            counts.join(" union all ")
        );
        if let Ok(row) = client.query_one(&sql, &[]).await {
            found.rows = row.try_get(0).map_err(from_driver)?;
            found.bytes = row.try_get(1).map_err(from_driver)?;
        } else {
            found.rows = None;
            found.bytes = (placement.tier != Tier::Shared).then_some(sizes);
        }
        Ok(found)
    }

    /// Removes what a tenant left behind when it moved, shared rows in batches with a rest after each.
    /// Nothing, if the tenant has not left, or nothing is there any more.
    ///
    /// # Errors
    /// `database-unavailable`; then it may be repeated.
    pub async fn empty_place(
        &self,
        tenant: TenantId,
        placement: &Placement,
        modules: &[ModuleId],
        (batch, rest): (i64, Duration),
    ) -> Result<(), Fault> {
        let database = placement.database(tenant);
        let admin = self.client("postgres").await?;
        if database_closed(&admin, &database).await?.is_none() {
            return Ok(());
        }
        drop(admin);
        let client = self.visit(&database).await?;
        // As long as this session lives no move can come back here, whoever else believes to have the
        // tenant: whoever removes rows may have lost its claim and not noticed.
        let sql = "select pg_try_advisory_lock(-5, hashint8($1))";
        let kept = client.query_one(sql, &[&tenant.number()]).await;
        if !kept.and_then(|row| row.try_get(0)).map_err(from_driver)? {
            return Err(
                fault::DATABASE_UNAVAILABLE.fault("a move is at work in the tenant's old place")
            );
        }
        let sql = "select state = 'moved' from waangu.home where tenant_id = $1";
        let home = client.query_opt(sql, &[&tenant.number()]).await;
        let has_left = match home.map_err(from_driver)? {
            Some(row) => row.try_get(0).map_err(from_driver)?,
            None => false,
        };
        if !has_left {
            return Ok(());
        }
        // From here on no move may take them for the rows that the tenant left.
        forget(&client, tenant, "kept").await?;
        if placement.tier == Tier::Shared {
            let script = "set session_replication_role = replica; set lock_timeout = '10s'";
            client.batch_execute(script).await.map_err(from_driver)?;
            let schemas: Vec<&str> = modules.iter().map(ModuleId::as_str).collect();
            let tables = client.query(TABLES, &[&schemas]).await;
            for row in tables.map_err(from_driver)? {
                let schema: &str = row.try_get(0).map_err(from_driver)?;
                let table: &str = row.try_get(1).map_err(from_driver)?;
                let sql = format!(
                    "delete from {0}.{1} where ctid = any (array(
                         select ctid from {0}.{1} where tenant_id = $1 limit $2))",
                    quoted(schema),
                    quoted(table)
                );
                loop {
                    let deleted = client.execute(&sql, &[&tenant.number(), &batch]).await;
                    if deleted.map_err(from_driver)? == 0 {
                        break;
                    }
                    tokio::time::sleep(rest).await;
                }
            }
        }
        // The rest, but for the home row.
        self.clear_place(tenant, placement).await?;
        drop(client);
        Ok(())
    }
}
