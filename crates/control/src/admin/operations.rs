//! `GET /operations/{id}` and its events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream, StreamExt as _};
use futures_util::try_join;
use tokio::time::Instant;
use waangu_api::Problem;
use waangu_api::types::{Accepted, OperationEventView, OperationView};
use waangu_kernel::{Fault, OperationId, Slug, TenantId, fault};
use waangu_registry::{Operation, OperationEvent, StoredReply};

use super::call::{Call, Change, reply, send};
use super::view;
use crate::reply::{Path, Refusal};
use crate::server::App;
use crate::steps::{Reached, Waiter};

/// Longest pause between two looks at an operation that somebody watches.
const LOOK: Duration = Duration::from_millis(200);

/// One operation; with `Prefer: wait=N`, answered when it is done or N seconds have passed.
#[utoipa::path(get, path = "/operations/{id}", operation_id = "operations.get", tag = "operations",
    params(("id" = String, Path)),
    responses((status = 200, body = OperationView), (status = "default", body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    call: Call,
    Path(id): Path<String>,
) -> Result<Json<OperationView>, Refusal> {
    let id = parse(&id)?;
    let operation = follow(&app, id, call.wait).await?;
    Ok(Json(view::operation(operation)))
}

/// An operation's events, as server-sent events; ends when the operation does. `Last-Event-ID`
/// continues where an earlier stream broke.
#[utoipa::path(get, path = "/operations/{id}/events", operation_id = "operations.events",
    tag = "operations", params(("id" = String, Path)),
    responses((status = 200, body = OperationEventView, content_type = "text/event-stream"),
              (status = "default", body = Problem)))]
pub(super) async fn events(
    State(app): State<Arc<App>>,
    _call: Call,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let id = parse(&id)?;
    let tenant = follow(&app, id, Duration::ZERO).await?.tenant_id;
    let after = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .unwrap_or(0);
    let watch = Watch {
        app,
        id,
        tenant,
        after,
        over: false,
    };
    let stream = stream::unfold(watch, Watch::next)
        .map(stream::iter)
        .flatten();
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()))
}

/// A reader of one operation's events.
struct Watch {
    app: Arc<App>,
    id: OperationId,
    tenant: TenantId,
    after: i32,
    over: bool,
}

impl Watch {
    /// The next batch of events, or the end.
    async fn next(mut self) -> Option<(Vec<Result<Event, Infallible>>, Self)> {
        while !self.over {
            let mut waiter = self.app.reconciler.progress.wait();
            let (events, done) = look(&self.app, self.id, self.after).await.ok()?;
            self.over = done;
            if let Some(last) = events.last() {
                self.after = last.seq;
                return Some((
                    events.into_iter().map(|event| Ok(sse(event))).collect(),
                    self,
                ));
            }
            if !done {
                let moved = waiter.until(self.tenant, Reached::Step);
                drop(tokio::time::timeout(LOOK, moved).await);
            }
        }
        None
    }
}

async fn look(
    app: &App,
    id: OperationId,
    after: i32,
) -> Result<(Vec<OperationEvent>, bool), Fault> {
    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    // The status first: events written between the two reads are then never cut off.
    let done = tx.get_operation(id).await?.status.is_final();
    Ok((tx.list_operation_events(id, after).await?, done))
}

fn sse(event: OperationEvent) -> Event {
    let OperationEvent {
        seq,
        at,
        step,
        percent,
        message,
    } = event;
    let view = OperationEventView {
        seq,
        at,
        step,
        percent,
        message,
    };
    let named = Event::default().id(seq.to_string()).event("progress");
    named.json_data(&view).unwrap_or_default()
}

/// Waits until the operation is done, at most so long, and returns it as it then is.
async fn follow(app: &App, id: OperationId, wait: Duration) -> Result<Operation, Fault> {
    let deadline = Instant::now() + wait;
    loop {
        let mut waiter = app.reconciler.progress.wait();
        let operation = app.registry.session().await?.get_operation(id).await?;
        let now = Instant::now();
        if operation.status.is_final() || now >= deadline {
            return Ok(operation);
        }
        let ended = waiter.until(operation.tenant_id, Reached::End);
        drop(tokio::time::timeout(LOOK.min(deadline - now), ended).await);
    }
}

/// Opens an operation for a generation, commits the change that it is for, and wakes the reconciler.
pub(super) async fn open(
    app: &App,
    change: Change<'_>,
    kind: &str,
    tenant: (TenantId, &Slug),
    generation: i64,
    detail: &serde_json::Value,
) -> Result<StoredReply, Fault> {
    let id = change
        .tx
        .create_operation(tenant.0, kind, generation)
        .await?;
    let (operation, now, regions) = try_join!(
        change.tx.get_operation(id),
        change.tx.get_tenant_by_id(tenant.0),
        change.tx.list_cell_regions(),
    )?;
    let accepted = view::accepted(operation, &now, &regions);
    let location = format!("/admin/v1/operations/{id}");
    let answer = reply(axum::http::StatusCode::ACCEPTED, Some(location), &accepted)?;
    let stored = change
        .commit(&format!("tenant.{kind}"), tenant, detail, answer)
        .await?;
    app.reconciler.work.notify_one();
    Ok(stored)
}

/// Sends the reply to a change that takes time, with the operation as it is after the caller's wait.
pub(super) async fn answer(
    app: &App,
    call: &Call,
    stored: StoredReply,
) -> Result<Response, Refusal> {
    let mut stored = stored;
    let accepted: Option<Accepted> = serde_json::from_value(stored.body.clone()).ok();
    if let Some(mut accepted) = accepted {
        let operation = follow(app, parse(&accepted.operation.id)?, call.wait).await?;
        accepted.operation = view::operation(operation);
        stored.body = reply(axum::http::StatusCode::ACCEPTED, None, &accepted)?.body;
    }
    Ok(send(stored))
}

/// Lets a change that has just been opened come to its end before anybody looks, within the caller's wait.
pub(super) async fn let_work(call: &Call, waiter: &mut Waiter, tenant: TenantId) {
    let ended = waiter.until(tenant, Reached::End);
    drop(tokio::time::timeout(LOOK.min(call.wait), ended).await);
}

fn parse(id: &str) -> Result<OperationId, Fault> {
    id.parse().map_err(|_not_an_id: Fault| {
        fault::OPERATION_NOT_FOUND.fault(format!("there is no operation `{}`", fault::excerpt(id)))
    })
}
