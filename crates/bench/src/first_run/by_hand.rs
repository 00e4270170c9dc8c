//! The peer: what people do by hand for a new tenant, with PostgreSQL's own programs.
//!
//! Each act is as good as we know how to do it: the server's own `createdb` and `psql` (no wrapper),
//! `--no-psqlrc`, one transaction for the whole file, a password in the environment. What it leaves out
//! is theirs to add: row-level security, logins, a registry, routing, an audit.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;
use tokio::time::Instant;
use tokio_postgres::config::Host;

use crate::failure::{Failure, Of as _};
use crate::platform::Platform;
use crate::scratch::Scratch;

/// The database that holds the schemas.
const SCHEMAS: &str = "by_hand";

/// The module's tables take their tenant from this function; by hand, it is a setting.
const TENANT_FUNCTION: &str = "create schema waangu;
create function waangu.tenant() returns bigint language sql stable
    as $$ select nullif(current_setting('app.current_tenant', true), '')::bigint $$;
";

/// The server's client programs, and the module's SQL.
#[derive(Debug)]
pub(super) struct ByHand {
    createdb: PathBuf,
    psql: PathBuf,
    server: Vec<(&'static str, String)>,
    /// The module's tables.
    module: PathBuf,
    /// The same with what they need in an empty database.
    whole: PathBuf,
}

/// What `waangu-<module> package` prints, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Package {
    migrations: Vec<Migration>,
}

#[derive(Debug, Deserialize)]
struct Migration {
    sql: String,
}

impl ByHand {
    /// The programs beside the cell's running server; the error says why that can't be measured.
    pub(super) async fn prepare(
        platform: &Platform,
        cell: &str,
        programs: &Path,
        scratch: &Scratch,
    ) -> Result<Self, Failure> {
        let folder = server_programs(platform, cell)?;
        let program = |name: &str| {
            let path = folder.join(name);
            if path.is_file() {
                return Ok(path);
            }
            Err(Failure::new(format!("no {name} in {}", folder.display())))
        };
        let module = scratch.path("module.sql");
        let whole = scratch.path("whole.sql");
        let sql = module_sql(programs).await?;
        std::fs::write(&module, &sql).of(module.display())?;
        std::fs::write(&whole, format!("{TENANT_FUNCTION}{sql}")).of(whole.display())?;
        let hand = Self {
            createdb: program("createdb")?,
            psql: program("psql")?,
            server: server(platform, cell)?,
            module,
            whole,
        };
        hand.create_database(SCHEMAS).await?;
        let function = ["--command", TENANT_FUNCTION].map(str::to_owned);
        hand.psql(SCHEMAS, &function).await?;
        Ok(hand)
    }

    /// `psql -c 'create schema …' -f module.sql` in a database that exists.
    pub(super) async fn schema(&self, name: &str) -> Result<Duration, Failure> {
        let create = format!("create schema \"{name}\"");
        let enter = format!("set search_path = \"{name}\"");
        let file = self.module.display().to_string();
        let arguments = ["--command", &create, "--command", &enter, "--file", &file];
        let began = Instant::now();
        self.psql(SCHEMAS, &arguments.map(str::to_owned)).await?;
        Ok(began.elapsed())
    }

    /// `createdb` and `psql -f module.sql`.
    pub(super) async fn dedicated(&self, name: &str) -> Result<Duration, Failure> {
        let file = self.whole.display().to_string();
        let began = Instant::now();
        self.create_database(name).await?;
        self.psql(name, &["--file".to_owned(), file]).await?;
        Ok(began.elapsed())
    }

    async fn create_database(&self, name: &str) -> Result<(), Failure> {
        let arguments = ["--maintenance-db=postgres", name].map(str::to_owned);
        self.run(&self.createdb, &arguments).await
    }

    async fn psql(&self, database: &str, arguments: &[String]) -> Result<(), Failure> {
        let mut all = vec![
            "--no-psqlrc".to_owned(),
            "--quiet".to_owned(),
            "--set=ON_ERROR_STOP=1".to_owned(),
            "--single-transaction".to_owned(),
            format!("--dbname={database}"),
        ];
        all.extend_from_slice(arguments);
        self.run(&self.psql, &all).await
    }

    async fn run(&self, program: &Path, arguments: &[String]) -> Result<(), Failure> {
        let output = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(self.server.iter().map(|(name, value)| (name, value)))
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .of(program.display())?;
        if output.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&output.stderr);
        Err(Failure::new(format!(
            "{}: {}",
            program.display(),
            why.trim()
        )))
    }
}

/// The folder of the program that runs the cell's server.
fn server_programs(platform: &Platform, cell: &str) -> Result<PathBuf, Failure> {
    platform
        .family()
        .iter()
        .filter(|process| {
            let folder = process.folder();
            let named = folder
                .as_deref()
                .and_then(|data| data.parent()?.file_name()?.to_str());
            named == Some(cell)
        })
        .find_map(|process| Some(process.program()?.parent()?.to_owned()))
        .ok_or_else(|| Failure::new(format!("cell {cell} has no server process to be found")))
}

/// How to reach the server, for libpq's environment (PostgreSQL documentation §34.15).
fn server(platform: &Platform, cell: &str) -> Result<Vec<(&'static str, String)>, Failure> {
    let missing = || Failure::new(format!("the ready file does not tell where cell {cell} is"));
    let cells = &platform.ready.cells;
    let found = cells.iter().find(|ready| ready.id == cell);
    let dsn = &found.ok_or_else(missing)?.superuser_dsn;
    let config: tokio_postgres::Config = dsn.parse().of("superuser_dsn")?;
    let Some(Host::Tcp(host)) = config.get_hosts().first() else {
        return Err(missing());
    };
    let port = config.get_ports().first().ok_or_else(missing)?;
    let password = config.get_password().ok_or_else(missing)?;
    Ok(vec![
        ("PGHOST", host.clone()),
        ("PGPORT", port.to_string()),
        ("PGUSER", config.get_user().ok_or_else(missing)?.to_owned()),
        ("PGPASSWORD", String::from_utf8_lossy(password).into_owned()),
    ])
}

/// All migrations of the module, as its own program tells them.
async fn module_sql(programs: &Path) -> Result<String, Failure> {
    let program = programs.join("waangu-inventory");
    let output = Command::new(&program)
        .arg("package")
        .stdin(Stdio::null())
        .output()
        .await
        .of(program.display())?;
    let package: Package = serde_json::from_slice(&output.stdout).of(program.display())?;
    let scripts: Vec<String> = package
        .migrations
        .into_iter()
        .map(|step| step.sql)
        .collect();
    Ok(scripts.join("\n"))
}
