//! What an earlier supervisor left running on our data folder, and how it is brought to an end.
//!
//! The caller holds the lock, so whatever serves the folder has no supervisor any more. It is
//! stopped rather than adopted: only a parent learns how its child ended.
//!
//! Invariants: a number in `postmaster.pid` that belongs to another program by now is never
//! signalled; backends are only ended when no postmaster is left to look after them.

use std::{fs, path::Path, time::Duration};

use rustix::process::{Pid, Signal};

use crate::{
    error::{Doing, Error},
    process::{gone, is_alive, is_zombie, serves, serving, signal},
};

const AFTER_QUIT: Duration = Duration::from_secs(8);
const AFTER_KILL: Duration = Duration::from_secs(5);

/// Ends whatever serves `data`; a fast shutdown may take `patience` before it gets less polite.
pub(crate) async fn end_orphans(data: &Path, patience: Duration) -> Result<(), Error> {
    let lock_file = data.join("postmaster.pid");
    if let Some(number) = recorded_pid(&lock_file)
        && let Some(pid) = number.checked_abs().and_then(Pid::from_raw)
    {
        let server = if is_zombie(pid) {
            Some(false)
        } else if is_alive(pid) {
            serves(pid, data)
        } else {
            // PostgreSQL copes with the number of a process that is gone on its own.
            None
        };
        match server {
            Some(true) if number < 0 => {
                let pid = pid.as_raw_pid();
                return Err(Error::SingleUser {
                    path: data.to_owned(),
                    pid,
                });
            }
            Some(true) => end_postmaster(pid, data, patience).await?,
            Some(false) => {
                let pid = pid.as_raw_pid();
                tracing::info!(pid, "removing the lock file of a server that is gone");
                fs::remove_file(&lock_file).doing("remove", &lock_file)?;
            }
            // PostgreSQL itself will refuse to start, and say why, when it thinks so, too.
            None => {}
        }
    }
    end_backends(data).await
}

async fn end_postmaster(pid: Pid, data: &Path, patience: Duration) -> Result<(), Error> {
    tracing::warn!(
        pid = pid.as_raw_pid(),
        data = %data.display(),
        "stopping a server that an earlier supervisor left running"
    );
    let steps = [
        (Signal::INT, patience),
        (Signal::QUIT, AFTER_QUIT),
        (Signal::KILL, AFTER_KILL),
    ];
    for (step, limit) in steps {
        signal(pid, step);
        if gone(&[pid], limit).await {
            return Ok(());
        }
    }
    Err(Error::Undead {
        pid: pid.as_raw_pid(),
        path: data.to_owned(),
    })
}

/// Ends the backends of a killed postmaster, which keep its shared memory. Most notice on their
/// own at once; one that computes does not, and would block the next start for as long.
pub(crate) async fn end_backends(data: &Path) -> Result<(), Error> {
    let steps = [
        (None, Duration::from_secs(1)),
        (Some(Signal::QUIT), Duration::from_secs(2)),
        (Some(Signal::KILL), AFTER_KILL),
    ];
    for (step, limit) in steps {
        let left = serving(data);
        if let Some(step) = step {
            for pid in &left {
                signal(*pid, step);
            }
        }
        if gone(&left, limit).await {
            return Ok(());
        }
    }
    match serving(data).first() {
        Some(pid) => Err(Error::Undead {
            pid: pid.as_raw_pid(),
            path: data.to_owned(),
        }),
        None => Ok(()),
    }
}

/// The first line of `postmaster.pid`; negative in single-user mode.
fn recorded_pid(lock_file: &Path) -> Option<i32> {
    fs::read_to_string(lock_file)
        .ok()?
        .lines()
        .next()?
        .trim()
        .parse()
        .ok()
}

/// Whether the server with this process id has said that it accepts connections.
pub(crate) fn is_ready(data: &Path, pid: u32) -> bool {
    let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let mut lines = text.lines().map(str::trim);
    let ours = lines.next().is_some_and(|line| line.parse() == Ok(pid));
    // Then the data folder, start time, port, socket folder, address and shared memory.
    ours && lines.nth(6) == Some("ready")
}
