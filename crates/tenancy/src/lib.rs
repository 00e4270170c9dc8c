//! The data plane in PostgreSQL.
//!
//! Two halves that share the names of [`waangu_kernel::placement`]:
//! - [`admin`], for the control plane: makes cells, databases, schemas and homes ready;
//! - [`pools`] and [`tx`], for modules: one tenant's transaction, and nothing else;
//! - [`tree`], the same for a head office that reads itself and all tenants below it.
//!
//! Invariants:
//! - in all three tiers the same tables, keys and policies stand (`sql/core.sql`), so a module does
//!   not know where its tenant lives;
//! - a connection leaves a pool only inside a [`TenantTx`], which has entered exactly one tenant;
//! - a connection whose transaction did not end cleanly never serves anybody again.
//!
//! Left out: HTTP, the registry, and why a tenant is placed where it is.

pub mod admin;
pub mod inspect;
pub mod pools;
pub mod tree;
pub mod tx;

mod error;
mod version;
mod wire;

pub use admin::{CellAdmin, CellAdminConfig, HomeState, LoginSecret, ModulePackage};
pub use error::{constraint, is_unreachable, sql_state};
pub use inspect::{Drift, Mend, Rules};
pub use pools::{CellAddress, CellStats, Limits, Pools};
pub use tree::{Answer, TreeTx, Visit};
pub use tx::{Call, Spent, TenantTx};

pub use wire::{ColumnError, Row, RowIndex};

pub use tokio_postgres::types::{FromSql, ToSql};
