//! `waangu doctor`: checks what the platform needs and what runs, and says how to mend each finding.
//!
//! Invariant: it only looks. Every finding that is not fine carries a sentence on what to do.

use std::fmt::Display;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tokio_postgres::NoTls;
use waangu_api::types::{CellView, List, ModuleView};
use waangu_api::{Client, Ready};

use crate::cli::{DoctorCommand, DoctorOptions, Global};
use crate::commands::{all_tenants, ready};
use crate::config::{self, GatewayFile};
use crate::failure::Failure;
use crate::output::print;

mod isolation;

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Fine,
    Warning,
    Broken,
}

/// One finding.
#[derive(Debug, Serialize)]
struct Finding {
    check: String,
    verdict: Verdict,
    found: String,
    mend: String,
}

impl Finding {
    fn fine(check: &str, found: impl Into<String>) -> Self {
        let (check, found) = (check.to_owned(), found.into());
        Self {
            check,
            verdict: Verdict::Fine,
            found,
            mend: String::new(),
        }
    }

    fn bad(check: &str, verdict: Verdict, found: impl Into<String>, mend: &str) -> Self {
        let (check, found, mend) = (check.to_owned(), found.into(), mend.to_owned());
        Self {
            check,
            verdict,
            found,
            mend,
        }
    }
}

/// Runs the checks that were asked for; fails if something is broken.
pub(crate) async fn run(global: &Global, options: &DoctorOptions) -> Result<(), Failure> {
    match options.command {
        None => everything(global).await,
        Some(DoctorCommand::Isolation) => isolation::run(global).await,
    }
}

async fn everything(global: &Global) -> Result<(), Failure> {
    let mut findings = Vec::new();
    state_folder(&global.state, &mut findings);
    match ready(global) {
        Ok(ready) => running(&ready, &global.state, &mut findings).await,
        Err(failure) => findings.push(Finding::bad(
            "platform",
            Verdict::Broken,
            failure.to_string(),
            "start it with `waangu up`",
        )),
    }
    let rows = findings
        .iter()
        .map(|finding| {
            let verdict = match finding.verdict {
                Verdict::Fine => "fine",
                Verdict::Warning => "WARNING",
                Verdict::Broken => "BROKEN",
            };
            vec![
                verdict.to_owned(),
                finding.check.clone(),
                finding.found.clone(),
                finding.mend.clone(),
            ]
        })
        .collect();
    print(
        global.output,
        &findings,
        &["", "check", "finding", "what to do"],
        rows,
    )?;
    let broken = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Broken)
        .count();
    if broken == 0 {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "{broken} of {} checks found something broken",
        findings.len()
    )))
}

fn state_folder(folder: &Path, findings: &mut Vec<Finding>) {
    let check = "state folder";
    let Ok(room) = rustix::fs::statvfs(folder) else {
        let finding = format!("{} is not there", folder.display());
        let mend = "start the platform once, or name the folder with --state";
        findings.push(Finding::bad(check, Verdict::Warning, finding, mend));
        return;
    };
    let free = room.f_bavail.saturating_mul(room.f_frsize) / 1_048_576;
    findings.push(if free < 1024 {
        let mend = "free some space: PostgreSQL stops when its disk is full";
        Finding::bad(check, Verdict::Warning, format!("{free} MB free"), mend)
    } else {
        Finding::fine(check, format!("{}, {free} MB free", folder.display()))
    });
    for name in [
        "secrets.toml",
        "keys/directory.p8",
        "keys/gateway.p8",
        "tls/ca.key",
        "tls/gateway.key",
        "run/control.toml",
        "run/gateway.toml",
        "ready.json",
    ] {
        let path = folder.join(name);
        let Ok(metadata) = std::fs::metadata(&path) else {
            continue;
        };
        let mode = metadata.permissions().mode() & 0o777;
        findings.push(if mode.trailing_zeros() >= 6 {
            Finding::fine("secret file", format!("{name} is its owner's only"))
        } else {
            let finding = format!("{name} has mode {mode:o}");
            let mend = format!("chmod 600 {}", path.display());
            Finding::bad("secret file", Verdict::Broken, finding, &mend)
        });
    }
}

async fn running(ready: &Ready, folder: &Path, findings: &mut Vec<Finding>) {
    database("control database", &ready.control_dsn, findings).await;
    for cell in &ready.cells {
        database(&format!("cell {}", cell.id), &cell.superuser_dsn, findings).await;
        for (module, dsn) in &cell.module_dsns {
            database(&format!("login of {module} on {}", cell.id), dsn, findings).await;
        }
    }
    let Ok(ca) = std::fs::read(&ready.ca) else {
        let finding = format!("{} can't be read", ready.ca.display());
        let mend = "start the platform again: it makes what is missing";
        findings.push(Finding::bad("CA", Verdict::Broken, finding, mend));
        return;
    };
    let admin = match Client::new(&ready.admin.url, &ca, Some(&ready.admin.token)) {
        Ok(client) => client,
        Err(error) => {
            let mend = "delete the tls folder in the state folder and start again";
            findings.push(Finding::bad("CA", Verdict::Broken, error.to_string(), mend));
            return;
        }
    };
    gateway(ready, &admin, findings).await;
    modules(folder, &admin, findings).await;
    control(ready, &admin, findings).await;
}

