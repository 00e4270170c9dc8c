//! `waangu doctor`: checks what the platform needs and what runs, and says how to mend each finding.
//!
//! Invariant: it only looks. Every finding that is not fine carries a sentence on what to do.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde::Serialize;
use tokio_postgres::NoTls;
use waangu_api::types::{CellView, List, ModuleView, TenantList};
use waangu_api::{Client, Ready};

use crate::cli::Global;
use crate::commands::ready;
use crate::failure::Failure;
use crate::output::print;

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

/// Runs all checks; fails if something is broken.
pub(crate) async fn run(global: &Global) -> Result<(), Failure> {
    let mut findings = Vec::new();
    state_folder(&global.state, &mut findings);
    match ready(global) {
        Ok(ready) => running(&ready, &mut findings).await,
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

async fn running(ready: &Ready, findings: &mut Vec<Finding>) {
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
    control(&admin, findings).await;
}

async fn gateway(ready: &Ready, admin: &Client, findings: &mut Vec<Finding>) {
    let log = "read log/gateway.log in the state folder";
    findings.push(
        match admin.at(&ready.gateway, None).probe("/healthz").await {
            Ok(()) => Finding::fine("gateway", format!("{} answers", ready.gateway)),
            Err(error) => Finding::bad("gateway", Verdict::Broken, error.to_string(), log),
        },
    );
    let path = "/.well-known/openid-configuration";
    findings.push(match admin.at(&ready.login, None).probe(path).await {
        Ok(()) => Finding::fine("directory", format!("{} answers", ready.login)),
        Err(error) => Finding::bad("directory", Verdict::Broken, error.to_string(), log),
    });
}

async fn control(admin: &Client, findings: &mut Vec<Finding>) {
    let log = "read log/control.log in the state folder";
    let cells: Result<List<CellView>, _> = admin.get("/cells").await;
    let cells = match cells {
        Ok(list) => list.items,
        Err(error) => {
            findings.push(Finding::bad(
                "admin API",
                Verdict::Broken,
                error.to_string(),
                log,
            ));
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
    let modules: Result<List<ModuleView>, _> = admin.get("/modules").await;
    for module in modules.map(|list| list.items).unwrap_or_default() {
        let finding = format!("{} {} is installed", module.id, module.version);
        findings.push(Finding::fine("module", finding));
    }
    let tenants: Result<TenantList, _> = admin.get("/tenants?limit=200").await;
    for tenant in tenants.map(|list| list.items).unwrap_or_default() {
        if let Some(error) = &tenant.last_error {
            let finding = format!("{}: {error}", tenant.slug);
            let mend = "the control plane tries again by itself; mend the cause it names";
            findings.push(Finding::bad("tenant", Verdict::Broken, finding, mend));
        }
    }
}

async fn database(check: &str, dsn: &str, findings: &mut Vec<Finding>) {
    let mend = "is `waangu up` running? its log folder has PostgreSQL's own log";
    findings.push(match version(dsn).await {
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
