//! The whole platform through its public doors: the `waangu` program, real PostgreSQL, real TLS, HTTP
//! through the gateway. Nothing is mocked.
//!
//! All files are one binary, so that tests which disturb nobody share one platform
//! ([`support::shared`]); a test that kills, stops or fills something has a platform of its own.
//! Every process is ended at the end of the run, however it ends ([`support::folder`]).

#[cfg(test)]
mod advisor;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod border;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod control_crash;
#[cfg(test)]
mod deletion;
#[cfg(test)]
mod directory;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod everything_killed;
#[cfg(test)]
mod first_run;
#[cfg(test)]
mod flags;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod guessing;
#[cfg(test)]
mod idempotency;
#[cfg(test)]
mod import;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod parts_killed;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod relocation;
#[cfg(test)]
mod rush;
#[cfg(test)]
mod stock;
#[cfg(test)]
mod stopping;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tree;
#[cfg(test)]
mod world;
