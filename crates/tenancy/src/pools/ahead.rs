//! Connections to the place that a tenant is on its way to, opened before it arrives.
//!
//! A tenant that has just arrived is asked for by all of its users at once, and what comes first there
//! costs many times what the next does: a server process is started, the database's rules are looked at,
//! its catalogue is read. While the move still follows changes, its requests say where it is heading, and
//! the first of them has that done.
//!
//! Invariants:
//! - nobody waits for it, and a failure is nobody's: who comes later opens a connection as always;
//! - at each cell it is at work once, holds at most [`MOST`] places, and those only while half of them
//!   are free; it makes no room at another database's cost;
//! - it opens as many as the tenant has in use where it is;
//! - what is opened is lent to anybody who asks for that database, and idles no longer than others.
//!
//! Left out: preparing the module's statements. Their texts may hold what another tenant was asked for,
//! and would be sent to the server of this one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use waangu_identity::RequestContext;
use waangu_kernel::{Fault, Placement, TenantId, Tier};

use super::{Cell, Lease, Pools, Shared};

/// Connections that are made ready for a tenant, at least and at most.
const LEAST: usize = 2;
const MOST: usize = 6;

/// Longest time for that.
const LONGEST: Duration = Duration::from_secs(2);

/// When it is done again for the same place: before what was opened has idled too long.
const AGAIN: Duration = Duration::from_secs(30);

/// The same, if nothing was opened.
const RETRY: Duration = Duration::from_secs(2);

/// What is known of this at a cell.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    busy: bool,
    /// When to do it again, by tenant and the database it is heading for.
    due: HashMap<(TenantId, String), Instant>,
}

impl Pools {
    /// Makes connections ready at the place that the request's tenant is heading for, if it is. Returns at
    /// once.
    pub fn open_ahead(&self, context: &RequestContext) {
        let Some(place) = &context.heading else {
            return;
        };
        let Some(cell) = self.shared.cells.get(&place.cell) else {
            return;
        };
        let database = place.database(context.tenant);
        if !cell.begin_ahead(&(context.tenant, database)) {
            return;
        }
        // This request is about to take one.
        let in_use = self.held_by(context.tenant) + 1;
        let mut attempt = Attempt {
            wanted: in_use.clamp(LEAST, MOST),
            shared: Arc::clone(&self.shared),
            place: place.clone(),
            schema: place.schema(context.tenant, &context.module),
            tenant: context.tenant,
            again: RETRY,
        };
        self.sweep_later(&place.cell, cell);
        #[expect(
            clippy::disallowed_methods,
            reason = "ends by itself within its time; nobody waits for it"
        )]
        drop(tokio::spawn(async move { attempt.run().await }));
    }

    /// Connections that a tenant has in use.
    fn held_by(&self, tenant: TenantId) -> usize {
        let cells = self.shared.cells.values();
        cells
            .map(|cell| cell.lock().queue.holds(tenant.number()))
            .sum()
    }
}

impl Cell {
    /// Whether to begin now; then nobody else does until the end of the [`Attempt`].
    fn begin_ahead(&self, to: &(TenantId, String)) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        let Attempts { busy, due } = &mut state.ahead;
        due.retain(|_, at| *at > now);
        let begins = !*busy && !due.contains_key(to);
        *busy |= begins;
        begins
    }
}

/// One attempt; its end is when it is dropped.
struct Attempt {
    /// Connections that are to be ready.
    wanted: usize,
    shared: Arc<Shared>,
    /// Where the tenant is heading, and the module's schema there.
    place: Placement,
    schema: String,
    tenant: TenantId,
    again: Duration,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(cell) = self.shared.cells.get(&self.place.cell) {
            let ahead = &mut cell.lock().ahead;
            ahead.busy = false;
            let due = Instant::now() + self.again;
            let to = (self.tenant, self.place.database(self.tenant));
            ahead.due.insert(to, due);
        }
    }
}

impl Attempt {
    async fn run(&mut self) {
        let cell = self.place.cell.clone();
        match timeout(LONGEST, self.make()).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => {
                let cause = fault.operator_cause();
                tracing::debug!(%cell, cause, "not all is open ahead: {fault}");
            }
            Err(_late) => tracing::debug!(%cell, "not all is open ahead: no time"),
        }
    }

    /// Makes connections ready, and gives all of them back at the end.
    async fn make(&mut self) -> Result<(), Fault> {
        let mut ready = Vec::with_capacity(self.wanted);
        while ready.len() < self.wanted {
            let Some(lease) = self.one().await? else {
                break;
            };
            self.again = AGAIN;
            ready.push(lease);
        }
        Ok(())
    }

    async fn one(&self) -> Result<Option<Lease>, Fault> {
        let Some(mut lease) = self.lease().await? else {
            return Ok(None);
        };
        if let Some(conn) = lease.conn() {
            if self.place.tier == Tier::Schema {
                conn.remember_schema(self.tenant);
            }
            conn.read_up(&self.schema).await?;
        }
        Ok(Some(lease))
    }

    /// A connection that idles, or a new one if there is room.
    async fn lease(&self) -> Result<Option<Lease>, Fault> {
        let (id, tenant) = (&self.place.cell, self.tenant);
        let Some(cell) = self.shared.cells.get(id) else {
            return Ok(None);
        };
        {
            let mut state = cell.lock();
            let much = state.queue.taken() >= state.queue.limit() / 2;
            if much || state.queue.waiting() > 0 || !state.queue.try_take(tenant.number()) {
                return Ok(None);
            }
        }
        let database = self.place.database(tenant);
        let mut lease = Lease::of_place(&self.shared, id, &database, tenant);
        lease.conn = cell.take_idle(&database, tenant);
        if lease.conn.is_none() {
            if !cell.has_room() {
                return Ok(None);
            }
            lease.conn = Some(cell.open(&self.shared, id, &database).await?);
        }
        Ok(Some(lease))
    }
}
