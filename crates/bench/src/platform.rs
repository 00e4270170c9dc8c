//! A platform started for a measurement: `waangu up` in a folder of its own.
//!
//! Invariant: when a [`Platform`] is gone, so are all of its processes: told to end, and killed one by
//! one (by number and birth) if they don't. This holds on errors and on cancellation too.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};
use waangu_api::{Client, Ready};

use crate::failure::{Failure, Of as _};
use crate::process::{POLL, Process, family};
use crate::scratch::Scratch;

/// Longest wait for the ready file.
const START_PATIENCE: Duration = Duration::from_mins(2);

/// Longest wait for all processes to end by themselves; the contract is 10 s.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// Pause between two looks at who belongs to the platform while it starts.
const ROLL_CALL: Duration = Duration::from_millis(500);

/// A platform that runs.
#[derive(Debug)]
pub(crate) struct Platform {
    keeper: Keeper,
    /// What it says about itself.
    pub(crate) ready: Ready,
}

/// How long a start took.
#[derive(Debug)]
pub(crate) struct Start {
    /// From just before the process was made until the ready file was there, by our clock.
    pub(crate) total: Duration,
    /// Seconds of each phase, by the platform's own clock (`start-times.json`).
    pub(crate) phases: BTreeMap<String, f64>,
}

impl Platform {
    /// Starts `waangu up` with these further arguments and waits until it is ready. Its state is in
    /// `scratch`, and stays there for another start.
    pub(crate) async fn start(
        programs: &Path,
        scratch: &Scratch,
        arguments: &[&str],
    ) -> Result<(Self, Start), Failure> {
        let state = scratch.path("state");
        let ready_file = scratch.path("ready.json");
        let log = scratch.path("up.log");
        let output = File::create(&log).of(log.display())?;
        let mut command = Command::new(programs.join("waangu"));
        command
            .arg("up")
            .args(arguments)
            .arg("--state")
            .arg(&state)
            .arg("--ready-file")
            .arg(&ready_file)
            .stdin(Stdio::null())
            .stdout(output.try_clone().of(log.display())?)
            .stderr(output)
            // Ctrl-C on a terminal reaches us alone; we end it in order.
            .process_group(0);
        let began = Instant::now();
        let child = command.spawn().of(programs.join("waangu").display())?;
        let mut keeper = Keeper {
            child,
            family: Vec::new(),
            log,
        };
        keeper.wait_until_there(&ready_file, began).await?;
        let total = began.elapsed();
        keeper.roll_call();
        let ready = read_json(&ready_file)?;
        let phases = read_json(&state.join("start-times.json"))?;
        Ok((Self { keeper, ready }, Start { total, phases }))
    }

    /// All of its processes.
    pub(crate) fn family(&self) -> Vec<Process> {
        family(self.keeper.child.id())
    }

    /// A client of the admin API, as its operator.
    pub(crate) fn admin(&self) -> Result<Client, Failure> {
        let ca = std::fs::read(&self.ready.ca).of(self.ready.ca.display())?;
        let admin = &self.ready.admin;
        Ok(Client::new(&admin.url, &ca, Some(&admin.token))?)
    }

    /// Sends SIGTERM to `waangu up` and says how long it took until the last process was gone.
    pub(crate) async fn stop(mut self) -> Result<Duration, Failure> {
        self.keeper.roll_call();
        let began = Instant::now();
        self.keeper.tell_to_end();
        loop {
            if let Some(status) = self.keeper.ended()? {
                let took = began.elapsed();
                if status.success() {
                    return Ok(took);
                }
                let text = format!("`waangu up` ended with {status}");
                return Err(self.keeper.failure(&text));
            }
            if began.elapsed() > STOP_PATIENCE {
                let seconds = STOP_PATIENCE.as_secs();
                let text = format!("not all processes were gone {seconds} s after SIGTERM");
                return Err(self.keeper.failure(&text));
            }
            sleep(POLL).await;
        }
    }
}

/// Holds `waangu up` and knows its processes.
#[derive(Debug)]
struct Keeper {
    child: Child,
    /// All that were ever seen: children of one that died are nobody's descendants any more.
    family: Vec<Process>,
    log: PathBuf,
}

impl Keeper {
    async fn wait_until_there(&mut self, file: &Path, began: Instant) -> Result<(), Failure> {
        let mut called = began;
        while !file.exists() {
            if let Some(status) = self.child.try_wait().of("waangu up")? {
                return Err(self.failure(&format!("`waangu up` ended with {status}")));
            }
            if began.elapsed() > START_PATIENCE {
                return Err(self.failure("`waangu up` does not become ready"));
            }
            if called.elapsed() > ROLL_CALL {
                self.roll_call();
                called = Instant::now();
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    fn roll_call(&mut self) {
        for process in family(self.child.id()) {
            if !self.family.contains(&process) {
                self.family.push(process);
            }
        }
    }

    fn tell_to_end(&self) {
        if let Some(up) = Process::find(self.child.id()) {
            up.signal(Signal::TERM);
        }
    }

    /// How `waangu up` ended, once it and all of its processes have.
    fn ended(&mut self) -> Result<Option<ExitStatus>, Failure> {
        let status = self.child.try_wait().of("waangu up")?;
        Ok(status.filter(|_| !self.family.iter().any(Process::is_alive)))
    }

    /// A failure with the platform's last words.
    fn failure(&self, what: &str) -> Failure {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(5).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        Failure::new(format!("{what}; it said: {}", last.join(" | ")))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if matches!(self.ended(), Ok(Some(_))) {
            return;
        }
        self.roll_call();
        self.tell_to_end();
        let began = Instant::now();
        while began.elapsed() < STOP_PATIENCE {
            if matches!(self.ended(), Ok(Some(_))) {
                return;
            }
            // Nothing can be awaited here; parking with a limit is a sleep.
            std::thread::park_timeout(POLL);
        }
        self.roll_call();
        for process in &self.family {
            process.signal(Signal::KILL);
        }
        // It was killed, so this does not wait for long.
        let _status = self.child.wait();
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let text = std::fs::read(path).of(path.display())?;
    serde_json::from_slice(&text).of(path.display())
}
