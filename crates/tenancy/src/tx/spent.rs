//! How long somebody's transactions held a connection: what a tenant costs of what a cell has least
//! of. With the waits between two statements, but without the wait for a free connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// A sum over transactions, such as those of one request.
#[derive(Debug, Clone, Default)]
pub struct Spent(Arc<AtomicU64>);

impl Spent {
    /// Microseconds so far; of what is still held, nothing.
    pub fn micros(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// A connection is held from now on.
    pub(super) fn hold(&self) -> Holding {
        Holding {
            spent: self.clone(),
            since: Instant::now(),
        }
    }
}

/// A connection that is being held, until this is dropped.
#[derive(Debug)]
pub(super) struct Holding {
    spent: Spent,
    since: Instant,
}

impl Drop for Holding {
    fn drop(&mut self) {
        let micros = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.spent.0.fetch_add(micros, Ordering::Relaxed);
    }
}
