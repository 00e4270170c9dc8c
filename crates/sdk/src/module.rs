//! A module as a program: `serve`, `package` (what the control plane installs), `docs`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use axum::extract::DefaultBodyLimit;
use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;
use waangu_kernel::manifest::Manifest;
use waangu_kernel::{ErrorDef, Fault, fault};
use waangu_process::ServeOptions;
use waangu_tenancy::ModulePackage;
use waangu_tenancy::admin::Migration;

use crate::Router;
use crate::host::{Config, Host};
use crate::json::Refusal;

/// Largest request body, in bytes.
const BODY_LIMIT: usize = 1 << 20;

/// Everything a module is.
#[derive(Debug)]
pub struct Module {
    /// The text of `module.toml`.
    pub manifest: &'static str,
    /// Name and SQL of each migration, oldest first.
    pub migrations: &'static [(&'static str, &'static str)],
    /// The errors that only this module answers.
    pub errors: &'static [&'static ErrorDef],
    /// The routes.
    pub router: fn() -> Router,
}

impl Module {
    /// What the control plane installs.
    ///
    /// # Errors
    /// `module-manifest-invalid`.
    pub fn package(&self) -> Result<ModulePackage, Fault> {
        let migrations = self
            .migrations
            .iter()
            .map(|(name, sql)| Migration {
                name: (*name).to_owned(),
                sql: (*sql).to_owned(),
            })
            .collect();
        Ok(ModulePackage {
            manifest: Manifest::parse(self.manifest)?,
            migrations,
        })
    }

    /// The routes with what every module answers the same way.
    fn service(&self, host: Host) -> axum::Router {
        (self.router)()
            .route("/healthz", axum::routing::get(|| async { "ok" }))
            .route("/metrics", axum::routing::get(crate::metrics::show))
            .fallback(|| async {
                Refusal(fault::ROUTE_NOT_FOUND.fault("the module has no such route"))
            })
            .method_not_allowed_fallback(|| async {
                Refusal(fault::METHOD_NOT_ALLOWED.fault("the route does not take this method"))
            })
            .layer(DefaultBodyLimit::max(BODY_LIMIT))
            .layer(axum::middleware::from_fn(crate::spent::meter))
            .with_state(host)
    }
}

#[derive(Parser)]
#[command(version, about = "A Waangu 360 module")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the module's routes until SIGTERM.
    Serve(ServeOptions),
    /// Print what the control plane installs: manifest and migrations, as JSON.
    Package,
    /// Write one page for each of the module's errors.
    Docs {
        /// The folder to write to.
        #[arg(long)]
        out: PathBuf,
    },
}

/// Runs a module as a program, with the process's arguments.
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the program's own talk"
)]
pub fn run(module: &Module) -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(options) => serve(module, &options),
        Command::Package => package(module).map(|text| println!("{text}")),
        Command::Docs { out } => docs(module, &out),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn package(module: &Module) -> Result<String, String> {
    let package = module.package().map_err(|fault| fault.to_string())?;
    serde_json::to_string_pretty(&package).map_err(|error| error.to_string())
}

fn docs(module: &Module, out: &Path) -> Result<(), String> {
    std::fs::create_dir_all(out).map_err(|error| format!("{}: {error}", out.display()))?;
    for def in module.errors {
        let file = out.join(format!("{}.md", def.code));
        std::fs::write(&file, def.page())
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}

#[tokio::main]
async fn serve(module: &Module, options: &ServeOptions) -> Result<(), String> {
    waangu_process::log("info");
    options
        .run(async |stop| listen(module, options, stop).await)
        .await
        .map_err(|error: io::Error| error.to_string())
}

async fn listen(
    module: &Module,
    options: &ServeOptions,
    stop: CancellationToken,
) -> io::Result<()> {
    let manifest = Manifest::parse(module.manifest).map_err(io::Error::other)?;
    let config = read_config(&options.config)?;
    let listener = options.listener().await?;
    let service = module.service(Host::new(&manifest, config)?);
    tracing::info!(module = %manifest.id, version = manifest.version, "serving");
    axum::serve(listener, service)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

fn read_config(path: &Path) -> io::Result<Config> {
    let text = std::fs::read_to_string(path)?;
    let config = toml::from_str(&text);
    config.map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
}
