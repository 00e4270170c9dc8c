//! A module's connections to the cells.
//!
//! Invariants:
//! - one login only, the module's own; a connection leaves only inside a [`crate::TenantTx`];
//! - to each cell at most [`Limits::per_cell`] connections are open, however many databases it has:
//!   they are opened on demand, an idle one of another database makes room, and none idles longer
//!   than [`Limits::idle`];
//! - a free place goes to the tenant that holds the fewest ([`queue`]), and nobody waits longer than
//!   its deadline;
//! - of many who want one to the same database at once, few open it, and the others take what comes
//!   back ([`opening`]);
//! - some are opened before a tenant arrives at a new place ([`ahead`]);
//! - a tenant gets a connection that served it last, if there is one (affinity);
//! - no tenant meets another's traces: after a statement that may leave some ([`trace`]) the
//!   connection is closed;
//! - from [`Pools::guarded`] no connection is lent to a database whose isolation has drifted.
//!
//! External poolers: session mode only. The seal is bound to the connection, so a pooler that changes
//! the server under a transaction breaks it, and one that does so between transactions gains nothing.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use waangu_identity::proof::Access;
use waangu_kernel::{CellId, Fault, ModuleId, TenantId, fault};

use crate::error::unavailable;
use crate::inspect::Rules;

mod ahead;
pub(crate) mod conn;
mod guard;
mod opening;
mod queue;
mod trace;

use conn::Conn;
use guard::Guard;
use opening::{Got, Opening};
use queue::{Queue, Ticket};

/// Longest wait for a connection to be opened.
pub const WAIT: Duration = Duration::from_secs(5);

/// How often idle connections are looked at.
const SWEEP: Duration = Duration::from_secs(10);

/// Where a cell answers, and the login's password there.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellAddress {
    /// The cell.
    pub id: CellId,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The login's password.
    pub password: String,
}

impl fmt::Debug for CellAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CellAddress({} {}:{})", self.id, self.host, self.port)
    }
}

/// Bounds of one process's pools.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections to one cell.
    pub per_cell: usize,
    /// Longest idle time of a connection.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            per_cell: 32,
            idle: Duration::from_mins(1),
        }
    }
}

/// What one cell's pool is doing, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CellStats {
    /// Open connections.
    pub open: usize,
    /// Connections in use.
    pub in_use: usize,
    /// Requests that wait for one.
    pub waiting: usize,
    /// Requests that had to wait, since the start.
    pub waited: u64,
    /// Requests whose wait was in vain, since the start.
    pub timed_out: u64,
    /// Connections opened, since the start.
    pub opened: u64,
    /// Connections closed because a statement may have left traces, since the start.
    pub tainted: u64,
}

/// All pools of one login.
#[derive(Clone)]
pub struct Pools {
    shared: Arc<Shared>,
}

struct Shared {
    login: String,
    limits: Limits,
    cells: HashMap<CellId, Cell>,
    guard: Option<Guard>,
}

struct Cell {
    address: CellAddress,
    state: Mutex<CellState>,
    opening: Opening,
}

struct CellState {
    queue: Queue<oneshot::Sender<()>>,
    idle: Vec<Idle>,
    open: usize,
    stats: CellStats,
    ahead: ahead::Attempts,
    swept: bool,
}

struct Idle {
    database: Box<str>,
    conn: Conn,
    since: Instant,
}

impl Pools {
    /// Pools for a module's own login over these cells. Nothing connects yet.
    pub fn new(module: &ModuleId, cells: Vec<CellAddress>) -> Self {
        Self::for_login(Access::Write.login(module), cells, Limits::default())
    }

    /// Pools for the login that reads subtrees.
    pub fn tree(module: &ModuleId, cells: Vec<CellAddress>) -> Self {
        Self::for_login(Access::Tree.login(module), cells, Limits::default())
    }

    /// Pools for another login, or with other bounds.
    pub fn for_login(login: String, cells: Vec<CellAddress>, limits: Limits) -> Self {
        Self::build(login, cells, limits, None)
    }

    /// Pools which look at each database, before they lend a connection to it, whether it still has
    /// the rules that keep tenants apart. For what serves people.
    pub fn guarded(login: String, cells: Vec<CellAddress>, rules: Rules) -> Self {
        Self::build(login, cells, Limits::default(), Some(Guard::new(rules)))
    }

