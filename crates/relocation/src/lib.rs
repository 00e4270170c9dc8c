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
//! Left out: the registry, why a tenant moves, and a way back other than another move.

pub mod pgoutput;
pub mod snapshot;
pub mod state;

mod engine;
mod laps;
mod place;
mod progress;
mod stop;
mod stream;
mod sweep;
mod table;
mod verify;

pub use engine::{Options, Relocation, Request, Safety, is_fenced, undo};
pub use laps::Laps;
pub use place::Side;
pub use progress::{Phase, Progress};
pub use state::Step;
pub use sweep::{Debris, Stranded, debris, stranded, sweep};

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
    #[error("the move holds back {0} bytes of the source's log")]
    Held(i64),
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
            Some(db) => Self::Database(format!("{} [{}]", db.message(), db.code().code())),
            None => Self::Database(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Database(error.to_string())
    }
}
