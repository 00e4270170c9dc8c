//! `/fleet/repairs`: looks at all cells for what has drifted.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use waangu_api::Problem;
use waangu_api::fleet::{FindingView, RepairView, StartRepair};
use waangu_kernel::{Fault, RepairId, fault};
use waangu_registry::{Finding, Repair, Tx};

use super::call::{Begun, Call, Change, reply, send};
use crate::reply::{Path, RawBody, Refusal};
use crate::server::App;

/// Compares all cells with what is wanted, and mends what loses nothing.
#[utoipa::path(post, path = "/fleet/repairs", operation_id = "repairs.create", tag = "fleet",
    request_body = StartRepair,
    responses((status = 202, body = RepairView, headers(("Location" = String))),
              (status = "default", body = Problem)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    call: Call,
    body: RawBody,
) -> Result<Response, Refusal> {
    let wish = body.parse::<StartRepair>()?;
    let mut session = app.registry.session().await?;
    let change = match Change::begin(&mut session, &call, &body.bytes).await? {
        Begun::Done(stored) => return Ok(send(stored)),
        Begun::Fresh(change) => change,
    };
    let repair = change.tx.create_repair(&call.actor, wish.dry_run).await?;
    let id = repair.id;
    let view = view(&change.tx, repair).await?;
    let location = format!("/admin/v1/fleet/repairs/{id}");
    let answer = reply(StatusCode::ACCEPTED, Some(location), &view)?;
    let detail = json!({ "repair": id, "dry_run": wish.dry_run });
    let stored = change
        .commit_global("repair.create", &detail, answer)
        .await?;
    app.reconciler.repair.notify_one();
    Ok(send(stored))
}

/// One repair, with what it has found.
#[utoipa::path(get, path = "/fleet/repairs/{id}", operation_id = "repairs.get", tag = "fleet",
    params(("id" = String, Path)),
    responses((status = 200, body = RepairView), (status = "default", body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    _call: Call,
    Path(id): Path<String>,
) -> Result<Json<RepairView>, Refusal> {
    let id: RepairId = id.parse().map_err(|_not_an_id: Fault| {
        fault::REPAIR_NOT_FOUND.fault(format!("there is no repair `{}`", fault::excerpt(&id)))
    })?;
    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    let repair = tx.get_repair(id).await?;
    Ok(Json(view(&tx, repair).await?))
}

/// A repair with its findings.
pub(super) async fn view(tx: &Tx<'_>, repair: Repair) -> Result<RepairView, Fault> {
    let findings = tx.list_findings(repair.id).await?;
    Ok(RepairView {
        id: repair.id.to_string(),
        state: repair.state,
        dry_run: repair.dry_run,
        actor: repair.actor,
        created_at: repair.created_at,
        finished_at: repair.finished_at,
        summary: repair.summary,
        findings: findings.into_iter().map(finding).collect(),
        error: repair.error,
    })
}

fn finding(finding: Finding) -> FindingView {
    FindingView {
        cell: finding.cell.to_string(),
        database: finding.database,
        object: finding.object,
        found: finding.found,
        mend: finding.mend,
        mended: finding.mended,
    }
}