    fn build(login: String, cells: Vec<CellAddress>, limits: Limits, guard: Option<Guard>) -> Self {
        let cell = |address: CellAddress| {
            let state = CellState {
                queue: Queue::new(limits.per_cell),
                idle: Vec::new(),
                open: 0,
                stats: CellStats::default(),
                ahead: ahead::Attempts::default(),
                swept: false,
            };
            (
                address.id.clone(),
                Cell {
                    address,
                    state: Mutex::new(state),
                    opening: Opening::default(),
                },
            )
        };
        let cells = cells.into_iter().map(cell).collect();
        Self {
            shared: Arc::new(Shared {
                login,
                limits,
                cells,
                guard,
            }),
        }
    }

    /// What each cell's pool is doing.
    pub fn stats(&self) -> Vec<(CellId, CellStats)> {
        let stats = |(id, cell): (&CellId, &Cell)| {
            let state = cell.lock();
            let (in_use, waiting) = (state.queue.taken(), state.queue.waiting());
            (
                id.clone(),
                CellStats {
                    open: state.open,
                    in_use,
                    waiting,
                    ..state.stats
                },
            )
        };
        self.shared.cells.iter().map(stats).collect()
    }

    /// Borrows a connection to a database of a cell for a tenant.
    ///
    /// # Errors
    /// `overloaded` when none is free by the deadline; `database-unavailable` when the cell is not
    /// known here or does not answer by then.
    pub(crate) async fn lease(
        &self,
        cell: &CellId,
        database: &str,
        tenant: TenantId,
        deadline: Instant,
    ) -> Result<Lease, Fault> {
        let home = self.shared.cells.get(cell).ok_or_else(|| {
            fault::DATABASE_UNAVAILABLE
                .fault("the tenant's cell is not known to this module")
                .cause(format!("no address for cell {cell}"))
        })?;
        home.take_place(tenant, deadline).await?;
        let mut lease = Lease::of_place(&self.shared, cell, database, tenant);
        self.sweep_later(cell, home);
        let idle = || home.take_idle(database, tenant);
        let fresh = async {
            match home.opening.wait(database, deadline, idle).await {
                Got::Back(conn) => Ok(conn),
                Got::Turn(_turn) => home.open(&self.shared, cell, database).await,
            }
        };
        lease.conn = Some(match idle() {
            Some(conn) => conn,
            None => timeout_at(deadline, fresh)
                .await
                .map_err(|_late| unavailable("no connection within the request's time"))??,
        });
        Ok(lease)
    }

    /// Starts the sweeper of a cell, once.
    fn sweep_later(&self, id: &CellId, cell: &Cell) {
        if std::mem::replace(&mut cell.lock().swept, true) {
            return;
        }
        let (shared, id) = (Arc::downgrade(&self.shared), id.clone());
        #[expect(
            clippy::disallowed_methods,
            reason = "ends within one turn of the last handle's end"
        )]
        drop(tokio::spawn(sweep(shared, id)));
    }
}

impl fmt::Debug for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pools({})", self.shared.login)
    }
}

impl Cell {
    /// Nothing is left half-done under the lock, so the state is whole even after a panic.
    fn lock(&self) -> MutexGuard<'_, CellState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take_place(&self, tenant: TenantId, deadline: Instant) -> Result<(), Fault> {
        let (ticket, turn) = {
            let mut state = self.lock();
            if state.queue.try_take(tenant.number()) {
                return Ok(());
            }
            state.stats.waited = state.stats.waited.saturating_add(1);
            let (tell, turn) = oneshot::channel();
            (state.queue.wait(tenant.number(), tell), turn)
        };
        let mut waiting = Waiting {
            cell: self,
            tenant,
            ticket: Some(ticket),
        };
        let came = timeout_at(deadline, turn).await;
        if matches!(came, Ok(Ok(()))) {
            waiting.ticket = None;
            return Ok(());
        }
        let mut state = self.lock();
        state.stats.timed_out = state.stats.timed_out.saturating_add(1);
        drop(state);
        Err(fault::OVERLOADED.fault("all connections to the tenant's cell are in use"))
    }

    /// An idle connection to the database: the tenant's last one, else the most recent.
    fn take_idle(&self, database: &str, tenant: TenantId) -> Option<Conn> {
        let mut state = self.lock();
        loop {
            let here = |idle: &Idle| *idle.database == *database;
            let own = |idle: &Idle| here(idle) && idle.conn.last() == Some(tenant);
            let at = state
                .idle
                .iter()
                .rposition(own)
                .or_else(|| state.idle.iter().rposition(here))?;
            let idle = state.idle.remove(at);
            if idle.conn.is_fresh() {
                return Some(idle.conn);
            }
            state.open = state.open.saturating_sub(1);
        }
    }

    /// Whether one more connection can be open without closing another.
    fn has_room(&self) -> bool {
        let state = self.lock();
        state.open < state.queue.limit()
    }

    /// Opens a connection; the longest idle one of another database makes room if need be. Places in
    /// use and idle connections together never exceed the limit: whoever holds a place without a
    /// connection has its room counted here before it connects.
    async fn open(&self, shared: &Shared, id: &CellId, database: &str) -> Result<Conn, Fault> {
        {
            let mut state = self.lock();
            if state.open >= state.queue.limit() && !state.idle.is_empty() {
                drop(state.idle.remove(0));
                state.open = state.open.saturating_sub(1);
            }
            state.open = state.open.saturating_add(1);
            state.stats.opened = state.stats.opened.saturating_add(1);
        }
        let mut room = Room { cell: Some(self) };
        let begun = Instant::now();
        let mut conn = Conn::open(&self.address, &shared.login, database).await?;
        let took = begun.elapsed();
        if let Some(guard) = &shared.guard {
            guard.look(id, database, &mut conn).await?;
        }
        conn.join(self.opening.opened(database, took));
        room.cell = None;
        Ok(conn)
    }

    /// Frees a place, for a waiter if there is one. A waiter that has just given up is not told, and
    /// passes the place on itself ([`Waiting`]).
    fn free_place(state: &mut CellState, tenant: TenantId) {
        if let Some(next) = state.queue.free(tenant.number()) {
            let _given_up = next.send(());
        }
    }
}

