//! Killing the platform's own processes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use super::Chance;
use crate::failure::{Failure, Of as _};
use crate::platform::Platform;
use crate::scratch::Scratch;

/// What may be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Control,
    Gateway,
    Module,
    Postgres,
}

/// SIGKILL for one of the platform's processes of this kind; says whether there was one.
pub(super) fn kill(platform: &Platform, kind: Kind, chance: &mut Chance) -> bool {
    let mut victims = platform.family();
    victims.retain(|process| {
        let arguments = process.arguments();
        let word = |expected: &str| arguments.get(1).is_some_and(|word| word == expected);
        let program = arguments.first().map(String::as_str).unwrap_or_default();
        match kind {
            Kind::Control => word("control"),
            Kind::Gateway => word("gateway"),
            Kind::Module => program.ends_with("waangu-inventory"),
            Kind::Postgres => arguments.iter().any(|word| word == "-D"),
        }
    });
    match chance.pick(&victims) {
        Some(victim) => {
            victim.signal(Signal::KILL);
            true
        }
        None => false,
    }
}

/// The platform's own file for control processes.
pub(super) fn control_file(scratch: &Scratch) -> PathBuf {
    scratch.path("state").join("run/control.toml")
}

/// A second control process on the platform's state; killed when dropped.
#[derive(Debug)]
pub(super) struct Second {
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Second {
    /// Not started yet.
    pub(super) fn new(programs: &Path, scratch: &Scratch, config: PathBuf) -> Self {
        Self {
            program: programs.join("waangu"),
            config,
            log: scratch.path("second.log"),
            child: None,
        }
    }

    pub(super) fn start(&mut self) -> Result<(), Failure> {
        let log = File::options().create(true).append(true).open(&self.log);
        let mut command = Command::new(&self.program);
        command
            .args(["control", "--listen", "127.0.0.1:0", "--config"])
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.of(self.log.display())?);
        self.child = Some(command.spawn().of(self.program.display())?);
        Ok(())
    }

    /// How many lines of its log say this, in all of its lives.
    pub(super) fn said(&self, what: &str) -> Result<usize, Failure> {
        let log = std::fs::read_to_string(&self.log).of(self.log.display())?;
        Ok(log.lines().filter(|line| line.contains(what)).count())
    }

    /// Ends it the hard way; it may have ended by itself.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        self.kill();
    }
}
