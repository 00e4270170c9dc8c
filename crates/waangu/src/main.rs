//! The `waangu` program: command line, configuration, wiring, life cycle. No logic of its own.

mod cli;
mod commands;
mod config;
mod doctor;
mod failure;
mod fleet;
mod output;
mod roles;
mod up;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::failure::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return Failure::failed(format!("no async runtime: {error}")).report(),
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { global, command } = cli;
    match command {
        Command::Up(options) => up::run(&global, options).await,
        Command::Control(options) => roles::control(&options).await,
        Command::Gateway(options) => roles::gateway(&options).await,
        Command::Tenant(command) => commands::tenant(&global, command).await,
        Command::Module(command) => commands::module(&global, command).await,
        Command::User(command) => commands::user(&global, command).await,
        Command::Role(command) => commands::role(&global, command).await,
        Command::Audit(command) => commands::audit(&global, command).await,
        Command::Cell(command) => commands::cell(&global, command).await,
        Command::Fleet(command) => commands::fleet(&global, command).await,
        Command::Flag(command) => commands::flag(&global, command).await,
        Command::Plan(command) => commands::plan(&global, command).await,
        Command::Key(command) => commands::key(&global, command).await,
        Command::Advisor(options) => commands::advisor(&global, options).await,
        Command::Doctor(options) => doctor::run(&global, &options).await,
        Command::Apply(options) => commands::apply(&global, &options).await,
        Command::Promote(options) => commands::promote(&global, options).await,
        Command::Openapi => commands::openapi(),
        Command::Docs(command) => commands::docs(command),
    }
}
