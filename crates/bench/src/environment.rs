//! Where and when a measurement was made: a number without it can't be compared with another.

use std::process::{Command, Stdio};

use serde::Serialize;
use time::format_description::well_known::Rfc3339;
use waangu_kernel::Clock;

/// The machine, the programs, the moment. What can't be found out is `unknown`.
#[derive(Debug, Serialize)]
pub(crate) struct Environment {
    date: String,
    commit: String,
    waangu: &'static str,
    profile: &'static str,
    rustc: String,
    cpus: usize,
    cpu: String,
    memory_mib: u64,
    kernel: String,
    /// 1, 5 and 15 minutes.
    load_before: String,
    load_after: String,
}

impl Environment {
    /// Looks, before the measurement.
    pub(crate) fn look(clock: &dyn Clock) -> Self {
        Self {
            date: clock.now().format(&Rfc3339).unwrap_or_else(|_| unknown()),
            commit: commit(),
            waangu: env!("CARGO_PKG_VERSION"),
            profile: if cfg!(debug_assertions) {
                "debug (these numbers prove nothing)"
            } else {
                "release"
            },
            rustc: said("rustc", &["--version"]).unwrap_or_else(unknown),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            memory_mib: memory_kib().unwrap_or(0) / 1024,
            kernel: first_line("/proc/sys/kernel/osrelease").unwrap_or_else(unknown),
            load_before: load(),
            load_after: unknown(),
        }
    }

    /// Looks again, after it.
    pub(crate) fn look_again(&mut self) {
        self.load_after = load();
    }

    /// For people.
    pub(crate) fn as_text(&self) -> String {
        format!(
            "{date} · commit {commit} · {profile} · {rustc}\n\
             {cpus} CPUs ({cpu}) · {memory} MiB · Linux {kernel} · \
             load {before} before, {after} after",
            date = self.date,
            commit = self.commit,
            profile = self.profile,
            rustc = self.rustc,
            cpus = self.cpus,
            cpu = self.cpu,
            memory = self.memory_mib,
            kernel = self.kernel,
            before = self.load_before,
            after = self.load_after,
        )
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// The commit, and whether something is not committed.
fn commit() -> String {
    let Some(commit) = said("git", &["rev-parse", "--short=12", "HEAD"]) else {
        return unknown();
    };
    match said("git", &["status", "--porcelain"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => format!("{commit} with changes"),
    }
}

/// What a program says, asked in this source tree: it may have a toolchain of its own.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn first_line(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().next().map(str::to_owned)
}

/// The value of a line such as `model name : …`.
fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':')
        .map(|(_, value)| value.trim().to_owned())
}

fn memory_kib() -> Option<u64> {
    let value = field("/proc/meminfo", "MemTotal")?;
    value.split_whitespace().next()?.parse().ok()
}

fn load() -> String {
    let line = first_line("/proc/loadavg").unwrap_or_default();
    let loads: Vec<&str> = line.split(' ').take(3).collect();
    loads.join(" ")
}
