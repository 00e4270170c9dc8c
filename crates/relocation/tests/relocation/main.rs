//! Moves of real tenants between real servers, under writers whose ledgers are compared row by row.
//!
//! All files are one binary, so they share one throw-away server; the second cell is a server of its
//! own. Moves wait for transactions of the whole server, so tests that hold some open use their own.

mod back;
mod bounds;
mod cold;
mod crashes;
mod cuts;
mod keys;
mod kills;
mod model;
mod moves;
mod refusals;
mod speed;
mod states;
mod support;
mod types;
mod writers;