async fn gateway(ready: &Ready, admin: &Client, findings: &mut Vec<Finding>) {
    let log = "read log/gateway.log in the state folder";
    findings.push(
        match in_time(admin.at(&ready.gateway, None).probe("/healthz")).await {
            Ok(()) => Finding::fine("gateway", format!("{} answers", ready.gateway)),
            Err(error) => Finding::bad("gateway", Verdict::Broken, error, log),
        },
    );
    let path = "/.well-known/openid-configuration";
    findings.push(
        match in_time(admin.at(&ready.login, None).probe(path)).await {
            Ok(()) => Finding::fine("directory", format!("{} answers", ready.login)),
            Err(error) => Finding::bad("directory", Verdict::Broken, error, log),
        },
    );
}

/// Whether each module's process answers; the gateway's file says where.
async fn modules(folder: &Path, admin: &Client, findings: &mut Vec<Finding>) {
    let Ok(file) = config::read::<GatewayFile>(&folder.join("run/gateway.toml")) else {
        return;
    };
    for (module, address) in file.modules {
        let check = format!("module {module}");
        let process = admin.at(&format!("http://{address}"), None);
        findings.push(match in_time(process.probe("/healthz")).await {
            Ok(()) => Finding::fine(&check, format!("answers at {address}")),
            Err(error) => {
                let mend = format!("read log/{module}.log in the state folder");
                Finding::bad(&check, Verdict::Broken, error, &mend)
            }
        });
    }
}

async fn control(ready: &Ready, admin: &Client, findings: &mut Vec<Finding>) {
    let log = "read log/control.log in the state folder";
    let cells = match in_time(admin.get::<List<CellView>>("/cells")).await {
        Ok(list) => list.items,
        Err(error) => {
            findings.push(Finding::bad("admin API", Verdict::Broken, error, log));
            return;
        }
    };
    findings.push(Finding::fine(
        "admin API",
        "answers, and accepts the operator's token",
    ));
    for cell in cells
        .iter()
        .filter(|cell| cell.tenants >= i64::from(cell.capacity))
    {
        let finding = format!("{} holds {} of {}", cell.id, cell.tenants, cell.capacity);
        let mend = "add a cell, or raise its capacity";
        findings.push(Finding::bad("capacity", Verdict::Warning, finding, mend));
    }
    let installed = in_time(admin.get::<List<ModuleView>>("/modules")).await;
    for module in installed.map(|list| list.items).unwrap_or_default() {
        let finding = format!("{} {} is installed", module.id, module.version);
        findings.push(Finding::fine("module", finding));
    }
    tenants(ready, admin, findings).await;
}

/// Whether the control plane is done with every tenant, and each one's database is where it says.
async fn tenants(ready: &Ready, admin: &Client, findings: &mut Vec<Finding>) {
    let tenants = match in_time(all_tenants(admin)).await {
        Ok(tenants) => tenants,
        Err(error) => {
            let mend = "read log/control.log in the state folder";
            findings.push(Finding::bad("tenants", Verdict::Broken, error, mend));
            return;
        }
    };
    for tenant in &tenants {
        if let Some(error) = &tenant.last_error {
            let finding = format!("{}: {error}", tenant.slug);
            let mend = "the control plane tries again by itself; mend the cause it names";
            findings.push(Finding::bad("tenant", Verdict::Broken, finding, mend));
        }
    }
    for cell in &ready.cells {
        // That a cell does not answer is found elsewhere.
        let Ok(databases) = in_time(databases(&cell.superuser_dsn)).await else {
            continue;
        };
        let lost = tenants.iter().filter(|tenant| {
            let place = &tenant.placement;
            matches!(tenant.state.as_str(), "active" | "suspended")
                && place.cell == cell.id
                && !databases.contains(&place.database)
        });
        for tenant in lost {
            let place = &tenant.placement;
            let finding = format!("{}: no database {} on it", tenant.slug, place.database);
            let mend = "its data is gone; restore the database from a backup";
            let check = format!("cell {}", cell.id);
            findings.push(Finding::bad(&check, Verdict::Broken, finding, mend));
        }
    }
}

async fn database(check: &str, dsn: &str, findings: &mut Vec<Finding>) {
    let mend = "is `waangu up` running? its log folder has PostgreSQL's own log";
    findings.push(match in_time(version(dsn)).await {
        Ok(version) => Finding::fine(check, format!("PostgreSQL {version} answers")),
        Err(error) => Finding::bad(check, Verdict::Broken, error, mend),
    });
}

async fn version(dsn: &str) -> Result<String, String> {
    let connected = tokio_postgres::connect(dsn, NoTls).await;
    let (client, connection) = connected.map_err(|error| error.to_string())?;
    let asked = async {
        let row = client
            .query_one("select current_setting('server_version')", &[])
            .await?;
        row.try_get(0)
    };
    tokio::select! {
        version = asked => version.map_err(|error| error.to_string()),
        _ = connection => Err("the connection was closed".to_owned()),
    }
}

/// The databases of a server.
async fn databases(dsn: &str) -> Result<Vec<String>, String> {
    let connected = tokio_postgres::connect(dsn, NoTls).await;
    let (client, connection) = connected.map_err(|error| error.to_string())?;
    let asked = async {
        let rows = client.query("select datname from pg_database", &[]).await?;
        let names = rows.iter().map(|row| row.try_get(0));
        names.collect::<Result<Vec<String>, tokio_postgres::Error>>()
    };
    tokio::select! {
        names = asked => names.map_err(|error| error.to_string()),
        _ = connection => Err("the connection was closed".to_owned()),
    }
}

/// What hangs is broken, too.
async fn in_time<T, E: Display>(work: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_elapsed) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}
