//! Processes that are not our children: the servers which an earlier, killed supervisor left.
//!
//! Invariant: a process is only signalled when it is a `postgres` whose current folder is the data
//! folder in question (Linux), or whose command line names it (elsewhere).

use std::{path::Path, time::Duration};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::time::{Instant, sleep};

const POLL: Duration = Duration::from_millis(20);

/// Sends a signal; a process that is gone by now is as good.
pub(crate) fn signal(pid: Pid, signal: Signal) {
    if let Err(error) = kill_process(pid, signal) {
        tracing::debug!(%error, pid = pid.as_raw_pid(), "could not signal the process");
    }
}

/// Waits until all are gone, at most for `limit`.
pub(crate) async fn gone(pids: &[Pid], limit: Duration) -> bool {
    let end = Instant::now() + limit;
    while pids.iter().any(|pid| is_alive(*pid)) {
        if Instant::now() >= end {
            return false;
        }
        sleep(POLL).await;
    }
    true
}

/// Whether the process runs; one that only waits for its parent to take note does not.
pub(crate) fn is_alive(pid: Pid) -> bool {
    exists(pid) && !platform::is_zombie(pid)
}

/// Whether the process has ended, but its parent has not taken note. In a container whose first
/// process reaps nobody, it stays so for ever; PostgreSQL takes it for a running server.
pub(crate) fn is_zombie(pid: Pid) -> bool {
    exists(pid) && platform::is_zombie(pid)
}

fn exists(pid: Pid) -> bool {
    !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

/// Whether the process is a server (or one of its backends) of this data folder; `None` when that
/// cannot be told.
pub(crate) fn serves(pid: Pid, data: &Path) -> Option<bool> {
    platform::serves(pid, data)
}

/// All processes of a server of this data folder, as far as the platform can tell.
pub(crate) fn serving(data: &Path) -> Vec<Pid> {
    platform::serving(data)
}

#[cfg(target_os = "linux")]
mod platform {
    use std::{fs, path::Path};

    use rustix::process::Pid;

    pub(super) fn is_zombie(pid: Pid) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid()));
        // The state follows the name, which is in parentheses and may hold some itself.
        stat.is_ok_and(|stat| {
            let state = stat
                .rsplit_once(") ")
                .and_then(|(_, rest)| rest.chars().next());
            matches!(state, Some('Z' | 'X'))
        })
    }

    pub(super) fn serves(pid: Pid, data: &Path) -> Option<bool> {
        let of = |what: &str| format!("/proc/{}/{what}", pid.as_raw_pid());
        if fs::read_to_string(of("comm")).ok()?.trim() != "postgres" {
            return Some(false);
        }
        Some(fs::read_link(of("cwd")).ok()? == data)
    }

    pub(super) fn serving(data: &Path) -> Vec<Pid> {
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(Pid::from_raw)
            .filter(|pid| serves(*pid, data) == Some(true))
            .collect()
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use std::{path::Path, process::Command};

    use rustix::process::Pid;

    pub(super) fn is_zombie(pid: Pid) -> bool {
        ps(pid, "stat=").is_some_and(|stat| stat.trim().starts_with('Z'))
    }

    pub(super) fn serves(pid: Pid, data: &Path) -> Option<bool> {
        let line = ps(pid, "command=").filter(|line| !line.trim().is_empty())?;
        Some(line.contains("postgres") && line.contains(data.to_string_lossy().as_ref()))
    }

    pub(super) fn serving(_data: &Path) -> Vec<Pid> {
        Vec::new()
    }

    fn ps(pid: Pid, column: &str) -> Option<String> {
        let pid = pid.as_raw_pid().to_string();
        let output = Command::new("ps")
            .args(["-o", column, "-p", &pid])
            .output()
            .ok()?;
        String::from_utf8(output.stdout).ok()
    }
}
