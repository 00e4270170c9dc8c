//! The load through django-tenants behind PgBouncer in transaction mode, as many deploy it.
//!
//! Invariant: what can't be had here (the pooler, Python, packages) is a failure of this part only.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::{TENANTS, Tally, WORKERS};
use crate::failure::{Failure, Of as _};
use crate::peers::django;
use crate::peers::python::{output, python, said, search_path};
use crate::tenancy::stage::{PASSWORD, Stage, connect};

const USER: &str = "bench_django";
const SCRIPT: &str = include_str!("load.py");
const SCHEMAS: &str = include_str!("schemas.sql");

/// Server connections of the pooler.
const CONNECTIONS: usize = 2;

/// Longest time to run.
const RUN_PATIENCE: Duration = Duration::from_mins(2);

/// What was seen, and with what.
pub(super) struct Found {
    pub(super) tally: Tally,
    pub(super) how: String,
}

/// What the script prints.
#[derive(Debug, Deserialize)]
struct Printed {
    requests: u64,
    reads: u64,
    wrong: u64,
    short: u64,
    refused: u64,
    failed: u64,
    panicked: u64,
    versions: BTreeMap<String, String>,
}

/// So many requests.
pub(super) async fn measure(stage: &Stage, requests: u32) -> Result<Found, Failure> {
    let version = said("pgbouncer", &["--version"]).await?;
    let pooler_version = version.lines().next().unwrap_or_default().to_owned();
    let python = python(django::IMPORTS, django::PACKAGES).await?;
    fill(stage).await?;
    let (mut pooler, port) = pooler(stage).await?;
    let script = stage.path("load.py");
    std::fs::write(&script, SCRIPT).of(script.display())?;
    let mut run = Command::new(&python);
    run.arg(&script)
        .args([&port.to_string(), USER, USER, PASSWORD])
        .args([TENANTS.to_string(), requests.to_string()])
        .arg(WORKERS.to_string());
    let ran = output(run, RUN_PATIENCE).await;
    pooler.kill().await.of("pgbouncer")?;
    let printed: Printed = serde_json::from_str(&ran?).of("load.py")?;
    let versions: Vec<String> = printed
        .versions
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    let how = format!(
        "django-tenants: {requests} requests at most, {WORKERS} threads, {TENANTS} schemas, \
         {pooler_version} in transaction mode with {CONNECTIONS} server connections; {}; autocommit \
         and SET search_path at each cursor, their defaults. Schemas and rows made by SQL",
        versions.join(", ")
    );
    Ok(Found {
        tally: Tally {
            requests: printed.requests,
            reads: printed.reads,
            wrong: printed.wrong,
            short: printed.short,
            refused: printed.refused,
            failed: printed.failed,
            cancelled: 0,
            panicked: printed.panicked,
        },
        how,
    })
}

/// A database of its own on the same server.
async fn fill(stage: &Stage) -> Result<(), Failure> {
    let superuser = stage.superuser("postgres").await?;
    let role = format!("create role {USER} login password '{PASSWORD}'");
    superuser.batch_execute(&role).await.of("role")?;
    let database = format!("create database {USER} owner {USER}");
    superuser.batch_execute(&database).await.of("database")?;
    let superuser = stage.superuser(USER).await?;
    let schemas = SCHEMAS.replace(":tenants", &TENANTS.to_string());
    superuser.batch_execute(&schemas).await.of("schemas")
}

/// Starts the pooler and waits until it lets somebody through.
async fn pooler(stage: &Stage) -> Result<(Child, u16), Failure> {
    let port = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).of("port")?;
        listener.local_addr().of("port")?.port()
    };
    let config = format!(
        "[databases]\n\
         {USER} = host=127.0.0.1 port={server} dbname={USER} user={USER} password={PASSWORD}\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {port}\n\
         unix_socket_dir =\n\
         auth_type = any\n\
         pool_mode = transaction\n\
         default_pool_size = {CONNECTIONS}\n\
         max_client_conn = 100\n",
        server = stage.port(),
    );
    let path = stage.path("pgbouncer.ini");
    std::fs::write(&path, config).of(path.display())?;
    let mut command = Command::new("pgbouncer");
    command.arg("-q").arg(&path).env("PATH", search_path());
    if rustix::process::geteuid().is_root() {
        // It refuses to run as root.
        command.args(["-u", "nobody"]);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .of("pgbouncer")?;
    for _ in 0..100 {
        if connect(USER, USER, port).await.is_ok() {
            return Ok((child, port));
        }
        sleep(Duration::from_millis(50)).await;
    }
    child.kill().await.of("pgbouncer")?;
    Err(Failure::new("pgbouncer lets nobody through"))
}
