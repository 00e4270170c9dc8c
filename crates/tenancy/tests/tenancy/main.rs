//! The data plane through its public door, against a real PostgreSQL, in all three tiers.
//!
//! All files are one binary, so they share one throw-away server; each test has tenants of its own.

mod attacks;
mod broken;
mod compat;
#[cfg(test)]
mod core;
mod drift;
#[cfg(test)]
mod functions;
mod isolation;
mod one_piece;
mod pools;
mod preparation;
mod proofs;
mod provisioning;
mod reach;
#[cfg(test)]
mod stock;
mod stock_schemas;
mod support;
mod traces;
mod transactions;
mod tree;
#[cfg(test)]
mod upgrade;
mod volume;
