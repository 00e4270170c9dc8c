//! The admin API's types, its problem documents, and a typed client.
//!
//! Invariants: types here are wire types (strings, not domain types), so that a bad value reaches
//! the place that can name the field; every request type refuses unknown fields.
//!
//! Left out: how requests are served (`waangu-control`), and any rule about their values.

pub mod body;
pub mod problem;

pub use body::parse_json;
pub use problem::{PROBLEM_JSON, Problem};
