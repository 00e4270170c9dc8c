//! What a module author sees.
//!
//! A module is a [`Module`]: its manifest, its migrations, its errors and an axum router whose
//! handlers take an [`Authorized`] permission. [`run`] makes a program of it.
//!
//! Invariants:
//! - a handler reaches the database only through [`Authorized::begin`], and gets an [`Authorized`]
//!   only from a context that the gateway signed for this module and that holds the permission;
//!   [`AuthorizedTree`] is the same for reading a tenant and all below it;
//! - everything a handler refuses is a [`Fault`] with a documented code.
//!
//! Left out: the registry and the control plane. A module does not know where its tenants live.

mod authorized;
mod extract;
mod flags;
mod host;
mod json;
mod metrics;
mod module;
mod retry;
mod row;
mod spent;
mod tree;

pub use authorized::{Authorized, Permit};
pub use extract::{IdempotencyKey, Path, Query};
pub use flags::{Flags, Quota};
pub use host::Host;
pub use json::{Json, Refusal};
pub use module::{Module, run};
pub use row::column;
pub use tree::{AuthorizedTree, Harvest, Missing, Partial};

pub use axum::http::StatusCode;
pub use axum::response::{IntoResponse, Response};
pub use axum::routing;
pub use time::OffsetDateTime;
pub use time::serde::rfc3339;
pub use uuid::Uuid;
pub use waangu_kernel::Slug;
pub use waangu_kernel::fault::{self, Blame, ErrorDef, Fault};
pub use waangu_tenancy::{Answer, FromSql, Row, TenantTx, ToSql, TreeTx, constraint};

/// A module's routes.
pub type Router = axum::Router<Host>;

/// What a handler returns.
pub type Reply<T> = Result<T, Refusal>;

/// A fresh id for a row: UUIDv7 (RFC 9562 §5.7), so that rows of one time stand together.
#[expect(
    clippy::disallowed_methods,
    reason = "the id registry of business rows"
)]
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}
