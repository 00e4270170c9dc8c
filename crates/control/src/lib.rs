//! The control plane: admin API, built-in directory, and the reconciler that makes the cells what the
//! registry wants.
//!
//! ```text
//! admin API ──writes──▶ registry (desired, generation+1) ──▶ reconciler: observe ▶ plan ▶ apply
//!                                                                  │
//! operation, events, audit ◀──────────── records ──────────────────┘
//! ```
//!
//! Invariants:
//! - a handler only writes what is wanted; only the reconciler touches cells;
//! - a change, its audit event and its idempotent reply are one transaction;
//! - nothing on the data path waits for this process.

mod admin;
mod advisor;
mod bounds;
mod circuits;
mod config;
mod fleet;
mod housekeeping;
mod keys;
mod login;
mod packages;
mod placement;
mod promotion;
mod reconcile;
mod relocation;
mod repair;
mod reply;
mod server;
mod steps;
mod stock;
mod world;

pub use admin::openapi;
pub use config::{CellSecrets, Config, DirectoryConfig, MoveLimits, RolloutLimits};
pub use keys::{KEY_GRACE_SECONDS, KeyFiles};
pub use packages::Refused;
pub use placement::{Choice, Question, Verdict, Weighed, choose, weigh};
pub use promotion::Known;
pub use reconcile::plan::{Step, Wanted, WantedModule, lost, plan};
pub use server::{prepare, serve};
