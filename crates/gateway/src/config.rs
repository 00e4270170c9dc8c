//! What the gateway is told when it starts.
//!
//! Invariant: every queue, body, wait and rate of the gateway has its bound here.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use waangu_identity::SigningKeys;
use waangu_kernel::ModuleId;
use waangu_process::Watched;

/// Where things are.
#[derive(Clone)]
pub struct Config {
    /// The domain whose names we answer, such as `waangu.localhost`.
    pub domain: String,
    /// The port as clients see it, in URLs.
    pub public_port: u16,
    /// Where the control plane listens (plain HTTP on a private address).
    pub control: SocketAddr,
    /// Where each module listens (plain HTTP on a private address).
    pub modules: HashMap<ModuleId, SocketAddr>,
    /// The control database, with the login `waangu_gateway`.
    pub registry_dsn: String,
    /// The issuer of access tokens, such as `https://login.waangu.localhost:8443`.
    pub issuer: String,
    /// Where the issuer's key set is fetched: `http://` and an internal address.
    pub jwks_url: String,
    /// Bounds.
    pub limits: Limits,
}

impl fmt::Debug for Config {
    /// Without the DSN, which has a password in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("domain", &self.domain)
            .field("public_port", &self.public_port)
            .field("control", &self.control)
            .field("modules", &self.modules)
            .field("issuer", &self.issuer)
            .field("jwks_url", &self.jwks_url)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// The gateway's own secrets.
#[derive(Debug)]
pub struct Keys {
    /// Certificate and TLS settings, ALPN `h2` and `http/1.1` included.
    pub tls: Arc<rustls::ServerConfig>,
    /// Sign contexts and their proofs; replaced while the gateway runs.
    pub signing: Watched<SigningKeys>,
}

/// A rate and how much of it may be used at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Steady number in a second.
    pub per_second: NonZeroU32,
    /// How many at once after a quiet time.
    pub burst: NonZeroU32,
}

impl Rate {
    /// A rate; zero counts as one, because a limit that lets nothing through is an outage.
    pub const fn new(per_second: u32, burst: u32) -> Self {
        Self {
            per_second: at_least_one(per_second),
            burst: at_least_one(burst),
        }
    }
}

const fn at_least_one(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}

/// Bounds. The defaults fit one small machine.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open client connections; more wait in the kernel's queue.
    pub connections: usize,
    /// Requests in work; more are answered 503 `overloaded`.
    pub in_flight: usize,
    /// Requests of one tenant in work; more are answered 429 `rate-limited`.
    pub tenant_in_flight: usize,
    /// Requests of one tenant.
    pub tenant_rate: Rate,
    /// Requests of one client address to the login host.
    pub login_rate: Rate,
    /// Tokens of one client address that turn out not to be valid.
    pub failed_token_rate: Rate,
    /// Verified tokens that are remembered.
    pub token_cache: usize,
    /// Bytes of a request body.
    pub body: u64,
    /// TLS handshake.
    pub handshake: Duration,
    /// From a connection's readiness for a request to the end of that request's head, in HTTP/1: so
    /// it is also how long a connection is kept open between two requests.
    pub header_read: Duration,
    /// Between two pieces of a body, in both directions (event streams excepted).
    pub body_idle: Duration,
    /// A connection without any request.
    pub connection_idle: Duration,
    /// A client that doesn't take what was sent.
    pub write_stall: Duration,
    /// Until a module begins to answer.
    pub module_response: Duration,
    /// Until the control plane begins to answer; it may be asked to wait 60 s.
    pub control_response: Duration,
    /// How long a refused connection to a module is tried again, so that a restart is bridged.
    pub connect_patience: Duration,
    /// How long running requests may take to end at shutdown.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            in_flight: 2_048,
            tenant_in_flight: 256,
            tenant_rate: Rate::new(1_000, 2_000),
            login_rate: Rate::new(50, 200),
            failed_token_rate: Rate::new(5, 50),
            token_cache: 100_000,
            body: 1024 * 1024,
            handshake: Duration::from_secs(10),
            header_read: Duration::from_secs(15),
            body_idle: Duration::from_secs(30),
            connection_idle: Duration::from_secs(75),
            write_stall: Duration::from_secs(30),
            module_response: Duration::from_secs(30),
            control_response: Duration::from_secs(80),
            connect_patience: Duration::from_secs(2),
            drain: Duration::from_secs(8),
        }
    }
}
