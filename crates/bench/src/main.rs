//! `bench NAME`: measures a running platform and says whether its goals are met.
//!
//! The harness is what all benches share: statistics, goals, the report as table and JSON, a platform
//! in a folder that goes away. A bench is one function in [`BENCHES`] that gives a [`Report`].
//!
//! The program is also the module that the bench `fleet` installs, if it is called by that one's name.
//!
//! Invariants: the exit code is the result (0 every goal met, 3 a goal missed, 1 could not measure);
//! numbers go to stdout, talk to stderr; no process and no folder is left behind when a bench fails or
//! is told to stop. Only a SIGKILL of this program leaves a platform running.
//!
//! Left out: building (`cargo xtask bench` does it) and systems other than Linux, because processes
//! are found and weighed through `/proc`.

mod environment;
mod failure;
mod first_run;
mod fleet;
mod goal;
mod memory;
mod moves;
mod peers;
mod platform;
mod process;
mod progress;
mod relocation;
mod report;
mod scratch;
mod shop;
mod stats;
mod tenancy;
mod torture;

use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use waangu_kernel::SystemClock;

use crate::environment::Environment;
use crate::failure::{Failure, Of as _};
use crate::progress::{Progress, line, talk};
use crate::report::Report;

/// Measures the platform.
#[derive(Debug, Parser)]
struct Args {
    /// Which benchmark, or which torture
    name: String,
    /// Torture instead: random work under random kills for so many minutes
    #[arg(long, value_name = "MINUTES", conflicts_with_all = ["json", "quick"])]
    torture: Option<f64>,
    /// What the random choices of a torture follow from
    #[arg(long, default_value_t = 1, value_name = "S")]
    seed: u64,
    /// Also write the numbers to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A short run: shows that it works, proves no goal
    #[arg(long)]
    quick: bool,
}

/// How much to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effort {
    /// Enough to see that it works.
    Quick,
    /// What the goals are written for.
    Full,
}

/// What a bench is given.
#[derive(Debug)]
struct Context {
    effort: Effort,
    /// The folder of the platform's programs.
    programs: PathBuf,
    progress: Progress,
}

type Measuring<'a> = Pin<Box<dyn Future<Output = Result<Report, Failure>> + 'a>>;

/// A bench by its name.
struct Bench {
    name: &'static str,
    measure: fn(&Context) -> Measuring<'_>,
}

const BENCHES: &[Bench] = &[
    Bench {
        name: "first-run",
        measure: |context| Box::pin(first_run::measure(context)),
    },
    Bench {
        name: "fleet",
        measure: |context| Box::pin(fleet::measure(context)),
    },
    Bench {
        name: "relocation",
        measure: |context| Box::pin(relocation::measure(context)),
    },
    Bench {
        name: "tenancy",
        measure: |context| Box::pin(tenancy::measure(context)),
    },
];

fn main() -> ExitCode {
    if called_as(peers::ledger20::PROGRAM) {
        return peers::ledger20::run();
    }
    let args = Args::parse();
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .of("async runtime")
        .and_then(|runtime| runtime.block_on(run(&args)));
    match done {
        Ok(code) => code,
        Err(failure) => {
            talk(&format!("error: could not measure: {failure}"));
            ExitCode::from(1)
        }
    }
}

/// Whether this program was started by that name.
fn called_as(name: &str) -> bool {
    let own = std::env::current_exe();
    own.is_ok_and(|path| path.file_name().is_some_and(|own| own == name))
}

async fn run(args: &Args) -> Result<ExitCode, Failure> {
    if let Some(minutes) = args.torture {
        let ordeal = torture::Ordeal {
            length: Duration::try_from_secs_f64(minutes * 60.0).of("minutes")?,
            seed: args.seed,
        };
        let programs = programs()?;
        let mut told = Told::new()?;
        return tokio::select! {
            done = torture::run(&args.name, ordeal, &programs) => done,
            () = told.wait() => Err(Failure::new("told to stop")),
        };
    }
    let bench = find(&args.name)?;
    let context = Context {
        effort: if args.quick {
            Effort::Quick
        } else {
            Effort::Full
        },
        programs: programs()?,
        progress: Progress::new(),
    };
    let mut environment = Environment::look(&SystemClock);
    let mut told = Told::new()?;
    let mut report = tokio::select! {
        report = (bench.measure)(&context) => report?,
        () = told.wait() => return Err(Failure::new("told to stop")),
    };
    context.progress.end();
    environment.look_again();
    report.name = bench.name;
    report.quick = args.quick;
    report.environment = Some(environment);
    if let Some(file) = &args.json {
        let text = serde_json::to_vec_pretty(&report.as_json()).of("report")?;
        std::fs::write(file, text).of(file.display())?;
    }
    line(&report.as_text());
    line(&goal::closing_line(&report.goals));
    Ok(goal::exit_code(&report.goals))
}

fn find(name: &str) -> Result<&'static Bench, Failure> {
    BENCHES
        .iter()
        .find(|bench| bench.name == name)
        .ok_or_else(|| {
            let names: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
            Failure::new(format!(
                "there is no bench `{name}`; there is {}",
                names.join(", ")
            ))
        })
}

/// The platform's programs stand beside this one.
fn programs() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().of("this program")?;
    let folder = own
        .parent()
        .ok_or_else(|| Failure::new("this program stands in no folder"))?;
    if folder.join("waangu").is_file() {
        return Ok(folder.to_owned());
    }
    Err(Failure::new(format!(
        "no program `waangu` in {}; start the bench with `cargo xtask bench`",
        folder.display()
    )))
}

/// The signals that end a measurement.
struct Told {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Told {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).of("SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).of("SIGINT")?,
            hangup: signal(SignalKind::hangup()).of("SIGHUP")?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A misspelt name would measure nothing and look like success.
    #[test]
    fn an_unknown_bench_is_refused_with_the_known_names() {
        assert!(find("first-run").is_ok());
        let text = find("frist-run").map(|bench| bench.name).unwrap_err();
        assert!(text.to_string().contains("first-run"), "{text}");
    }
}
