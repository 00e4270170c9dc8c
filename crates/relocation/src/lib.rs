//! Moves a working tenant to another place: between tiers and between cells, under its writers.
//!
//! The protocol, its commit point and what each crash leaves are in `docs/relocation.md`. In short:
//! publication → slot → copy of a snapshot → stream of changes → freeze → drain → verify → **fence**
//! → open the target, tell the registry → clean up.
//!
//! Invariants:
//! - never two writable places: the target opens only when the source is fenced, and that is durable;
//! - never none for ever: what is to be done next follows from what the two databases hold
//!   ([`state::next`]), so that whoever comes next finishes, or undoes what is not yet fenced;
//! - a change is applied once: the position in the log is stored in the target by the transaction
//!   that applies it;
//! - only the holder of the claim, a lock of the session that also freezes and fences, can fence.
//!
//! Left out: the registry, and why a tenant moves.

pub mod pgoutput;
pub mod snapshot;
pub mod state;

mod binary;
mod engine;
mod fetch;
mod laps;
mod pace;
mod place;
mod progress;
mod stop;
mod stream;
mod sweep;
mod table;
mod verify;
mod ways_back;

pub use engine::{Options, Outlook, Relocation, Request, Safety, is_fenced, look_back, undo};
pub use laps::Laps;
pub use place::Side;
pub use progress::{Phase, Progress};
pub use state::Step;
pub use sweep::{
    Debris, Stranded, databases_of, debris, debris_in, drop_overdrawn, stranded, sweep, sweep_in,
};
pub use ways_back::{WayBack, close_way_back, ways_back};

/// Why a relocation did not go on. Unless it says otherwise, the tenant is served as before.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A database could not be reached, or refused a statement; to be tried again.
    #[error("{0}")]
    Database(String),
    /// The tenant can't be moved as it is.
    #[error("the tenant can't be moved: {0}")]
    Refused(String),
    /// Somebody else is moving it.
    #[error("somebody else is moving this tenant")]
    Busy,
    /// It was told to stop, before the commit point.
    #[error("the move was stopped")]
    Cancelled,
    /// The tenant could not be frozen, drained and verified within the longest pause.
    #[error("the move did not fit into a pause of {0} ms")]
    Pause(u128),
    /// Rows differ at the same point of the log.
    #[error("table {table} differs: {what}")]
    Mismatch {
        /// The table, with its schema at the source.
        table: String,
        /// How many rows, and the range of their keys.
        what: String,
    },
    /// The slot holds back more of the log than it may.
    #[error(
        "the move holds back {held} bytes of the source's log, and may hold back {bound}: raise \
         `max_held_mb`, let it copy faster, or move at a quieter time"
    )]
    Held {
        /// Bytes.
        held: i64,
        /// Bytes that it may hold back.
        bound: i64,
    },
    /// The rows of an old place could not be brought up to date; the next step copies anew.
    #[error("its old place can't be brought up to date, so it is copied anew: {0}")]
    Cold(String),
    /// The snapshot of the copy has become too old.
    #[error(
        "the rows were not copied within {0} s, for which no dead row could be removed: raise \
         `max_copy_minutes`, or let it copy faster"
    )]
    Old(u64),
    /// The stream says something that can't be applied.
    #[error("the stream of changes can't be applied: {0}")]
    Stream(String),
    /// The target could not be made ready.
    #[error("the cell can't be made ready: {0}")]
    Cell(#[from] waangu_kernel::Fault),
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) => {
                let (code, text) = (db.code().code(), db.message());
                let text = format!("{text} [{code}]");
                // Values and constraints: rows don't fit, whenever it is tried.
                match code.get(..2) {
                    Some("22" | "23") => Self::Stream(text),
                    _ => Self::Database(text),
                }
            }
            None => Self::Database(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Database(error.to_string())
    }
}
