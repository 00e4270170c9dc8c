//! `cargo xtask torture NAME`: builds everything for release, then becomes the torture.
//!
//! Its exit code is the result: 0 nothing lost, 3 something lost, 1 could not be tried.

use std::process::Command;

use crate::process::{self, Failure};
use crate::workspace::{Profile, Workspace};

const PACKAGE: &str = "waangu-bench";
const BINARY: &str = "bench";

/// What `torture` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which torture: fleet, relocation
    name: String,
    /// How long
    #[arg(long, default_value_t = 10, value_name = "N")]
    minutes: u64,
    /// What the random choices follow from
    #[arg(long, default_value_t = 1, value_name = "S")]
    seed: u64,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<(), Failure> {
    workspace.build(Profile::Release, &[PACKAGE])?;
    let mut torture = Command::new(workspace.binary(Profile::Release, BINARY));
    torture
        .arg(&args.name)
        .args(["--torture", &args.minutes.to_string()])
        .args(["--seed", &args.seed.to_string()]);
    Err(process::exec(&mut torture))
}
