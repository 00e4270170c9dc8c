//! The module as a process, called over HTTP with contexts as the gateway signs them, in front of a
//! real PostgreSQL in which its tenants stand in all three tiers.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on stops where it stands"
)]

mod batches;
mod catalogue;
mod consolidated;
mod deadlock;
mod isolation;
mod limits;
mod model;
mod moves;
mod newer;
mod rush;
mod support;
