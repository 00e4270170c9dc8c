//! What becomes of a server whose handle is dropped, say by a test that panics.
//!
//! Synchronous, because nothing can be awaited here; bounded to a few seconds, and done within
//! some tens of milliseconds as a rule.

use std::{fs, io, thread, time::Duration};

use rustix::process::Signal;

use super::{Cluster, to_pid};
use crate::{
    config::Durability,
    files::best_effort,
    process::{serving, signal},
};

const POLL: Duration = Duration::from_millis(10);

impl Drop for Cluster {
    fn drop(&mut self) {
        match self.config.durability {
            Durability::Durable => self.signal(Signal::INT),
            Durability::Throwaway => {
                self.end_now();
                self.delete();
            }
        }
    }
}

impl Cluster {
    fn signal(&self, with: Signal) {
        if let Some(pid) = self.pid().and_then(to_pid) {
            signal(pid, with);
        }
    }

    /// Immediate shutdown, then the axe.
    fn end_now(&mut self) {
        for (with, polls) in [(Signal::QUIT, 300), (Signal::KILL, 100)] {
            self.signal(with);
            for _ in 0..polls {
                if self.try_wait().is_err() || self.child.is_none() {
                    return;
                }
                // Parking with a limit is a sleep that does not need a clock of ours.
                thread::park_timeout(POLL);
            }
        }
    }

    fn delete(&self) {
        for pid in serving(&self.place.data) {
            signal(pid, Signal::KILL);
        }
        for folder in [Some(&self.place.data), self.place.moved_to.as_ref()]
            .into_iter()
            .flatten()
        {
            let mut result = fs::remove_dir_all(folder);
            for _ in 0..50 {
                // A backend on its way out may still create files.
                if !matches!(&result, Err(err) if err.kind() == io::ErrorKind::DirectoryNotEmpty) {
                    break;
                }
                thread::park_timeout(POLL);
                result = fs::remove_dir_all(folder);
            }
            best_effort("remove the folder of a throw-away server", result);
        }
        for file in [&self.place.log, &self.place.location, &self.place.lock] {
            best_effort(
                "remove a file of a throw-away server",
                fs::remove_file(file),
            );
        }
        if let Some(folder) = self.place.log.parent() {
            // Others may still have their logs there.
            fs::remove_dir(folder).ok();
        }
    }
}
