//! Plans: what tenants subscribe to.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::ETAG;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use waangu_api::Problem;
use waangu_api::types::{List, PlanView, PutPlan};
use waangu_kernel::{Fault, PlanId, fault};
use waangu_registry::Plan;

use super::call::{Begun, Call, Change, reply};
use super::{create, entitlements};
use crate::reply::{Path, RawBody, Refusal};
use crate::server::App;

/// All plans.
#[utoipa::path(get, path = "/plans", operation_id = "plans.list", tag = "plans",
    responses((status = 200, body = List<PlanView>), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    _call: Call,
) -> Result<Json<List<PlanView>>, Refusal> {
    let mut session = app.registry.session().await?;
    let plans = session.begin().await?.list_plans().await?;
    Ok(Json(List {
        items: plans.into_iter().map(view).collect(),
    }))
}

/// One plan.
#[utoipa::path(get, path = "/plans/{id}", operation_id = "plans.get", tag = "plans",
    params(("id" = String, Path)),
    responses((status = 200, body = PlanView, headers(("ETag" = String))),
              (status = "default", body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    _call: Call,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let mut session = app.registry.session().await?;
    let plan = session.begin().await?.get_plan(&parse(&id)?).await?;
    Ok(tagged(plan.ok_or_else(|| unknown(&id))?))
}

/// Creates a plan, or replaces its title and values. Its tenants have the new ones within moments.
#[utoipa::path(put, path = "/plans/{id}", operation_id = "plans.put", tag = "plans",
    params(("id" = String, Path)), request_body = PutPlan,
    responses((status = 200, body = PlanView, headers(("ETag" = String))),
              (status = "default", body = Problem)))]
pub(super) async fn put(
    State(app): State<Arc<App>>,
    call: Call,
    Path(id): Path<String>,
    body: RawBody,
) -> Result<Response, Refusal> {
    let wish: PutPlan = body.parse()?;
    let id: PlanId = id
        .parse()
        .map_err(|fault: Fault| fault::INVALID_FIELD.fault(fault.to_string()).field("id"))?;
    for title in wish.title.values() {
        create::check_name(title.clone()).map_err(|fault| fault.field("title"))?;
    }
    let mut session = app.registry.session().await?;
    if let Begun::Fresh(change) = Change::begin(&mut session, &call, &body.bytes).await? {
        let before = change.tx.lock_plan(&id).await?;
        call.check_tag(&before.as_ref().map_or_else(String::new, etag))?;
        let catalogue = entitlements::catalogue(&change.tx).await?;
        entitlements::check_values(&catalogue, &wish.entitlements)?;
        change
            .tx
            .put_plan(&id, &wish.title, &wish.entitlements)
            .await?;
        let detail = json!({
            "plan": id,
            "before": before.map(|plan| plan.entitlements),
            "after": wish.entitlements,
        });
        let empty = reply(StatusCode::OK, None, &json!({}))?;
        change.commit_global("plan.put", &detail, empty).await?;
    }
    let plan = session.begin().await?.get_plan(&id).await?;
    Ok(tagged(plan.ok_or_else(|| unknown(id.as_str()))?))
}

/// Removes a plan that no live tenant has.
#[utoipa::path(delete, path = "/plans/{id}", operation_id = "plans.delete", tag = "plans",
    params(("id" = String, Path)),
    responses((status = 204), (status = "default", body = Problem)))]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    call: Call,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    let id = parse(&id)?;
    let mut session = app.registry.session().await?;
    if let Begun::Fresh(change) = Change::begin(&mut session, &call, &[]).await? {
        let plan = change.tx.lock_plan(&id).await?;
        let plan = plan.ok_or_else(|| unknown(id.as_str()))?;
        call.check_tag(&etag(&plan))?;
        change.tx.delete_plan(&id).await?;
        let detail = json!({ "plan": id, "before": plan.entitlements });
        let empty = reply(StatusCode::NO_CONTENT, None, &json!({}))?;
        change.commit_global("plan.delete", &detail, empty).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// A plan's id in a path: one that can't exist is a plan that does not.
fn parse(id: &str) -> Result<PlanId, Fault> {
    id.parse().map_err(|_fault: Fault| unknown(id))
}

fn unknown(id: &str) -> Fault {
    fault::PLAN_NOT_FOUND.fault(format!("there is no plan `{}`", fault::excerpt(id)))
}

fn etag(plan: &Plan) -> String {
    format!("\"p{}\"", plan.revision)
}

fn tagged(plan: Plan) -> Response {
    ([(ETAG, etag(&plan))], Json(view(plan))).into_response()
}

fn view(plan: Plan) -> PlanView {
    let Plan {
        id,
        title,
        entitlements,
        revision: _,
        tenants,
    } = plan;
    PlanView {
        id: id.into(),
        title,
        entitlements,
        tenants,
    }
}
