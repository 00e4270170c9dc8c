//! Cells: where they stand, what they may hold, and what they held when last measured.

use std::str::FromStr;

use time::OffsetDateTime;
use tokio_postgres::Row;
use waangu_kernel::{CellId, Fault, RegionId, Sla, TenantId, fault};

use crate::db::{Tx, column, parsed};
use crate::tenants::{SELECT, Tenant, tenant_from};

/// The bucket of each live tenant of the schema tier of cell `$1`, and of each on its way there.
pub(crate) const BUCKETS: &str = "
select bucket
  from registry.tenant
 where cell = $1 and tier = 'schema' and state <> 'deleted'
 union all
select to_bucket
  from registry.relocation
 where to_cell = $1 and to_tier = 'schema' and finished_at is null";

/// Whether a cell takes tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellState {
    /// Takes tenants.
    Active,
    /// Serves, takes no more.
    Full,
    /// Serves, is being emptied.
    Draining,
    /// Does not serve.
    Down,
}

impl CellState {
    /// The name in API and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Full => "full",
            Self::Draining => "draining",
            Self::Down => "down",
        }
    }
}

impl FromStr for CellState {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        [Self::Active, Self::Full, Self::Draining, Self::Down]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| {
                fault::INVALID_FIELD.fault(format!(
                    "`{}` is not a cell state: active, full, draining or down",
                    fault::excerpt(text)
                ))
            })
    }
}

/// One PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Its id.
    pub id: CellId,
    /// Where it stands.
    pub region: RegionId,
    /// `dev`, `test`, `preprod` or `prod`.
    pub environment: String,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: i32,
    /// Whether it takes tenants.
    pub state: CellState,
    /// The best service level that it is run for.
    pub sla: Sla,
    /// How many tenants it may hold.
    pub capacity: i32,
    /// How many bytes it may hold.
    pub capacity_bytes: Option<i64>,
    /// How many connections it may have.
    pub capacity_connections: Option<i32>,
    /// How many tenants one of its schema-tier databases may hold.
    pub bucket_limit: i32,
    /// How many tenants it holds, those on their way to it included.
    pub tenants: i64,
    /// What it held when it was last measured.
    pub usage: Option<CellUsage>,
}

/// What a cell held when it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CellUsage {
    /// When.
    pub measured_at: OffsetDateTime,
    /// All of its databases together.
    pub bytes: i64,
    /// Clients connected.
    pub connections: i32,
}

/// How a placement is held while it is decided and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Beside others: right while more places are free than creations can be under way.
    Shared,
    /// Alone.
    Exclusive,
}

/// A tenant `t` that is at a cell, or on its way to it.
const AT_OR_COMING: &str = "(t.cell = $1 or exists (select from registry.relocation r
    where r.tenant_id = t.id and r.finished_at is null and r.to_cell = $1))";

