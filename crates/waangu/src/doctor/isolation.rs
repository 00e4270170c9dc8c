//! `waangu doctor isolation`: every database of every cell against the uniform rules.

use serde::Serialize;
use tokio_postgres::Config;
use tokio_postgres::config::Host;
use waangu_api::ready::ReadyCell;
use waangu_registry::Registry;
use waangu_tenancy::{CellAdmin, CellAdminConfig, Rules};

use crate::cli::Global;
use crate::commands::ready;
use crate::failure::{Failure, Of as _};
use crate::output::print;

/// One line of the answer: a database that is as it should be, or a drift.
#[derive(Debug, Serialize)]
struct Line {
    verdict: &'static str,
    cell: String,
    database: String,
    object: String,
    found: String,
    mend: String,
}

pub(super) async fn run(global: &Global) -> Result<(), Failure> {
    let ready = ready(global)?;
    let registry = Registry::new(&ready.control_dsn, 1)?;
    let mut session = registry.session().await?;
    let modules = session.begin().await?.list_manifests_in_use().await?;
    let rules = Rules::new(modules.iter().map(|module| &module.manifest));
    let mut lines = Vec::new();
    for cell in &ready.cells {
        for inspected in admin(cell)?.inspect(&rules).await? {
            let line = |verdict| Line {
                verdict,
                cell: cell.id.clone(),
                database: inspected.database.clone(),
                object: String::new(),
                found: String::new(),
                mend: String::new(),
            };
            if inspected.drifts.is_empty() {
                lines.push(line("fine"));
            }
            lines.extend(inspected.drifts.iter().map(|drift| Line {
                object: drift.object.clone(),
                found: drift.found.clone(),
                mend: drift.mend.to_string(),
                ..line("drift")
            }));
        }
    }
    show(global, &lines)
}

fn show(global: &Global, lines: &[Line]) -> Result<(), Failure> {
    let rows = lines
        .iter()
        .map(|line| {
            vec![
                line.verdict.to_owned(),
                line.cell.clone(),
                line.database.clone(),
                line.object.clone(),
                line.found.clone(),
                line.mend.clone(),
            ]
        })
        .collect();
    let header = [
        "",
        "cell",
        "database",
        "object",
        "finding",
        "what to do there",
    ];
    print(global.output, &lines, &header, rows)?;
    let drifts = lines.iter().filter(|line| line.verdict == "drift").count();
    if drifts == 0 {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "{drifts} departures from the rules that keep tenants apart"
    )))
}

/// The cell, as the administrator whom the ready file names.
fn admin(cell: &ReadyCell) -> Result<CellAdmin, Failure> {
    let config: Config = cell.superuser_dsn.parse().of(&cell.id)?;
    let (Some(Host::Tcp(host)), [port, ..]) = (config.get_hosts().first(), config.get_ports())
    else {
        return Err(Failure::failed(format!("cell {}: no address", cell.id)));
    };
    let password = String::from_utf8_lossy(config.get_password().unwrap_or_default());
    Ok(CellAdmin::new(CellAdminConfig {
        id: cell.id.parse()?,
        host: host.clone(),
        port: *port,
        user: config.get_user().unwrap_or_default().to_owned(),
        password: password.into_owned(),
    }))
}
