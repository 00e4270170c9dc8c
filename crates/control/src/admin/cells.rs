//! PostgreSQL servers: list, show, add, drain, activate.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use waangu_api::Problem;
use waangu_api::places::{CellUsageView, DrainTenant, DrainView};
use waangu_api::types::{CellView, List};
use waangu_api::world::{ApplyQuery, CellSpec, WORLD_VERSION, World};
use waangu_kernel::{Fault, fault};
use waangu_registry::{Cell, CellState, StoredReply, Tenant, Tx};

use super::call::{Begun, Call, Change, reply, send};
use super::relocations::target::Wish;
use crate::config::Config;
use crate::reply::{Path, RawBody, Refusal};
use crate::server::App;
use crate::world::{self, Here};

/// Tenants that an answer about draining names.
const DRAIN_PAGE: i64 = 200;

/// PostgreSQL servers.
#[utoipa::path(get, path = "/cells", operation_id = "cells.list", tag = "places",
    responses((status = 200, body = List<CellView>), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    _call: Call,
) -> Result<Json<List<CellView>>, Refusal> {
    let mut session = app.registry.session().await?;
    let cells = session.begin().await?.list_cells().await?;
    Ok(Json(List {
        items: cells
            .into_iter()
            .map(|cell| view(&app.config, cell))
            .collect(),
    }))
}

/// One of them.
#[utoipa::path(get, path = "/cells/{id}", operation_id = "cells.get", tag = "places",
    params(("id" = String, Path)),
    responses((status = 200, body = CellView), (status = "default", body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    _call: Call,
    Path(id): Path<String>,
) -> Result<Json<CellView>, Refusal> {
    let mut session = app.registry.session().await?;
    let cell = find(&session.begin().await?, &id).await?;
    Ok(Json(view(&app.config, cell)))
}

/// Declares one more. It takes tenants once its administrator's login is configured.
#[utoipa::path(post, path = "/cells", operation_id = "cells.create", tag = "places",
    request_body = CellSpec,
    responses((status = 201, body = CellView, headers(("Location" = String))),
              (status = "default", body = Problem)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    call: Call,
    body: RawBody,
) -> Result<Response, Refusal> {
    let spec: CellSpec = body.parse()?;
    let mut session = app.registry.session().await?;
    let change = match Change::begin(&mut session, &call, &body.bytes).await? {
        Begun::Done(stored) => return Ok(send(stored)),
        Begun::Fresh(change) => change,
    };
    let id = spec.id.clone();
    if find(&change.tx, &id).await.is_ok() {
        return Err(fault::CELL_EXISTS
            .fault(format!("cell `{id}` exists"))
            .field("id")
            .into());
    }
    let detail = json!({ "cell": spec });
    let declared = World {
        version: WORLD_VERSION,
        cells: vec![spec],
        ..World::default()
    };
    let here = Here {
        environment: &app.config.environment,
    };
    world::apply(&change.tx, here, &declared, &ApplyQuery::default())
        .await
        .map_err(|fault| own_field(fault, &id))?;
    let view = view(&app.config, find(&change.tx, &id).await?);
    let location = format!("/admin/v1/cells/{id}");
    let answer = reply(StatusCode::CREATED, Some(location), &view)?;
    Ok(send(
        change.commit_global("cell.create", &detail, answer).await?,
    ))
}

/// Of `cells.<id>.<field>`, the field: here the body is the cell.
fn own_field(fault: Fault, id: &str) -> Fault {
    let prefix = format!("cells.{}.", fault::excerpt(id));
    match fault
        .field_name()
        .and_then(|name| name.strip_prefix(&prefix))
    {
        Some(field) => {
            let field = field.to_owned();
            fault.field(field)
        }
        None => fault,
    }
}

/// Places nobody there any more, and moves who is there to where a new tenant would go; says of each where
/// that is, or why nowhere. Called again, it tries again with those that remain.
#[utoipa::path(post, path = "/cells/{id}/drain", operation_id = "cells.drain", tag = "places",
    params(("id" = String, Path)),
    responses((status = 200, body = DrainView), (status = "default", body = Problem)))]
pub(super) async fn drain(
    State(app): State<Arc<App>>,
    call: Call,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let mut session = app.registry.session().await?;
    match change(&mut session, &call, &id, CellState::Draining).await? {
        Begun::Done(stored) => Ok(send(stored)),
        Begun::Fresh(change) => {
            let left = move_out(&app, &change.tx, &id, &call.actor).await?;
            app.reconciler.stock.notify_one();
            let sent = send(finish(change, &id, CellState::Draining, &left).await?);
            app.reconciler.moves.notify_one();
            Ok(sent)
        }
    }
}

