//! `/tenants/{slug}/relocations`: moves of a tenant to another place.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::response::sse::{Event, Sse};
use futures_util::stream::Stream;
use serde_json::json;
use time::OffsetDateTime;
use waangu_api::Problem;
use waangu_api::relocation::{
    PlaceView, RelocationEventView, RelocationView, StartRelocation, WayBackView,
};
use waangu_api::types::List;
use waangu_kernel::{Fault, Placement, RelocationId, TenantId, fault};
use waangu_registry::{Phase, Relocation, Tenant, Tx};

use super::call::{Begun, Call, Change, reply, send};
use super::tenants;
use super::watch::watch;
use crate::reply::{Path, RawBody, Refusal};
use crate::server::App;

pub(super) mod checks;
pub(super) mod target;

pub(crate) use target::Wish;

/// Moves in a list.
const LIST: i64 = 50;

/// Pause between two looks at a move that somebody watches.
const LOOK: Duration = Duration::from_millis(250);

/// Moves a tenant to another tier, cell or region while it works. With `dry_run`, answers plan, checks and
/// an estimate.
#[utoipa::path(post, path = "/tenants/{slug}/relocations", operation_id = "relocations.create",
    tag = "relocations", params(("slug" = String, Path)), request_body = StartRelocation,
    responses((status = 202, body = RelocationView, headers(("Location" = String))),
              (status = 200, body = RelocationView, description = "What would be done"),
              (status = "default", body = Problem)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    call: Call,
    Path(slug): Path<String>,
    body: RawBody,
) -> Result<Response, Refusal> {
    let body_wish = body.parse::<StartRelocation>()?;
    let dry_run = body_wish.dry_run;
    let wish = Wish::parse(body_wish)?;
    let slug = tenants::parse(&slug)?;
    let mut session = app.registry.session().await?;
    let change = match Change::begin(&mut session, &call, &body.bytes).await? {
        Begun::Done(stored) => return Ok(send(stored)),
        Begun::Fresh(change) => change,
    };
    let tenant = change.tx.lock_tenant(&slug).await?;
    let new = wish.choose(&app, &change.tx, &tenant, &call.actor).await?;
    if dry_run {
        drop(change);
        let mut session = app.registry.session().await?;
        let tx = session.begin().await?;
        let draft = checks::draft(&app, &tx, &tenant, &new).await?;
        return Ok(send(reply(StatusCode::OK, None, &draft)?));
    }
    let id = change.tx.create_relocation(&new).await?;
    let stored = change.tx.get_relocation(id).await?;
    let view = view(&change.tx, stored, app.clock.now()).await?;
    let location = format!("/admin/v1/tenants/{slug}/relocations/{id}");
    let answer = reply(StatusCode::ACCEPTED, Some(location), &view)?;
    let detail = json!({ "relocation": id, "from": new.from, "to": new.to, "why": new.why });
    let stored = change
        .commit("tenant.move", (tenant.id, &slug), &detail, answer)
        .await?;
    app.reconciler.moves.notify_one();
    Ok(send(stored))
}

/// A tenant's newest moves.
#[utoipa::path(get, path = "/tenants/{slug}/relocations", operation_id = "relocations.list",
    tag = "relocations", params(("slug" = String, Path)),
    responses((status = 200, body = List<RelocationView>), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    _call: Call,
    Path(slug): Path<String>,
) -> Result<Json<List<RelocationView>>, Refusal> {
    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    let tenant = tx.get_tenant(&tenants::parse(&slug)?).await?;
    Ok(Json(views(&app, &tx, Some(tenant.id)).await?))
}

/// The newest moves of all tenants.
#[utoipa::path(get, path = "/relocations", operation_id = "relocations.all", tag = "relocations",
    responses((status = 200, body = List<RelocationView>), (status = "default", body = Problem)))]
pub(super) async fn all(
    State(app): State<Arc<App>>,
    _call: Call,
) -> Result<Json<List<RelocationView>>, Refusal> {
    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    Ok(Json(views(&app, &tx, None).await?))
}