impl Tx<'_> {
    /// Creates a cell or updates all that is declared about it; its state is the operator's.
    ///
    /// # Errors
    /// `internal` when its region or environment does not exist; `database-unavailable`.
    pub async fn put_cell(&self, cell: &Cell) -> Result<(), Fault> {
        let sql = "insert into registry.cell
                   (id, region, environment, host, port, state, sla
                   , capacity, capacity_bytes, capacity_connections, bucket_limit)
                   values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
                   on conflict (id) do update
                   set region = excluded.region
                     , environment = excluded.environment
                     , host = excluded.host
                     , port = excluded.port
                     , state = excluded.state
                     , sla = excluded.sla
                     , capacity = excluded.capacity
                     , capacity_bytes = excluded.capacity_bytes
                     , capacity_connections = excluded.capacity_connections
                     , bucket_limit = excluded.bucket_limit";
        self.execute(
            sql,
            &[
                &cell.id.as_str(),
                &cell.region.as_str(),
                &cell.environment,
                &cell.host,
                &cell.port,
                &cell.state.as_str(),
                &cell.sla.as_str(),
                &cell.capacity,
                &cell.capacity_bytes,
                &cell.capacity_connections,
                &cell.bucket_limit,
            ],
        )
        .await
        .map(drop)
    }

    /// All cells with what they hold.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_cells(&self) -> Result<Vec<Cell>, Fault> {
        let sql = "select c.*
                        , u.measured_at
                        , u.bytes
                        , u.connections
                        , (select count(*) from registry.tenant t
                            where t.cell = c.id and t.state <> 'deleted')
                          + (select count(*) from registry.relocation r
                              where r.to_cell = c.id
                                and r.from_cell <> c.id
                                and r.finished_at is null
                                and r.switched_at is null) as tenants
                     from registry.cell c
                     left join registry.cell_usage u on u.cell = c.id
                    order by c.id";
        self.rows(sql, &[]).await?.iter().map(cell_from).collect()
    }

    /// The region of each cell; what cells hold is not counted for it.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_cell_regions(&self) -> Result<Vec<(CellId, RegionId)>, Fault> {
        let rows = self
            .rows("select id, region from registry.cell", &[])
            .await?;
        rows.iter()
            .map(|row| Ok((parsed(row, "id")?, parsed(row, "region")?)))
            .collect()
    }

    /// Says whether a cell takes tenants.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn set_cell_state(&self, id: &CellId, state: CellState) -> Result<(), Fault> {
        let sql = "update registry.cell set state = $2 where id = $1";
        self.execute(sql, &[&id.as_str(), &state.as_str()])
            .await
            .map(drop)
    }

    /// Says where a cell answers: whoever starts its server knows. Nothing, if there is no such cell.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn set_cell_address(&self, id: &CellId, host: &str, port: i32) -> Result<(), Fault> {
        let sql = "update registry.cell
                      set host = $2
                        , port = $3
                    where id = $1 and (host, port) is distinct from ($2, $3)";
        self.execute(sql, &[&id.as_str(), &host, &port])
            .await
            .map(drop)
    }

    /// Records what a cell was measured to hold.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn put_cell_usage(
        &self,
        id: &CellId,
        bytes: i64,
        connections: i32,
    ) -> Result<(), Fault> {
        let sql = "insert into registry.cell_usage (cell, bytes, connections)
                   select id, $2, $3 from registry.cell where id = $1
                   on conflict (cell) do update
                   set measured_at = now()
                     , bytes = excluded.bytes
                     , connections = excluded.connections";
        self.execute(sql, &[&id.as_str(), &bytes, &connections])
            .await
            .map(drop)
    }

    /// The cells that nobody has measured for so long.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_unmeasured_cells(&self, seconds: i32) -> Result<Vec<CellId>, Fault> {
        let sql = "select c.id
                     from registry.cell c
                     left join registry.cell_usage u on u.cell = c.id
                    where u.measured_at is null
                       or u.measured_at < now() - make_interval(secs => $1::integer)
                    order by c.id";
        self.rows(sql, &[&seconds])
            .await?
            .iter()
            .map(|row| parsed(row, "id"))
            .collect()
    }

    /// The live tenants of a cell, and those on their way to it, by number.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_cell_tenants(&self, id: &CellId, limit: i64) -> Result<Vec<Tenant>, Fault> {
        let sql = format!(
            "{SELECT} where {AT_OR_COMING} and t.state <> 'deleted' order by t.id limit $2"
        );
        let rows = self.rows(&sql, &[&id.as_str(), &limit]).await?;
        rows.iter().map(tenant_from).collect()
    }

    /// How many live tenants a cell has, those on their way to it included: it is not empty before they
    /// have come and gone.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn count_cell_tenants(&self, id: &CellId) -> Result<i64, Fault> {
        let sql = format!(
            "select count(*) from registry.tenant t where {AT_OR_COMING} and t.state <> 'deleted'"
        );
        column(&self.one(&sql, &[&id.as_str()]).await?, "count")
    }

    /// Keeps what placements are decided on from changing until this transaction, or the savepoint
    /// around the call, ends: creations among each other, and against whoever removes a place.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn lock_placement(&self, hold: Hold) -> Result<(), Fault> {
        let sql = match hold {
            Hold::Shared => "select pg_advisory_xact_lock_shared(-5)",
            Hold::Exclusive => "select pg_advisory_xact_lock(-5)",
        };
        self.execute(sql, &[]).await.map(drop)
    }

    /// The bucket database of `cell` with room for one more schema-tier tenant: the lowest number
    /// that holds fewer than the cell's bound. Until this transaction ends, nobody else chooses on
    /// this cell.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn choose_bucket(&self, cell: &CellId) -> Result<i32, Fault> {
        self.lock_buckets(cell).await?;
        let sql = format!(
            "with held as (
                 select bucket, count(*) as n from ({BUCKETS}) coming group by bucket
             )
             select min(b.bucket)::integer as bucket
               from generate_series(1, (select coalesce(max(bucket), 0) + 1 from held)) as b (bucket)
               left join held h on h.bucket = b.bucket
              where coalesce(h.n, 0) < (select bucket_limit from registry.cell where id = $1)"
        );
        column(&self.one(&sql, &[&cell.as_str()]).await?, "bucket")
    }

    /// The buckets of a cell that live tenants have, are moving to, or have left rows in. Until this transaction ends, nobody chooses one.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn hold_buckets(&self, cell: &CellId) -> Result<Vec<i32>, Fault> {
        self.lock_buckets(cell).await?;
        let sql = "select bucket from registry.tenant
                    where cell = $1 and tier = 'schema' and state <> 'deleted'
                    union
                   select to_bucket from registry.relocation
                    where to_cell = $1 and to_tier = 'schema' and finished_at is null
                    union
                   select from_bucket from registry.relocation
                    where from_cell = $1 and from_tier = 'schema'
                      and (finished_at is null or clean_at is not null and cleaned_at is null)";
        let rows = self.rows(sql, &[&cell.as_str()]).await?;
        rows.iter().map(|row| column(row, "bucket")).collect()
    }

    /// The second key keeps it apart from the locks of single tenants.
    async fn lock_buckets(&self, cell: &CellId) -> Result<(), Fault> {
        let sql = "select pg_advisory_xact_lock(-6, hashtext($1))";
        self.execute(sql, &[&cell.as_str()]).await.map(drop)
    }

    /// Forgets everything that was done since [`Tx::savepoint`], locks too.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn back_to_savepoint(&self) -> Result<(), Fault> {
        self.batch("rollback to savepoint here; release savepoint here")
            .await
    }

    /// A point to go back to.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn savepoint(&self) -> Result<(), Fault> {
        self.batch("savepoint here").await
    }

    /// The numbers of live tenants whose cell stands where their country's rule does not allow it,
    /// with country and region.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_misplaced(&self) -> Result<Vec<(TenantId, String, String)>, Fault> {
        let sql = "select t.id, t.country, c.region
                     from registry.tenant t
                     join registry.cell c on c.id = t.cell
                     left join registry.country_region r
                            on r.country = t.country and r.region = c.region
                    where t.state <> 'deleted' and r.region is null
                    order by t.id";
        self.rows(sql, &[])
            .await?
            .iter()
            .map(|row| {
                Ok((
                    TenantId::new(column(row, "id")?)?,
                    column(row, "country")?,
                    column(row, "region")?,
                ))
            })
            .collect()
    }
}

fn cell_from(row: &Row) -> Result<Cell, Fault> {
    let measured_at: Option<OffsetDateTime> = column(row, "measured_at")?;
    let usage = match measured_at {
        Some(measured_at) => Some(CellUsage {
            measured_at,
            bytes: column(row, "bytes")?,
            connections: column(row, "connections")?,
        }),
        None => None,
    };
    Ok(Cell {
        id: parsed(row, "id")?,
        region: parsed(row, "region")?,
        environment: column(row, "environment")?,
        host: column(row, "host")?,
        port: column(row, "port")?,
        state: parsed(row, "state")?,
        sla: parsed(row, "sla")?,
        capacity: column(row, "capacity")?,
        capacity_bytes: column(row, "capacity_bytes")?,
        capacity_connections: column(row, "capacity_connections")?,
        bucket_limit: column(row, "bucket_limit")?,
        tenants: column(row, "tenants")?,
        usage,
    })
}
