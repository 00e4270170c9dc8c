//! `waangu cell`: the PostgreSQL servers that hold tenants.

use http::Method;
use serde_json::json;
use waangu_api::places::DrainView;
use waangu_api::types::{CellView, List};
use waangu_api::world::CellSpec;

use super::{admin, segment};
use crate::cli::{CellAdd, CellCommand, Global};
use crate::failure::Failure;
use crate::output::{print, talk};

pub(crate) async fn cell(global: &Global, command: CellCommand) -> Result<(), Failure> {
    match command {
        CellCommand::List => {
            let list: List<CellView> = admin(global)?.get("/cells").await?;
            print_cells(global, &list.items)
        }
        CellCommand::Show { id } => {
            let path = format!("/cells/{}", segment(&id)?);
            let cell: CellView = admin(global)?.get(&path).await?;
            print_cell(global, &cell)
        }
        CellCommand::Add(wish) => add(global, wish).await,
        CellCommand::Drain { id } => drain(global, &id).await,
        CellCommand::Activate { id } => {
            let path = format!("/cells/{}/activate", segment(&id)?);
            let cell: CellView = admin(global)?
                .send_json(Method::POST, &path, &json!({}), None)
                .await?;
            print_cell(global, &cell)
        }
    }
}

async fn add(global: &Global, wish: CellAdd) -> Result<(), Failure> {
    let spec = CellSpec {
        id: wish.id,
        region: wish.region,
        sla: wish.sla,
        capacity: wish.capacity,
        capacity_bytes: wish.capacity_bytes,
        capacity_connections: wish.capacity_connections,
        bucket_limit: wish.bucket_limit,
        environment: None,
        state: None,
        host: wish.host,
        port: wish.port,
    };
    let cell: CellView = admin(global)?
        .send_json(Method::POST, "/cells", &spec, None)
        .await?;
    if !cell.configured {
        talk(&format!(
            "cell {} is declared and takes no tenants yet: its administrator's login has to be in the \
             control plane's configuration, its modules' logins in theirs. On a platform of \
             `waangu up`, add it to fleet/cells.toml in the state folder and start again",
            cell.id
        ));
    }
    print_cell(global, &cell)
}

async fn drain(global: &Global, id: &str) -> Result<(), Failure> {
    let path = format!("/cells/{}/drain", segment(id)?);
    let drain: DrainView = admin(global)?
        .send_json(Method::POST, &path, &json!({}), None)
        .await?;
    let rows = drain
        .tenants
        .iter()
        .map(|tenant| {
            vec![
                tenant.tenant.clone(),
                tenant.tier.clone(),
                tenant
                    .target
                    .clone()
                    .unwrap_or_else(|| "nowhere".to_owned()),
                tenant.relocation.clone().unwrap_or_default(),
                tenant.reasons.join("\n"),
            ]
        })
        .collect();
    let header = ["tenant", "tier", "goes to", "move", "because"];
    print(global.output, &drain, &header, rows)?;
    if drain.remaining == 0 {
        talk(&format!("cell {id} is empty and takes nobody any more"));
        return Ok(());
    }
    let moving = drain.tenants.iter().filter(|one| one.relocation.is_some());
    if moving.count() == drain.tenants.len() {
        talk(&format!(
            "{} tenants are on their way out; `waangu tenant moves` shows how far they are",
            drain.remaining
        ));
        return Ok(());
    }
    Err(Failure::refused(format!(
        "{} tenants remain on {id}, and not all of them can go; it takes nobody new",
        drain.remaining
    )))
}

fn print_cells(global: &Global, cells: &[CellView]) -> Result<(), Failure> {
    let rows = cells
        .iter()
        .map(|cell| {
            vec![
                cell.id.clone(),
                cell.region.clone(),
                cell.environment.clone(),
                state(cell),
                format!("{} of {}", cell.tenants, cell.capacity),
                bytes(cell),
                connections(cell),
            ]
        })
        .collect();
    let header = [
        "cell",
        "region",
        "environment",
        "state",
        "tenants",
        "data",
        "connections",
    ];
    print(global.output, &cells, &header, rows)
}

fn print_cell(global: &Global, cell: &CellView) -> Result<(), Failure> {
    let rows = [
        ("cell", cell.id.clone()),
        ("region", cell.region.clone()),
        ("environment", cell.environment.clone()),
        ("state", state(cell)),
        ("service level", cell.sla.clone()),
        ("tenants", format!("{} of {}", cell.tenants, cell.capacity)),
        ("data", bytes(cell)),
        ("connections", connections(cell)),
        (
            "tenants in a schema-tier database",
            format!("at most {}", cell.bucket_limit),
        ),
    ];
    let rows = rows
        .map(|(name, value)| vec![name.to_owned(), value])
        .to_vec();
    print(global.output, cell, &["", "value"], rows)
}

fn state(cell: &CellView) -> String {
    let note = if cell.configured {
        ""
    } else {
        ", not configured here"
    };
    format!("{}{note}", cell.state)
}

fn bytes(cell: &CellView) -> String {
    let megabytes = |bytes: i64| format!("{} MB", bytes / 1_000_000);
    let held = cell.usage.as_ref().map(|usage| megabytes(usage.bytes));
    of(held, cell.capacity_bytes.map(megabytes))
}

fn connections(cell: &CellView) -> String {
    let held = cell
        .usage
        .as_ref()
        .map(|usage| usage.connections.to_string());
    of(held, cell.capacity_connections.map(|most| most.to_string()))
}

fn of(held: Option<String>, most: Option<String>) -> String {
    let held = held.unwrap_or_else(|| "not measured".to_owned());
    match most {
        Some(most) => format!("{held} of {most}"),
        None => held,
    }
}
