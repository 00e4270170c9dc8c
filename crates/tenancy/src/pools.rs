//! A module's connections: one bounded pool for each database that its tenants live in.
//!
//! Invariants:
//! - pools are opened on demand and know one login only, the module's own;
//! - whoever waits for a connection waits at most [`WAIT`];
//! - a connection is cleaned of roles, settings, cursors, listeners and sequence values before it is
//!   lent again, so that nothing of one tenant's request reaches the next.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use serde::{Deserialize, Serialize};
use tokio_postgres::{Config, NoTls};
use waangu_kernel::{CellId, Fault, ModuleId, fault};

use crate::error::unavailable;

/// Longest wait for a connection.
pub const WAIT: Duration = Duration::from_secs(5);

/// Longest silence of a cell before its connections are given up, so that a cut network is noticed.
const SILENCE: Duration = Duration::from_secs(15);

/// A statement may not run, nor a transaction idle, for longer: its seal lives as long as it does.
const BOUNDS: &str = "-c statement_timeout=30s -c idle_in_transaction_session_timeout=30s";

/// Connections in one pool.
const POOL_SIZE: usize = 8;

/// What a connection is told before it is lent again. Role, `app.*` and `search_path` fall back to
/// the login's defaults, cursors and listeners end, and the seal of the last transaction is forgotten.
/// A statement prepared in SQL could take the place of one of the driver's: that is an error here
/// (division by zero), and the pool closes the connection.
const CLEAN: &str = "set session authorization default; reset all; close all; unlisten *; \
    discard sequences; \
    select 1 / (not exists (select from pg_prepared_statements where from_sql))::integer";

/// Where a cell answers, and the module's password there.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellAddress {
    /// The cell.
    pub id: CellId,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The module login's password.
    pub password: String,
}

impl fmt::Debug for CellAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CellAddress({} {}:{})", self.id, self.host, self.port)
    }
}

/// All pools of one module process.
#[derive(Clone)]
pub struct Pools {
    shared: Arc<Shared>,
}

struct Shared {
    login: String,
    cells: HashMap<CellId, CellAddress>,
    open: Mutex<HashMap<(CellId, String), Pool>>,
}

impl Pools {
    /// Pools for one module over these cells. Nothing connects yet.
    pub fn new(module: &ModuleId, cells: Vec<CellAddress>) -> Self {
        let cells = cells
            .into_iter()
            .map(|cell| (cell.id.clone(), cell))
            .collect();
        let shared = Shared {
            login: format!("waangu_{module}"),
            cells,
            open: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Borrows a connection to a database of a cell.
    ///
    /// # Errors
    /// `database-unavailable` when the cell is not known here, or gives no connection in time.
    pub(crate) async fn get(&self, cell: &CellId, database: &str) -> Result<Object, Fault> {
        let pool = self.pool(cell, database)?;
        pool.get().await.map_err(unavailable)
    }

    fn pool(&self, cell: &CellId, database: &str) -> Result<Pool, Fault> {
        let key = (cell.clone(), database.to_owned());
        // The map is only ever replaced entry by entry, so it is whole even after a panic.
        let mut open = self
            .shared
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = open.get(&key) {
            return Ok(pool.clone());
        }
        let address = self.shared.cells.get(cell).ok_or_else(|| {
            fault::DATABASE_UNAVAILABLE
                .fault("the tenant's cell is not known to this module")
                .cause(format!("no address for cell {cell}"))
        })?;
        let pool = build(address, &self.shared.login, database)?;
        open.insert(key, pool.clone());
        Ok(pool)
    }
}

impl fmt::Debug for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pools({})", self.shared.login)
    }
}

fn build(address: &CellAddress, login: &str, database: &str) -> Result<Pool, Fault> {
    let mut config = Config::new();
    config
        .host(&address.host)
        .port(address.port)
        .user(login)
        .password(&address.password)
        .dbname(database)
        .application_name(login)
        .options(BOUNDS)
        .tcp_user_timeout(SILENCE)
        .connect_timeout(WAIT);
    let recycling_method = RecyclingMethod::Custom(CLEAN.to_owned());
    let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method });
    Pool::builder(manager)
        .max_size(POOL_SIZE)
        .wait_timeout(Some(WAIT))
        .create_timeout(Some(WAIT))
        .recycle_timeout(Some(WAIT))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(unavailable)
}