/// One move.
#[utoipa::path(get, path = "/tenants/{slug}/relocations/{id}", operation_id = "relocations.get",
    tag = "relocations", params(("slug" = String, Path), ("id" = String, Path)),
    responses((status = 200, body = RelocationView), (status = "default", body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    _call: Call,
    Path((slug, id)): Path<(String, String)>,
) -> Result<Json<RelocationView>, Refusal> {
    Ok(Json(look(&app, &slug, parse(&id)?).await?))
}

/// A move as it goes on, as server-sent events: the whole of it whenever something has changed. Ends when
/// the move does.
#[utoipa::path(get, path = "/tenants/{slug}/relocations/{id}/events",
    operation_id = "relocations.events", tag = "relocations",
    params(("slug" = String, Path), ("id" = String, Path)),
    responses((status = 200, body = RelocationView, content_type = "text/event-stream"),
              (status = "default", body = Problem)))]
pub(super) async fn events(
    State(app): State<Arc<App>>,
    _call: Call,
    Path((slug, id)): Path<(String, String)>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let id = parse(&id)?;
    let first = look(&app, &slug, id).await?;
    let again = move || {
        let (app, slug) = (Arc::clone(&app), slug.clone());
        async move { look(&app, &slug, id).await }
    };
    Ok(watch(
        "relocation",
        LOOK,
        first,
        again,
        RelocationView::is_over,
    ))
}

/// Undoes a move that is not behind its commit point.
#[utoipa::path(post, path = "/tenants/{slug}/relocations/{id}/cancel",
    operation_id = "relocations.cancel", tag = "relocations",
    params(("slug" = String, Path), ("id" = String, Path)),
    responses((status = 202, body = RelocationView), (status = "default", body = Problem)))]
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    call: Call,
    Path((slug, id)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let id = parse(&id)?;
    let slug = tenants::parse(&slug)?;
    let mut session = app.registry.session().await?;
    let change = match Change::begin(&mut session, &call, &[]).await? {
        Begun::Done(stored) => return Ok(send(stored)),
        Begun::Fresh(change) => change,
    };
    let moved = change.tx.lock_relocation(id).await?;
    if moved.slug != slug {
        return Err(unknown(&id.to_string()).into());
    }
    if moved.phase.is_over() || moved.phase.is_past_commit() {
        let detail = format!("the move is {}", moved.phase.as_str());
        return Err(fault::RELOCATION_PAST.fault(detail).into());
    }
    change.tx.cancel_relocation(id).await?;
    let told = format!("to be undone, says {}", call.actor);
    change.tx.tell_relocation(id, &told).await?;
    let stored = change.tx.get_relocation(id).await?;
    let view = view(&change.tx, stored, app.clock.now()).await?;
    let answer = reply(StatusCode::ACCEPTED, None, &view)?;
    let detail = json!({ "relocation": id });
    let stored = change
        .commit("tenant.move.cancel", (moved.tenant, &slug), &detail, answer)
        .await?;
    app.reconciler.moves.notify_one();
    Ok(send(stored))
}

async fn look(app: &App, slug: &str, id: RelocationId) -> Result<RelocationView, Fault> {
    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    let moved = tx.get_relocation(id).await?;
    if moved.slug.as_str() != slug {
        return Err(unknown(&id.to_string()));
    }
    view(&tx, moved, app.clock.now()).await
}

async fn views(
    app: &App,
    tx: &Tx<'_>,
    tenant: Option<TenantId>,
) -> Result<List<RelocationView>, Fault> {
    let mut items = Vec::new();
    for moved in tx.list_relocations(tenant, LIST).await? {
        items.push(view(tx, moved, app.clock.now()).await?);
    }
    Ok(List { items })
}

