//! `GET` and `PUT /world`: the declared world; and profiles by themselves.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use waangu_api::Problem;
use waangu_api::types::List;
use waangu_api::world::{ApplyQuery, ProfileSpec, World, WorldDiff};
use waangu_kernel::fault;

use super::call::{Begun, Call, Change, reply, send};
use crate::reply::{RawBody, Refusal};
use crate::server::App;
use crate::world::{self, Here};

/// The world as the registry has it, in the form it is declared in.
#[utoipa::path(get, path = "/world", operation_id = "world.get", tag = "places",
    responses((status = 200, body = World), (status = "default", body = Problem)))]
pub(super) async fn get(State(app): State<Arc<App>>, _call: Call) -> Result<Json<World>, Refusal> {
    let mut session = app.registry.session().await?;
    Ok(Json(world::current(&session.begin().await?).await?))
}

/// Makes the world as declared, or says what that would change.
#[utoipa::path(put, path = "/world", operation_id = "world.put", tag = "places",
    params(ApplyQuery), request_body = World,
    responses((status = 200, body = WorldDiff), (status = "default", body = Problem)))]
pub(super) async fn put(
    State(app): State<Arc<App>>,
    call: Call,
    query: Result<Query<ApplyQuery>, axum::extract::rejection::QueryRejection>,
    body: RawBody,
) -> Result<Response, Refusal> {
    let Query(query) =
        query.map_err(|rejection| fault::INVALID_FIELD.fault(rejection.body_text()))?;
    let declared: World = body.parse()?;
    let here = Here {
        environment: &app.config.environment,
    };
    let mut session = app.registry.session().await?;
    let change = match Change::begin(&mut session, &call, &body.bytes).await? {
        Begun::Done(stored) => return Ok(send(stored)),
        Begun::Fresh(change) => change,
    };
    let diff = world::apply(&change.tx, here, &declared, &query).await?;
    let answer = reply(StatusCode::OK, None, &diff)?;
    if query.dry_run {
        // Dropped: what was written is taken back.
        return Ok(send(answer));
    }
    let done = |action: &&str| *action != "extra";
    if !diff
        .changes
        .iter()
        .map(|change| change.action.as_str())
        .any(|action| done(&action))
    {
        return Ok(send(change.finish(answer).await?));
    }
    let detail = json!({ "changes": diff.changes });
    Ok(send(
        change.commit_global("world.apply", &detail, answer).await?,
    ))
}

/// Sector blueprints.
#[utoipa::path(get, path = "/profiles", operation_id = "profiles.list", tag = "places",
    responses((status = 200, body = List<ProfileSpec>), (status = "default", body = Problem)))]
pub(super) async fn profiles(
    State(app): State<Arc<App>>,
    _call: Call,
) -> Result<Json<List<ProfileSpec>>, Refusal> {
    let mut session = app.registry.session().await?;
    let profiles = session.begin().await?.list_profiles().await?;
    Ok(Json(List {
        items: profiles.into_iter().map(world::profile_spec).collect(),
    }))
}
