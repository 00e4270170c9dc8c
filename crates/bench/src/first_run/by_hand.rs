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

use crate::failure::{Failure, Of as _};
use crate::peers::server::Server;
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
    server: Server,
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
        let server = Server::of(platform, cell)?;
        let module = scratch.path("module.sql");
        let whole = scratch.path("whole.sql");
        let sql = module_sql(programs).await?;
        std::fs::write(&module, &sql).of(module.display())?;
        std::fs::write(&whole, format!("{TENANT_FUNCTION}{sql}")).of(whole.display())?;
        server.createdb(&[], SCHEMAS).await?;
        let function = ["--command", TENANT_FUNCTION].map(str::to_owned);
        server.psql(SCHEMAS, &function).await?;
        Ok(Self {
            server,
            module,
            whole,
        })
    }

    /// `psql -c 'create schema …' -f module.sql` in a database that exists.
    pub(super) async fn schema(&self, name: &str) -> Result<Duration, Failure> {
        let create = format!("create schema \"{name}\"");
        let enter = format!("set search_path = \"{name}\"");
        let file = self.module.display().to_string();
        let arguments = ["--command", &create, "--command", &enter, "--file", &file];
        let began = Instant::now();
        let arguments = arguments.map(str::to_owned);
        self.server.psql(SCHEMAS, &arguments).await?;
        Ok(began.elapsed())
    }

    /// `createdb` and `psql -f module.sql`.
    pub(super) async fn dedicated(&self, name: &str) -> Result<Duration, Failure> {
        let file = self.whole.display().to_string();
        let began = Instant::now();
        self.server.createdb(&[], name).await?;
        self.server.psql(name, &["--file".to_owned(), file]).await?;
        Ok(began.elapsed())
    }
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
