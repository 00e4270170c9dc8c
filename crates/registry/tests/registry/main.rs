//! The control database through its public door, against a real PostgreSQL.
//!
//! All files are one binary, so they share one throw-away server; each test has a database of its
//! own.

mod advisor;
mod directory;
mod entitlements;
mod feed;
mod migration;
mod places;
#[cfg(test)]
mod relocations;
#[cfg(test)]
mod rollouts;
#[cfg(test)]
mod stock;
mod support;
mod tenants;
mod work;
