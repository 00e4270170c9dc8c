//! Supervision of child processes: start, watch, restart with backoff, stop.
//!
//! Invariants:
//! - a child's socket is bound here and handed over (sd_listen_fds(3)), so a restart neither loses
//!   its port nor refuses a connection: clients wait in the kernel's queue;
//! - a child's standard input is a pipe that ends with this process, so that a SIGKILL of the
//!   supervisor ends its children too;
//! - a child is told to end by SIGTERM and killed only after [`PATIENCE`].

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, Of as _};

/// Longest wait for a child to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// First pause before a restart; it doubles.
const BACKOFF: Duration = Duration::from_millis(100);

/// Longest pause before a restart.
const BACKOFF_LIMIT: Duration = Duration::from_secs(10);

/// A child that has run so long begins again with the first pause.
const STEADY: Duration = Duration::from_secs(30);

/// File descriptor of the first handed socket.
const LISTEN_FD: i32 = 3;

/// How to start one child.
#[derive(Debug, Clone)]
pub(crate) struct ChildSpec {
    /// For messages and the log file's name.
    pub(crate) name: String,
    /// The program.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) args: Vec<String>,
    /// Its socket.
    pub(crate) listener: Arc<TcpListener>,
    /// Its log.
    pub(crate) log: PathBuf,
}

/// Binds a free port on loopback.
pub(crate) fn bind_free() -> Result<Arc<TcpListener>, Failure> {
    TcpListener::bind(("127.0.0.1", 0))
        .map(Arc::new)
        .of("no free port on loopback")
}

/// Keeps one child running until told to stop; then ends it. Each end that was not asked for is told
/// to `deaths`, if somebody listens.
pub(crate) async fn supervise(
    spec: ChildSpec,
    stop: CancellationToken,
    deaths: mpsc::Sender<String>,
) -> Result<(), Failure> {
    let mut pause = BACKOFF;
    loop {
        let began = Instant::now();
        // A program that can't be started now (it is just being built anew, the disk is full) may be
        // in a moment.
        let (status, words) = match spawn(&spec) {
            Ok(mut child) => {
                // `wait` would close it, and the child would take that for our death.
                let _lifeline = child.stdin.take();
                let status = tokio::select! {
                    status = child.wait() => status,
                    () = stop.cancelled() => return end(&spec, child).await,
                };
                let status =
                    status.map_or_else(|error| error.to_string(), |status| status.to_string());
                (status, last_words(&spec.log))
            }
            Err(failure) => ("not started".to_owned(), failure.to_string()),
        };
        if began.elapsed() > STEADY {
            pause = BACKOFF;
        }
        // Nobody listens any more once the platform is up.
        let _nobody = deaths.try_send(format!("{}: {words}", spec.name));
        tracing::warn!(
            child = spec.name,
            log = %spec.log.display(),
            "{} ended ({status}); starting it again in {} ms",
            spec.name,
            pause.as_millis()
        );
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return Ok(()),
        }
        pause = (pause * 2).min(BACKOFF_LIMIT);
    }
}

/// The last line of a log that says something, for a one-line reason.
fn last_words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let line = text
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("no output");
    line.to_owned()
}

fn spawn(spec: &ChildSpec) -> Result<Child, Failure> {
    let log = open_log(&spec.log)?;
    let socket: OwnedFd = spec.listener.try_clone().of(&spec.name)?.into();
    let mut command = std::process::Command::new(&spec.program);
    command
        .args(&spec.args)
        .env_clear()
        .env("LISTEN_FDS", "1")
        .stdin(Stdio::piped())
        .stdout(log.try_clone().of(spec.log.display())?)
        .stderr(log)
        .fd_mappings(vec![FdMapping {
            parent_fd: socket,
            child_fd: LISTEN_FD,
        }])
        .of(&spec.name)?;
    let mut command = Command::from(command);
    // Ctrl-C on a terminal reaches us alone; we end our children in order.
    command.process_group(0).kill_on_drop(true);
    command.spawn().of(spec.program.display())
}

async fn end(spec: &ChildSpec, mut child: Child) -> Result<(), Failure> {
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended in this very moment; then there is nobody to tell.
        let _already_gone = kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
        tracing::warn!(
            child = spec.name,
            "{} did not end in time and was killed",
            spec.name
        );
        child.kill().await.of(&spec.name)?;
    }
    Ok(())
}

fn open_log(path: &Path) -> Result<File, Failure> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .of(path.display())
}