/// A move with all that is known of it.
async fn view(
    tx: &Tx<'_>,
    moved: Relocation,
    now: OffsetDateTime,
) -> Result<RelocationView, Fault> {
    let trail = tx.list_relocation_events(moved.id).await?;
    let trail = trail.into_iter().map(|event| RelocationEventView {
        at: event.at,
        phase: event.phase,
        message: event.message,
    });
    let way_back = way_back(&moved, now);
    Ok(RelocationView {
        id: Some(moved.id.to_string()),
        from: place(&moved.from, moved.tenant),
        to: place(&moved.to, moved.tenant),
        eta_seconds: estimate(&moved, now),
        tenant: moved.slug.into(),
        phase: moved.phase.as_str().to_owned(),
        reasons: moved.reasons,
        why: moved.why,
        actor: moved.actor,
        max_pause_ms: moved.max_pause_ms,
        rate: moved.rate,
        cancel_wanted: moved.cancel_wanted,
        table: moved.figures.table,
        rows: moved.figures.rows,
        bytes: moved.figures.bytes,
        total_bytes: moved.figures.total_bytes,
        lag_bytes: moved.figures.lag_bytes,
        pause_ms: moved.figures.pause_us.map(milliseconds),
        attempts: moved.attempts,
        error: moved.error,
        checks: Vec::new(),
        trail: trail.collect(),
        created_at: Some(moved.created_at),
        started_at: moved.started_at,
        switched_at: moved.switched_at,
        finished_at: moved.finished_at,
        clean_at: moved.clean_at,
        cleaned_at: moved.cleaned_at,
        adopted: moved.adopted,
        way_back,
    })
}

/// What a move back would be, while there is something to go back to.
fn way_back(moved: &Relocation, now: OffsetDateTime) -> Option<WayBackView> {
    let until = moved.clean_at.filter(|until| *until > now)?;
    if moved.cleaned_at.is_some() {
        return None;
    }
    let brings = if moved.way_back { "changes" } else { "copy" };
    Some(WayBackView {
        brings: brings.to_owned(),
        held_bytes: moved.held_bytes,
        until,
    })
}

/// Seconds until the rows are copied, if the pace so far goes on.
fn estimate(moved: &Relocation, now: OffsetDateTime) -> Option<f64> {
    if moved.phase != Phase::Copying || moved.figures.bytes <= 0 {
        return None;
    }
    let total = moved.figures.total_bytes?;
    let left = u32::try_from((total - moved.figures.bytes).max(0) / 1024).ok()?;
    let done = u32::try_from(moved.figures.bytes / 1024).ok()?;
    let spent = now - moved.started_at?;
    Some(spent.as_seconds_f64() * f64::from(left) / f64::from(done.max(1)))
}

fn milliseconds(micros: i64) -> f64 {
    i32::try_from(micros).map_or(f64::MAX, |micros| f64::from(micros) / 1000.0)
}

/// A place for the wire.
pub(super) fn place(placement: &Placement, tenant: TenantId) -> PlaceView {
    PlaceView {
        cell: placement.cell.to_string(),
        tier: placement.tier.to_string(),
        database: placement.database(tenant),
    }
}

/// Refuses a tenant whose place is being made or removed. A suspended one moves, and stays suspended.
pub(super) fn check_settled(tenant: &Tenant) -> Result<(), Fault> {
    use waangu_registry::{Desired, State as Reached};
    match (tenant.desired, tenant.state) {
        (Desired::Active | Desired::Suspended, Reached::Active | Reached::Suspended) => Ok(()),
        _ => Err(fault::RELOCATION_REFUSED.fault(format!(
            "tenant `{}` is {}; only one that has a place can be moved",
            tenant.slug,
            tenant.state.as_str()
        ))),
    }
}

fn parse(id: &str) -> Result<RelocationId, Fault> {
    id.parse().map_err(|_not_an_id: Fault| unknown(id))
}

fn unknown(id: &str) -> Fault {
    fault::RELOCATION_NOT_FOUND.fault(format!("the tenant has no move `{}`", fault::excerpt(id)))
}
