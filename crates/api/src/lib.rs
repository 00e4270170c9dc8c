//! The admin API's types, its problem documents, the ready file, and a typed client.
//!
//! Invariants: types here are wire types (strings, not domain types), so that a bad value reaches
//! the place that can name the field; every request type refuses unknown fields.
//!
//! Left out: how requests are served (`waangu-control`), and any rule about their values.

pub mod advisor;
pub mod body;
pub mod client;
pub mod fleet;
pub mod places;
pub mod problem;
pub mod promotion;
pub mod ready;
pub mod relocation;
pub mod types;
pub mod world;

pub use body::{parse_json, query_mistake};
pub use client::{Client, ClientError, Onboarded};
pub use problem::{PROBLEM_JSON, Problem};
pub use ready::Ready;

/// Says that a request was made before with the same `Idempotency-Key`, and this is its first answer.
pub const REPLAYED_HEADER: &str = "idempotent-replayed";
