//! `cargo xtask`: how the repository is built, run, tested, measured and kept clean.
//!
//! One file per command, no command knows another. Everything a person or a CI machine runs here
//! is an ordinary `cargo` or `waangu` invocation, printed before it runs.

mod bench;
mod codegen;
mod prerequisites;
mod process;
mod say;
mod test;
mod tidy;
mod torture;
mod up;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::process::Failure;
use crate::workspace::Workspace;

/// Builds, runs, tests and checks Waangu 360.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the platform and run it here, with its own PostgreSQL, until Ctrl-C
    ///
    /// Every argument goes to `waangu up` (try `cargo xtask up --help`), except `--release`, which
    /// chooses the build.
    #[command(disable_help_flag = true)]
    Up {
        /// Arguments of `waangu up`; `--release` builds and runs the release profile
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "ARGS"
        )]
        args: Vec<OsString>,
    },
    /// Run every test, then build the documentation with warnings as errors
    Test {
        /// After `--`: arguments of `cargo test`
        #[arg(last = true, value_name = "CARGO TEST ARGS")]
        args: Vec<OsString>,
    },
    /// Run a benchmark on the release build (exit 0: goals met, 3: a goal missed, 1: no measure)
    Bench(bench::Args),
    /// Work at random under random kills on the release build (exit 0: nothing lost, 3: something lost)
    Torture(torture::Args),
    /// Check format, lints, house rules, crate ranks and manifests
    Tidy,
    /// Write the files that the `waangu` binary generates
    Codegen {
        /// Write nothing; name the files that differ and exit 1
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say::note(&format!("error: {failure}"));
            failure.exit_code()
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    let workspace = Workspace::load()?;
    if matches!(
        command,
        Command::Up { .. } | Command::Test { .. } | Command::Bench(_) | Command::Torture(_)
    ) {
        prerequisites::ensure()?;
    }
    match command {
        Command::Up { args } => up::run(&workspace, args),
        Command::Test { args } => test::run(&workspace, &args),
        Command::Bench(args) => bench::run(&workspace, &args),
        Command::Torture(args) => torture::run(&workspace, &args),
        Command::Tidy => tidy::run(&workspace),
        Command::Codegen { check: false } => codegen::write(&workspace),
        Command::Codegen { check: true } => codegen::check(&workspace),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn up_passes_hyphens_and_help_through() {
        let cli = Cli::try_parse_from(["xtask", "up", "--demo", "--state", "x", "--help"]).unwrap();
        let Command::Up { args } = cli.command else {
            panic!("not up: {cli:?}")
        };
        assert_eq!(args, ["--demo", "--state", "x", "--help"]);
    }

    #[test]
    fn test_takes_arguments_only_after_two_hyphens() {
        let cli = Cli::try_parse_from(["xtask", "test", "--", "-p", "xtask", "--", "--nocapture"])
            .unwrap();
        let Command::Test { args } = cli.command else {
            panic!("not test: {cli:?}")
        };
        assert_eq!(args, ["-p", "xtask", "--", "--nocapture"]);
        assert!(Cli::try_parse_from(["xtask", "test", "-p", "xtask"]).is_err());
    }
}
