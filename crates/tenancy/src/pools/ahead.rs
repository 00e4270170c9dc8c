//! Connections to the place that a tenant is on its way to, opened before it arrives.
//!
//! A tenant that has just arrived is asked for by all of its users at once, and what comes first there
//! costs many times what the next does: a server process is started, the database's rules are looked at,
//! its catalogue is read. While the move still follows changes, its requests say where it is heading, and
//! the first of them has that done.
//!
//! Invariants:
//! - nobody waits for it, and a failure is nobody's: who comes later opens a connection as always;
//! - it takes a place only while one is free, and opens at most [`AHEAD`] connections to a database that
//!   has none, once in [`PAUSE`];
//! - what is opened is lent to anybody who asks for that database, and idles no longer than others.
//!
//! Left out: preparing the module's statements. Their texts may hold what another tenant was asked for,
//! and it would be sent to the server of this one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use waangu_identity::RequestContext;
use waangu_kernel::{CellId, Fault, TenantId};

use super::{Lease, Place, Pools, Shared};

/// Connections that wait for a tenant on its way.
const AHEAD: usize = 2;

/// Shortest time between two attempts at one database.
const PAUSE: Duration = Duration::from_secs(2);

/// Longest time that an attempt holds its place.
const LONGEST: Duration = Duration::from_secs(5);

/// When each database of a cell was last tried.
pub(super) type Tried = HashMap<Box<str>, Instant>;

/// What is to be opened.
struct Heading {
    cell: CellId,
    database: Box<str>,
    schema: String,
    tenant: TenantId,
}

impl Pools {
    /// Opens connections to the place that the request's tenant is heading for, if it is and there are
    /// none. Returns at once.
    pub fn open_ahead(&self, context: &RequestContext) {
        let Some(place) = &context.heading else {
            return;
        };
        let heading = Heading {
            cell: place.cell.clone(),
            database: place.database(context.tenant).into(),
            schema: place.schema(context.tenant, &context.module),
            tenant: context.tenant,
        };
        if !self.shared.is_due(&heading) {
            return;
        }
        let shared = Arc::clone(&self.shared);
        #[expect(
            clippy::disallowed_methods,
            reason = "ends by itself within its time; nobody waits for it"
        )]
        drop(tokio::spawn(async move {
            for _ in 0..AHEAD {
                match timeout(LONGEST, shared.open_one(&heading)).await {
                    Ok(Ok(true)) => {}
                    Ok(Ok(false)) | Err(_) => return,
                    Ok(Err(fault)) => {
                        let cause = fault.operator_cause();
                        tracing::debug!(cell = %heading.cell, cause, "nothing opened ahead: {fault}");
                        return;
                    }
                }
            }
        }));
    }
}

impl Shared {
    /// Whether to try now; then nobody else does for a while.
    fn is_due(&self, heading: &Heading) -> bool {
        let Some(cell) = self.cells.get(&heading.cell) else {
            return false;
        };
        let mut state = cell.lock();
        let now = Instant::now();
        if state
            .idle
            .iter()
            .any(|idle| idle.database == heading.database)
        {
            return false;
        }
        state
            .tried
            .retain(|_, at| now.saturating_duration_since(*at) < PAUSE);
        if state.tried.contains_key(&heading.database) {
            return false;
        }
        state.tried.insert(heading.database.clone(), now);
        true
    }

    /// Opens one connection and gives it back for whoever comes; `false` while no place is free.
    async fn open_one(self: &Arc<Self>, heading: &Heading) -> Result<bool, Fault> {
        let Some(cell) = self.cells.get(&heading.cell) else {
            return Ok(false);
        };
        if !cell.lock().queue.try_take(heading.tenant.number()) {
            return Ok(false);
        }
        let mut lease = Lease {
            place: Place {
                shared: Arc::clone(self),
                cell: heading.cell.clone(),
                tenant: heading.tenant,
            },
            database: heading.database.clone(),
            conn: None,
        };
        let mut conn = cell.open(self, &heading.cell, &heading.database).await?;
        conn.read_up(&heading.schema).await?;
        lease.conn = Some(conn);
        Ok(true)
    }
}
