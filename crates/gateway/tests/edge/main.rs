//! The gateway through its public door: real sockets, real TLS, a module and a control plane that are
//! HTTP servers of their own and believe nothing they can't verify, and, for the change feed, a real
//! PostgreSQL.

#[cfg(test)]
mod access;
#[cfg(test)]
mod bodies;
#[cfg(test)]
mod client;
#[cfg(test)]
mod feed;
#[cfg(test)]
mod flags;
#[cfg(test)]
mod hosts;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod load;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod probes;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod tokens;
mod tree;
#[cfg(test)]
mod upstream;
