//! What every long-running process of the platform does the same way: its log, the socket it is
//! handed, the files it is told things by ([`mod@file`]), and how it is told to end.
//!
//! Invariants: a process handed a socket (sd_listen_fds(3)) never binds one of its own; a supervised
//! process ends when its supervisor does, however that ended.

pub mod file;

pub use file::Watched;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use clap::Args;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// The options of a long-running process.
#[derive(Debug, Clone, Args)]
pub struct ServeOptions {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Address to listen on, if no socket was handed over (LISTEN_FDS).
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// End when standard input does: a supervisor's death then ends its children.
    #[arg(long)]
    pub supervised: bool,
}

impl ServeOptions {
    /// The socket that was handed over, or a new one at `--listen`.
    ///
    /// # Errors
    /// When there is neither, or the address can't be bound.
    pub async fn listener(&self) -> io::Result<TcpListener> {
        let mut handed = listenfd::ListenFd::from_env();
        if let Some(listener) = handed.take_tcp_listener(0)? {
            listener.set_nonblocking(true)?;
            return TcpListener::from_std(listener);
        }
        let address = self.listen.ok_or_else(|| {
            let why = "no socket was handed over; say --listen ADDRESS";
            io::Error::new(io::ErrorKind::InvalidInput, why)
        })?;
        TcpListener::bind(address).await
    }

    /// Returns when the process shall end: SIGTERM, SIGINT, or the supervisor's death.
    ///
    /// # Errors
    /// When the signals can't be listened to.
    pub async fn told_to_stop(&self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = orphaned(self.supervised) => tracing::warn!("the supervisor is gone"),
        }
        Ok(())
    }

    /// Runs `serve` until the process is told to stop; the token tells `serve` to drain.
    ///
    /// # Errors
    /// What `serve` returns, or why the signals can't be listened to.
    pub async fn run<E: From<io::Error>>(
        &self,
        serve: impl AsyncFnOnce(CancellationToken) -> Result<(), E>,
    ) -> Result<(), E> {
        let stop = CancellationToken::new();
        let serving = serve(stop.clone());
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            served = &mut serving => return served,
            told = self.told_to_stop() => told?,
        }
        stop.cancel();
        serving.await
    }
}

/// Logs to standard error, filtered by `RUST_LOG`, else by `default`.
pub fn log(default: &str) {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .with_env_filter(
            EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new(default)),
        )
        .init();
}

/// Returns when standard input ends, if somebody holds it for that purpose.
async fn orphaned(supervised: bool) {
    if supervised && let Ok(mut supervisor) = supervisor() {
        let mut nothing = [0_u8; 1];
        drop(supervisor.read(&mut nothing).await);
    } else {
        std::future::pending::<()>().await;
    }
}

/// Standard input as a pipe that is waited on without a thread, which would outlive the runtime.
fn supervisor() -> io::Result<pipe::Receiver> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    pipe::Receiver::from_file(File::from(stdin))
}
