//! The gateway's keys. No secret leaves the process here.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use time::OffsetDateTime;
use waangu_api::Problem;
use waangu_api::types::{KeyList, KeyView, RotateKeys, RotationView};
use waangu_identity::RingKey;
use waangu_kernel::{Fault, KeyKind, fault};
use waangu_registry::{Rotation, StoredReply, Tx};

use super::call::{Begun, Call, Change, reply, send};
use crate::keys::Keeper;
use crate::reply::{RawBody, Refusal};
use crate::server::App;

/// Where a caller can follow a rotation.
const LOCATION: &str = "/admin/v1/keys";

/// The gateway's keys and what is being replaced.
#[utoipa::path(get, path = "/keys", operation_id = "keys.list", tag = "keys",
    responses((status = 200, body = KeyList), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    _call: Call,
) -> Result<Json<KeyList>, Refusal> {
    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    Ok(Json(view(&tx, &app.keeper).await?))
}

/// Replaces keys of the gateway; the answer says what is under way. A rotation that is already under
/// way is joined.
#[utoipa::path(post, path = "/keys/rotations", operation_id = "keys.rotate", tag = "keys",
    request_body = RotateKeys,
    responses((status = 202, body = KeyList, headers(("Location" = String))),
        (status = "default", body = Problem)))]
pub(super) async fn rotate(
    State(app): State<Arc<App>>,
    call: Call,
    body: RawBody,
) -> Result<Response, Refusal> {
    let RotateKeys { kind } = body.parse()?;
    let kinds = kinds(&kind)?;
    let mut session = app.registry.session().await?;
    let stored = match Change::begin(&mut session, &call, &body.bytes).await? {
        Begun::Done(stored) => stored,
        Begun::Fresh(change) => {
            let mut wanted = Vec::new();
            for kind in kinds {
                if change.tx.want_rotation(kind, &call.actor).await? {
                    wanted.push(kind);
                }
            }
            let accepted = accepted(&view(&change.tx, &app.keeper).await?)?;
            let detail = json!({ "kind": kind, "begun": wanted });
            change
                .commit_global("key.rotate", &detail, accepted)
                .await?
        }
    };
    app.keeper.call();
    Ok(send(stored))
}

fn kinds(text: &str) -> Result<Vec<KeyKind>, Fault> {
    if text == "all" {
        return Ok(KeyKind::ALL.to_vec());
    }
    let kind = text.parse().map_err(|_unknown: Fault| {
        let excerpt = fault::excerpt(text);
        fault::INVALID_FIELD
            .fault(format!("`{excerpt}` is not one of context, proof, all"))
            .field("kind")
    })?;
    Ok(vec![kind])
}

fn accepted(list: &KeyList) -> Result<StoredReply, Fault> {
    reply(StatusCode::ACCEPTED, Some(LOCATION.to_owned()), list)
}

async fn view(tx: &Tx<'_>, keeper: &Keeper) -> Result<KeyList, Fault> {
    let problem = keeper.problem();
    let rotations = tx.list_rotations().await?.into_iter();
    let rotations = rotations.map(|wish| rotation(wish, problem.clone()));
    let ring = keeper.ring();
    let items = ring.keys().iter().map(key).collect::<Result<_, Fault>>()?;
    Ok(KeyList {
        items,
        rotations: rotations.collect(),
    })
}

fn key(key: &RingKey) -> Result<KeyView, Fault> {
    Ok(KeyView {
        id: key.id.clone(),
        kind: key.kind.to_string(),
        created: at(key.created)?,
        state: key.state.as_str().to_owned(),
        since: at(key.since)?,
    })
}

fn rotation(wish: Rotation, problem: Option<String>) -> RotationView {
    RotationView {
        id: wish.id.to_string(),
        kind: wish.kind.to_string(),
        wanted_by: wish.wanted_by,
        wanted_at: wish.wanted_at,
        problem,
    }
}

fn at(seconds: i64) -> Result<OffsetDateTime, Fault> {
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|error| {
        fault::INTERNAL
            .fault("a key's time is not one")
            .cause(error)
    })
}
