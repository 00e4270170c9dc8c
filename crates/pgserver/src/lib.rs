//! Private PostgreSQL servers as child processes, for `waangu up` and for the test kit.
//!
//! [`Binaries`] finds (or fetches) the programs, [`Cluster`] creates, starts and stops one server.
//! As root, which PostgreSQL refuses to run as, everything runs as a [`ServerUser`].
//!
//! Invariants: a data folder is complete or absent, whenever we are killed; one handle at a time
//! holds a data folder (a lock beside it, which the kernel gives back when we die); nobody's data
//! is deleted unless a marker of ours, or `Durability::Throwaway`, says that it may be.
//!
//! Left out on purpose: what a tenant, a cell or a Waangu role is, SQL of any kind, backup, and
//! servers that somebody else runs. Linux first; on macOS there is no `/proc`, so left-over
//! backends of a killed server are waited for instead of ended.

mod binaries;
mod cluster;
mod config;
mod error;
mod files;
mod log;
mod place;
mod process;
mod user;
mod version;

pub use binaries::{Binaries, Fallback, Search};
pub use cluster::{Cluster, Exit, Shutdown};
pub use config::{Config, Durability};
pub use error::Error;
pub use place::made_by;
pub use user::ServerUser;
pub use version::{MINIMUM, Version};

/// Where the steps that take a while are told, one short line each.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);
