//! The port: accepting, TLS, one task for each connection, and the end.
//!
//! Invariants:
//! - the number of connections is bounded before TLS costs anything; a handshake, a head and an idle
//!   connection each have their limit;
//! - which HTTP version is spoken is what TLS agreed on (ALPN, RFC 7301), never guessed from bytes:
//!   hyper-util's guessing has no limit on its wait;
//! - at shutdown no new connection is accepted, running requests may end within a bounded time, and
//!   [`serve`] returns only when every task has ended.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waangu_kernel::{Clock, Fault, fault};

use crate::config::{Config, Keys, Limits};
use crate::edge::Edge;
use crate::edge::traffic::Reporter;
use crate::snapshot::follow::follow;
use crate::wire::{Peer, Protocol, Wire};

/// Pause after a failed accept, such as "too many open files": trying at once would only burn CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const MAX_HEAD: usize = 64 * 1024;
const H2_STREAMS: u32 = 128;
const H2_PING: Duration = Duration::from_secs(20);
const H2_STREAM_WINDOW: u32 = 256 * 1024;
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Serves until `shutdown` is cancelled; returns when everything has ended.
///
/// # Errors
/// `invalid-field` when the configuration can't be used.
pub async fn serve(
    config: Config,
    keys: Keys,
    listener: TcpListener,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) -> Result<(), Fault> {
    let tls = Arc::clone(&keys.tls);
    let edge = Arc::new(Edge::new(config, keys, clock)?);
    let followers = TaskTracker::new();
    let end = shutdown.clone();
    let follower = Arc::clone(&edge);
    followers.spawn(async move {
        let work = follow(&follower.config.registry_dsn, follower.snapshot());
        end.run_until_cancelled(work).await
    });
    let (counted, end) = (Arc::clone(&edge), shutdown.clone());
    let reporter = Reporter::new(&edge.config.registry_dsn)?;
    followers.spawn(async move { reporter.run(counted.snapshot(), end).await });
    followers.close();
    edge.run(tls, listener, shutdown).await?;
    followers.wait().await;
    Ok(())
}

/// What all connections share.
struct Port {
    edge: Arc<Edge>,
    acceptor: TlsAcceptor,
    http1: auto::Builder<TokioExecutor>,
    http2: auto::Builder<TokioExecutor>,
    /// Running requests may end.
    soft: CancellationToken,
    /// Nothing may go on.
    hard: CancellationToken,
}

impl Edge {
    /// Serves with whatever snapshot there is, and keeps the key set fresh.
    ///
    /// # Errors
    /// `internal` when the listener is not usable.
    pub async fn run(
        self: Arc<Self>,
        tls: Arc<rustls::ServerConfig>,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(), Fault> {
        let address = listener.local_addr().map_err(|error| {
            fault::INTERNAL
                .fault("the listener is not usable")
                .cause(error)
        })?;
        tracing::info!(%address, domain = self.config.domain, "gateway listening");
        let limits = self.config.limits.clone();
        let tasks = TaskTracker::new();
        let hard = CancellationToken::new();
        let keys = Arc::clone(&self.keys);
        let end = shutdown.clone();
        tasks.spawn(async move { end.run_until_cancelled(keys.follow()).await });
        let port = Arc::new(Port {
            edge: self,
            acceptor: TlsAcceptor::from(tls),
            http1: http1(&limits),
            http2: http2(),
            soft: shutdown.clone(),
            hard: hard.clone(),
        });
        shutdown
            .run_until_cancelled(accept(&port, &listener, &tasks, limits.connections))
            .await;
        drop(listener);
        tasks.close();
        tracing::info!(connections = tasks.len(), "gateway draining");
        if timeout(limits.drain, tasks.wait()).await.is_err() {
            tracing::warn!(
                connections = tasks.len(),
                "drain time is over; cutting the rest"
            );
            hard.cancel();
            tasks.wait().await;
        }
        Ok(())
    }
}

fn http1(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    // The limit of 100 headers is hyper's default; setting it would cost an allocation each time.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        .max_buf_size(MAX_HEAD);
    builder
}

fn http2() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .max_concurrent_streams(H2_STREAMS)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .keep_alive_interval(H2_PING)
        .keep_alive_timeout(H2_PING);
    builder
}

/// Accepts for ever.
async fn accept(port: &Arc<Port>, listener: &TcpListener, tasks: &TaskTracker, most: usize) {
    let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
    loop {
        // Never closed, so there is always a permit sooner or later.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, address)) => {
                let port = Arc::clone(port);
                tasks.spawn(async move {
                    let hard = port.hard.clone();
                    hard.run_until_cancelled(port.connection(stream, address))
                        .await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Port {
    /// One connection from handshake to end. What goes wrong on it is the client's affair.
    async fn connection(&self, stream: TcpStream, address: SocketAddr) {
        let limits = &self.edge.config.limits;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let stream = match timeout(limits.handshake, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
            Err(_elapsed) => return tracing::debug!("TLS handshake took too long"),
        };
        let (builder, protocol) = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => (&self.http2, Protocol::Http2),
            _ => (&self.http1, Protocol::Http1),
        };
        let peer = Arc::new(Peer::new(address.ip()));
        let wire = Wire::new(stream, Arc::clone(&peer), protocol, limits.write_stall);
        let edge = Arc::clone(&self.edge);
        let own = Arc::clone(&peer);
        let service = service_fn(move |request| {
            let edge = Arc::clone(&edge);
            let peer = Arc::clone(&own);
            async move { Ok::<_, Infallible>(edge.answer(request, &peer).await) }
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(wire), service));
        let mut ending = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection ended");
                    }
                    return;
                }
                () = self.soft.cancelled(), if !ending => {}
                () = idle(&peer, limits.connection_idle) => {
                    if ending {
                        return;
                    }
                }
            }
            ending = true;
            connection.as_mut().graceful_shutdown();
        }
    }
}

/// Returns when no request has run for so long.
async fn idle(peer: &Peer, limit: Duration) {
    loop {
        let before = peer.idle_mark();
        sleep(limit).await;
        if before.is_some() && before == peer.idle_mark() {
            return;
        }
    }
}
