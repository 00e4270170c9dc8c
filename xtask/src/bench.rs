//! `cargo xtask bench NAME`: builds everything for release, then becomes the bench program.
//!
//! Its exit code is the result: 0 every goal met, 3 a goal missed, 1 could not measure.

use std::path::PathBuf;
use std::process::Command;

use crate::process::{self, Failure};
use crate::workspace::{Profile, Workspace};

const PACKAGE: &str = "waangu-bench";
const BINARY: &str = "bench";

/// What `bench` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which benchmark
    name: String,
    /// Also write the numbers to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A short run: shows that it works, proves no goal
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<(), Failure> {
    if workspace.package(PACKAGE).is_none() {
        return Err(Failure::new(format!(
            "could not measure: the benchmarks live in the package `{PACKAGE}`, and this workspace has none"
        )));
    }
    workspace
        .build(Profile::Release, &[PACKAGE])
        .map_err(|failure| Failure::new(format!("could not measure: {failure}")))?;

    let mut bench = Command::new(workspace.binary(Profile::Release, BINARY));
    bench.arg(&args.name);
    if let Some(file) = &args.json {
        bench.arg("--json").arg(file);
    }
    if args.quick {
        bench.arg("--quick");
    }
    Err(process::exec(&mut bench))
}
