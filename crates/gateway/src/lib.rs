//! The edge: one TLS port in front of everything.
//!
//! A request gets exactly one tenant, is checked, and goes to one module with a short-lived signed
//! context; or it goes to the control plane, which authenticates by itself. The parts, in the order
//! in which a request meets them:
//!
//! - [`listen`] – accepts, speaks TLS, drains at the end;
//! - [`wire`] – the connection as bytes: ambiguous framing, clients that don't read;
//! - [`hygiene`] – refuses ambiguous requests, strips what nobody outside may say;
//! - [`resolve`] – which host is meant;
//! - [`limit`] – shares and caps;
//! - [`authenticate`] – whose token it is;
//! - [`authorise`] – whether this may happen;
//! - [`forward`] – the request to the module or the control plane, and its answer back;
//! - [`edge`] – the order of the steps above, and one log line for each request;
//! - [`snapshot`] – what the gateway knows of tenants and modules;
//! - [`problem`] – every refusal on the wire.
//!
//! Invariants:
//! - no database connection on the request path: a request reads only the snapshot in memory, which
//!   keeps serving when the control database is down;
//! - nothing a client sends can become an identity header, because all of them are stripped before
//!   ours are set;
//! - tokens and query strings are never logged.
//!
//! Left out: upgrades (WebSocket), caching, compression, certificates (the caller's).

mod authenticate;
mod authorise;
mod config;
mod edge;
mod forward;
mod hygiene;
mod limit;
mod listen;
mod problem;
mod resolve;
mod snapshot;
mod wire;

pub use config::{Config, Keys, Limits, Rate};
#[doc(hidden)]
pub use edge::Edge;
pub use listen::serve;
#[doc(hidden)]
pub use snapshot::Snapshot;
