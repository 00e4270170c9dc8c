//! The data plane in PostgreSQL.
//!
//! Two halves that share the names of [`waangu_kernel::placement`]:
//! - [`admin`], for the control plane: makes cells, databases, schemas and homes ready;
//! - [`pools`] and [`tx`], for modules: one tenant's transaction, and nothing else.
//!
//! Invariants:
//! - in all three tiers the same tables, keys and policies stand (`sql/core.sql`), so a module does
//!   not know where its tenant lives;
//! - a connection leaves a pool only inside a [`TenantTx`], which has entered exactly one tenant;
//! - a connection whose transaction did not end cleanly never serves anybody again.
//!
//! Left out: HTTP, the registry, and why a tenant is placed where it is.

pub mod admin;
pub mod pools;
pub mod tx;

mod error;

pub use admin::{CellAdmin, CellAdminConfig, HomeState, LoginSecret, ModulePackage};
pub use error::{constraint, sql_state};
pub use pools::{CellAddress, Pools};
pub use tx::TenantTx;

pub use tokio_postgres::Row;
pub use tokio_postgres::types::{FromSql, ToSql};