/// Somebody in the queue: leaves it when dropped, and passes on a place that came too late.
struct Waiting<'a> {
    cell: &'a Cell,
    tenant: TenantId,
    ticket: Option<Ticket>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.cell.lock();
        if !state.queue.give_up(ticket) {
            Cell::free_place(&mut state, self.tenant);
        }
    }
}

/// Room counted for a connection that is being opened; given back if it does not come.
struct Room<'a> {
    cell: Option<&'a Cell>,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if let Some(cell) = self.cell {
            let mut state = cell.lock();
            state.open = state.open.saturating_sub(1);
        }
    }
}

struct Place {
    shared: Arc<Shared>,
    cell: CellId,
    tenant: TenantId,
}

/// A borrowed connection. Dropped with its connection inside, the connection is lent again; taken
/// out, it is not.
pub(crate) struct Lease {
    place: Place,
    database: Box<str>,
    conn: Option<Conn>,
}

impl Lease {
    /// A place that was taken; from here on it is given back however this ends.
    fn of_place(shared: &Arc<Shared>, cell: &CellId, database: &str, tenant: TenantId) -> Self {
        let place = Place {
            shared: Arc::clone(shared),
            cell: cell.clone(),
            tenant,
        };
        Self {
            place,
            database: database.into(),
            conn: None,
        }
    }

    /// The connection.
    pub(crate) fn conn(&mut self) -> Option<&mut Conn> {
        self.conn.as_mut()
    }

    /// Closes the connection: nobody shall meet it again.
    pub(crate) fn discard(&mut self) {
        if self.conn.take().is_some()
            && let Some(cell) = self.place.shared.cells.get(&self.place.cell)
        {
            let mut state = cell.lock();
            state.open = state.open.saturating_sub(1);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(cell) = self.place.shared.cells.get(&self.place.cell) else {
            return;
        };
        let mut state = cell.lock();
        if let Some(conn) = self.conn.take() {
            if conn.is_tainted() {
                state.stats.tainted = state.stats.tainted.saturating_add(1);
            }
            if conn.is_fresh() {
                let (database, since) = (std::mem::take(&mut self.database), Instant::now());
                state.idle.push(Idle {
                    database,
                    conn,
                    since,
                });
            } else {
                state.open = state.open.saturating_sub(1);
            }
        }
        Cell::free_place(&mut state, self.place.tenant);
        drop(state);
        cell.opening.tell();
    }
}

/// Closes what has idled too long, until the pools are gone.
async fn sweep(shared: Weak<Shared>, id: CellId) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let Some(cell) = shared.cells.get(&id) else {
            return;
        };
        let mut state = cell.lock();
        let before = state.idle.len();
        let idle = shared.limits.idle;
        state
            .idle
            .retain(|one| one.since.elapsed() < idle && one.conn.is_fresh());
        let closed = before.saturating_sub(state.idle.len());
        state.open = state.open.saturating_sub(closed);
    }
}