/// Places tenants there again.
#[utoipa::path(post, path = "/cells/{id}/activate", operation_id = "cells.activate", tag = "places",
    params(("id" = String, Path)),
    responses((status = 200, body = CellView), (status = "default", body = Problem)))]
pub(super) async fn activate(
    State(app): State<Arc<App>>,
    call: Call,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let mut session = app.registry.session().await?;
    match change(&mut session, &call, &id, CellState::Active).await? {
        Begun::Done(stored) => Ok(send(stored)),
        Begun::Fresh(change) => {
            let body = view(&app.config, find(&change.tx, &id).await?);
            let stored = finish(change, &id, CellState::Active, &body).await?;
            app.reconciler.stock.notify_one();
            Ok(send(stored))
        }
    }
}

/// Begins a change of a cell's state. Creations under way are waited for, so that afterwards nobody
/// comes who is not listed.
async fn change<'a>(
    session: &'a mut waangu_registry::Session,
    call: &'a Call,
    id: &str,
    state: CellState,
) -> Result<Begun<'a>, Fault> {
    let begun = Change::begin(session, call, &[]).await?;
    if let Begun::Fresh(change) = &begun {
        change
            .tx
            .lock_placement(waangu_registry::Hold::Exclusive)
            .await?;
        let found = find(&change.tx, id).await?;
        change.tx.set_cell_state(&found.id, state).await?;
    }
    Ok(begun)
}

async fn finish<T: serde::Serialize>(
    change: Change<'_>,
    id: &str,
    state: CellState,
    body: &T,
) -> Result<StoredReply, Fault> {
    let answer = reply(StatusCode::OK, None, body)?;
    let detail = json!({ "cell": id, "state": state.as_str() });
    change.commit_global("cell.state", &detail, answer).await
}

/// Wants a move for everybody who can go somewhere.
async fn move_out(app: &App, tx: &Tx<'_>, id: &str, actor: &str) -> Result<DrainView, Fault> {
    let cell = find(tx, id).await?;
    let mut tenants = Vec::new();
    for tenant in tx.list_cell_tenants(&cell.id, DRAIN_PAGE).await? {
        tenants.push(way_out(app, tx, tenant, actor).await?);
    }
    Ok(DrainView {
        remaining: tx.count_cell_tenants(&cell.id).await?,
        cell: view(&app.config, cell),
        tenants,
    })
}

/// A move that is on its way already counts, wherever it goes.
async fn way_out(
    app: &App,
    tx: &Tx<'_>,
    tenant: Tenant,
    actor: &str,
) -> Result<DrainTenant, Fault> {
    let mut out = DrainTenant {
        tier: tenant.placement.tier.to_string(),
        tenant: tenant.slug.clone().into(),
        target: None,
        relocation: None,
        reasons: Vec::new(),
    };
    let why = format!("cell {} is being emptied", tenant.placement.cell);
    let last = tx.list_relocations(Some(tenant.id), 1).await?.pop();
    let open = last.filter(|last| !last.phase.is_over());
    let moved = match open {
        Some(open) => Ok((open.id, open.to.cell, open.reasons)),
        None => match Wish::away(why).choose(app, tx, &tenant, actor).await {
            Ok(new) => {
                let id = tx.create_relocation(&new).await?;
                Ok((id, new.to.cell, new.reasons))
            }
            Err(refused) if refused.status() < 500 => Err(refused),
            Err(broken) => return Err(broken),
        },
    };
    match moved {
        Ok((id, target, reasons)) => {
            out.relocation = Some(id.to_string());
            out.target = Some(target.into());
            out.reasons = reasons;
        }
        Err(refused) => out.reasons = vec![refused.to_string()],
    }
    Ok(out)
}

async fn find(tx: &Tx<'_>, id: &str) -> Result<Cell, Fault> {
    let cells = tx.list_cells().await?;
    let found = cells.into_iter().find(|cell| cell.id.as_str() == id);
    found.ok_or_else(|| {
        fault::CELL_NOT_FOUND.fault(format!("there is no cell `{}`", fault::excerpt(id)))
    })
}

/// A cell for the wire.
fn view(config: &Config, cell: Cell) -> CellView {
    CellView {
        configured: config.own_cells().contains(&cell.id),
        id: cell.id.into(),
        region: cell.region.into(),
        environment: cell.environment,
        state: cell.state.as_str().to_owned(),
        sla: cell.sla.to_string(),
        capacity: cell.capacity,
        capacity_bytes: cell.capacity_bytes,
        capacity_connections: cell.capacity_connections,
        bucket_limit: cell.bucket_limit,
        tenants: cell.tenants,
        usage: cell.usage.map(|usage| CellUsageView {
            measured_at: usage.measured_at,
            bytes: usage.bytes,
            connections: usage.connections,
        }),
    }
}
