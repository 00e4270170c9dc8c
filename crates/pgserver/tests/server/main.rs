//! Behaviour through the public door, with real PostgreSQL servers.
//!
//! They need PostgreSQL on the machine, or npm to get it. Some need root, others must not have it;
//! those that cannot be run say so.

mod lifecycle;
mod npm;
mod places;
mod recovery;
mod support;
