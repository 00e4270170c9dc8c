//! Looks at a database's isolation before its tenants are served from it.
//!
//! Invariants:
//! - a connection is lent only if its database was found sound within [`FRESH`]: who opens one is who
//!   looks, so a database that nobody uses costs nothing;
//! - several connections that are opened at once wait for one look;
//! - a failed look is not remembered: the mend counts with the next request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use waangu_kernel::{CellId, Fault};

use super::conn::Conn;
use crate::inspect::{Rules, inspect_before_use};

/// How long a database that was found sound is taken to be so.
const FRESH: Duration = Duration::from_mins(10);

/// When a database was found sound.
type Seen = Arc<tokio::sync::Mutex<Option<Instant>>>;

/// What has been looked at.
pub(super) struct Guard {
    rules: Rules,
    seen: Mutex<HashMap<(CellId, Box<str>), Seen>>,
}

impl Guard {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            seen: Mutex::default(),
        }
    }

    /// Looks at the database of a new connection, unless that was done a short time ago.
    ///
    /// # Errors
    /// `isolation-drift`; `database-unavailable`.
    pub(super) async fn look(
        &self,
        cell: &CellId,
        database: &str,
        conn: &mut Conn,
    ) -> Result<(), Fault> {
        let seen = {
            let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let key = (cell.clone(), database.into());
            Arc::clone(all.entry(key).or_default())
        };
        let mut sound = seen.lock().await;
        if sound.is_some_and(|since| since.elapsed() < FRESH) {
            return Ok(());
        }
        inspect_before_use(conn.wire(), &self.rules).await?;
        *sound = Some(Instant::now());
        Ok(())
    }
}
