//! Throw-away PostgreSQL for the tests of every crate. Never part of a program that ships.
//!
//! - [`cluster`] – one server for all tests of a test binary, started on first use;
//! - [`cell`] – that server as a prepared cell: roles, template, module logins, a context key;
//! - [`private_cell`] – a cell on a server of its own, for tests that change the cell as a whole;
//! - [`control`] – a fresh, migrated control database, copied from a template;
//! - [`context`] – a request context whose proof PostgreSQL accepts;
//! - [`Relay`] – a way to a server that can be cut;
//! - [`connect`] – a plain session, to look from outside;
//! - [`World`] – a module's own program in front of a cell, called with contexts as the gateway signs
//!   them: what a module's tests need, and all that they need;
//! - [`contract`] – attacks on a module, which each module's tests inherit.
//!
//! Tests share the server but not their data: [`Cell::tenant`] gives a tenant number and a place
//! that no other test has, and [`control`] a database of its own.
//!
//! Invariant: nothing outlives the test process. A server is kept by a thread of its own (each
//! `#[tokio::test]` has its own short-lived runtime), and statics are never dropped, so the end is
//! not left to us: a small `sh` holds the other end of a pipe whose only writer is this process.
//! However we end, SIGKILL included, the kernel closes the pipe, and `sh` ends the server and
//! removes its folder.
//!
//! Every function panics when something is missing: a test that can't have its server has failed.

pub mod contract;

mod cell;
mod control;
mod relay;
mod server;
mod watchdog;
mod world;

pub use cell::{Cell, MODULES, cell, context, private_cell};
pub use control::{Control, control};
pub use relay::{Relay, Way};
pub use server::{Server, cluster, connect};
pub use world::{Answer, Caller, EVERYTHING, GONE, Home, World};

pub use http::{Method, StatusCode};
pub use serde_json::{Value, json};
pub use waangu_identity::context::CONTEXT_HEADER;
pub use waangu_identity::proof::Access;
pub use waangu_kernel::entitlement::Values;
pub use waangu_kernel::placement::{Place, Tier};
pub use waangu_kernel::{Placement, TenantId};
