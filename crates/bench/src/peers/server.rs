//! The server that all sides work on: a cell of a running platform, and PostgreSQL's own programs beside
//! the one that runs it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, NoTls};

use crate::failure::{Failure, Of as _};
use crate::platform::Platform;
use crate::report::Report;

/// Settings that decide what a commit costs.
const SETTINGS: &str = "select name, current_setting(name) from unnest(array[
    'server_version', 'fsync', 'synchronous_commit', 'full_page_writes', 'wal_level',
    'shared_buffers']) as name";

/// A server, and how to reach it as its administrator.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: String,
    /// The folder of its programs.
    folder: PathBuf,
}

impl Server {
    /// The server of a platform's cell; the error says why that can't be had.
    pub(crate) fn of(platform: &Platform, cell: &str) -> Result<Self, Failure> {
        let missing = || Failure::new(format!("the ready file does not tell where cell {cell} is"));
        let cells = &platform.ready.cells;
        let found = cells.iter().find(|ready| ready.id == cell);
        let dsn = &found.ok_or_else(missing)?.superuser_dsn;
        let config: tokio_postgres::Config = dsn.parse().of("superuser_dsn")?;
        let Some(Host::Tcp(host)) = config.get_hosts().first() else {
            return Err(missing());
        };
        let password = config.get_password().ok_or_else(missing)?;
        Ok(Self {
            host: host.clone(),
            port: *config.get_ports().first().ok_or_else(missing)?,
            user: config.get_user().ok_or_else(missing)?.to_owned(),
            password: String::from_utf8_lossy(password).into_owned(),
            folder: programs(platform, cell)?,
        })
    }

    /// One of its programs.
    pub(crate) fn program(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
        let folder = self.folder.display();
        Err(Failure::new(format!("no {name} in {folder}")))
    }

    /// How to reach it, for libpq's environment (PostgreSQL documentation §34.15).
    pub(crate) fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("PGHOST", self.host.clone()),
            ("PGPORT", self.port.to_string()),
            ("PGUSER", self.user.clone()),
            ("PGPASSWORD", self.password.clone()),
        ]
    }

    /// A connection of its administrator; it ends with the client.
    pub(crate) async fn connect(&self, database: &str) -> Result<Client, Failure> {
        let mut config = tokio_postgres::Config::new();
        config
            .host(&self.host)
            .port(self.port)
            .user(&self.user)
            .password(&self.password)
            .dbname(database);
        let (client, connection) = config.connect(NoTls).await.of(database)?;
        // What goes wrong with the connection is told to whoever uses the client.
        drop(tokio::runtime::Handle::current().spawn(connection));
        Ok(client)
    }

    /// Makes it like one that has run for a while: the files of its log are there to be used again. A new server
    /// makes each when it first needs it, and all commits wait for that.
    pub(crate) async fn wear_in(&self) -> Result<(), Failure> {
        let client = self.connect("postgres").await?;
        let sql = "select pg_size_bytes(current_setting('min_wal_size'))
                        / pg_size_bytes(current_setting('wal_segment_size'))";
        let kept = client.query_one(sql, &[]).await.of("wal")?;
        // Those behind the last checkpoint's begin are what comes to be used again.
        for files in [kept.try_get::<_, i64>(0).of("wal")?, 2] {
            for _file in 0..files {
                let sql = "select pg_logical_emit_message(false, 'bench', ''), pg_switch_wal()";
                client.execute(sql, &[]).await.of("pg_switch_wal")?;
            }
            client.execute("checkpoint", &[]).await.of("checkpoint")?;
        }
        Ok(())
    }

    /// `createdb`, with these options.
    pub(crate) async fn createdb(&self, options: &[&str], name: &str) -> Result<(), Failure> {
        let mut arguments = vec!["--maintenance-db=postgres".to_owned()];
        arguments.extend(options.iter().map(|&option| option.to_owned()));
        arguments.push(name.to_owned());
        self.run("createdb", &arguments).await
    }

    /// `psql`, one transaction.
    pub(crate) async fn psql(&self, database: &str, arguments: &[String]) -> Result<(), Failure> {
        let mut all = vec![
            "--no-psqlrc".to_owned(),
            "--quiet".to_owned(),
            "--set=ON_ERROR_STOP=1".to_owned(),
            "--single-transaction".to_owned(),
            format!("--dbname={database}"),
        ];
        all.extend_from_slice(arguments);
        self.run("psql", &all).await
    }

    async fn run(&self, program: &str, arguments: &[String]) -> Result<(), Failure> {
        let program = self.program(program)?;
        let output = Command::new(&program)
            .args(arguments)
            .env_clear()
            .envs(self.environment())
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
        let program = program.display();
        Err(Failure::new(format!("{program}: {}", why.trim())))
    }

    /// Adds its version and settings to the report.
    pub(crate) async fn describe(&self, report: &mut Report) -> Result<(), Failure> {
        let client = self.connect("postgres").await?;
        for row in client.query(SETTINGS, &[]).await.of("settings")? {
            let name: String = row.try_get(0).of("settings")?;
            let name = match name.as_str() {
                "server_version" => "PostgreSQL".to_owned(),
                _ => name,
            };
            report.facts.insert(name, row.try_get(1).of("settings")?);
        }
        Ok(())
    }
}

/// The folder of the program that runs the cell's server.
fn programs(platform: &Platform, cell: &str) -> Result<PathBuf, Failure> {
    let runs = |folder: &Path| folder.parent()?.file_name()?.to_str().map(str::to_owned);
    platform
        .family()
        .iter()
        .filter(|process| process.folder().as_deref().and_then(runs).as_deref() == Some(cell))
        .find_map(|process| Some(process.program()?.parent()?.to_owned()))
        .ok_or_else(|| Failure::new(format!("cell {cell} has no server process to be found")))
}
