//! Processes as `/proc` (proc(5)) shows them: who descends from whom, who still lives.
//!
//! Invariant: a process is known by its number and the time of its birth, so that a number given to
//! somebody else in the meantime is never signalled.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Pause between two looks at something that is about to end.
pub(crate) const POLL: Duration = Duration::from_millis(5);

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    /// In clock ticks since the machine started.
    born: u64,
}

impl Process {
    /// The process of that number, unless there is none or it has ended.
    pub(crate) fn find(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before is in parentheses and may hold some itself.
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        if matches!(*fields.first()?, "Z" | "X") {
            return None;
        }
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            born: fields.get(19)?.parse().ok()?,
        })
    }

    /// Whether it still runs; one that only waits for its parent to take note does not.
    pub(crate) fn is_alive(&self) -> bool {
        Self::find(self.pid).is_some_and(|now| now.born == self.born)
    }

    /// Sends a signal, if it still runs.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|_| self.is_alive()) {
            // It may end in this very moment; then there is nobody to tell.
            let _already_gone = kill_process(pid, signal);
        }
    }

    /// Its command line.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        String::from_utf8_lossy(&bytes)
            .split('\0')
            .map(str::to_owned)
            .collect()
    }

    /// Its program's file.
    pub(crate) fn program(&self) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/exe", self.pid)).ok()
    }

    /// The folder it works in.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/cwd", self.pid)).ok()
    }
}

/// A process with all that descend from it, the first one first.
pub(crate) fn family(root: u32) -> Vec<Process> {
    let all: Vec<Process> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Process::find)
        .collect();
    let mut family: Vec<Process> = all
        .iter()
        .copied()
        .filter(|process| process.pid == root)
        .collect();
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(all.iter().filter(|child| child.parent == parent.pid));
        next += 1;
    }
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::process::Command;

    /// A server that is overlooked would outlive the bench.
    #[test]
    fn a_child_is_found_ended_and_known_to_be_gone() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let own = std::process::id();
        let found = family(own);
        let sleeper = found.iter().find(|p| p.pid == child.id()).copied().unwrap();
        assert_eq!(sleeper.parent, own);
        assert!(sleeper.is_alive());
        sleeper.signal(Signal::KILL);
        child.wait().unwrap();
        assert!(!sleeper.is_alive());
    }
}
