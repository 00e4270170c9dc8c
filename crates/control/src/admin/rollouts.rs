//! `/rollouts`: a module's package on its way to every namespace.

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
use waangu_api::Problem;
use waangu_api::fleet::{FailureView, RolloutEventView, RolloutView, StartRollout, WaveView};
use waangu_api::types::List;
use waangu_kernel::{Fault, RolloutId, Slug, fault};
use waangu_registry::{Rollout, RolloutState, StoredReply, Tx, WaveCount};

use super::call::{Begun, Call, Change, reply, send};
use super::watch::watch;
use super::{create, tenants};
use crate::fleet::{Draft, waves};
use crate::reply::{Path, RawBody, Refusal};
use crate::server::App;

/// Rollouts in a list.
const LIST: i64 = 50;

/// Failed namespaces in a view.
const FAILURES: i64 = 100;

/// The pace is that of the last seconds.
const PACE_SECONDS: f64 = 15.0;

/// Pause between two looks at a rollout that somebody watches.
const LOOK: Duration = Duration::from_millis(400);

/// Most canaries.
const MOST_CANARIES: usize = 100;

/// Begins a rollout. One of an older package of the same module gives way.
#[utoipa::path(post, path = "/rollouts", operation_id = "rollouts.create", tag = "fleet",
    request_body = StartRollout,
    responses((status = 202, body = RolloutView, headers(("Location" = String))),
              (status = 200, body = RolloutView, description = "What would be done"),
              (status = "default", body = Problem)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    call: Call,
    body: RawBody,
) -> Result<Response, Refusal> {
    let wish = body.parse::<StartRollout>()?;
    let module = create::module_id(&wish.module).map_err(|fault| fault.field("module"))?;
    let waves = wish.waves.unwrap_or_else(|| waves::WAVES.to_vec());
    let stop_on = stop_on(wish.stop_on)?;
    let canaries = canaries(&wish.canaries)?;
    let mut session = app.registry.session().await?;
    let change = match Change::begin(&mut session, &call, &body.bytes).await? {
        Begun::Done(stored) => return Ok(send(stored)),
        Begun::Fresh(change) => change,
    };
    let draft = Draft::make(&change.tx, &module, waves, &canaries, stop_on).await?;
    if wish.dry_run {
        return Ok(send(reply(StatusCode::OK, None, &drafted(&draft))?));
    }
    let id = draft.begin(&change.tx, &call.actor).await?;
    let view = view(&change.tx, change.tx.get_rollout(id).await?).await?;
    let location = format!("/admin/v1/rollouts/{id}");
    let answer = reply(StatusCode::ACCEPTED, Some(location), &view)?;
    let detail = json!({ "rollout": id, "module": module, "version": view.version });
    let stored = change
        .commit_global("rollout.create", &detail, answer)
        .await?;
    app.reconciler.fleet.notify_one();
    Ok(send(stored))
}

/// The newest rollouts.
#[utoipa::path(get, path = "/rollouts", operation_id = "rollouts.list", tag = "fleet",
    responses((status = 200, body = List<RolloutView>), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    _call: Call,
) -> Result<Json<List<RolloutView>>, Refusal> {
    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    let mut items = Vec::new();
    for rollout in tx.list_rollouts(LIST).await? {
        items.push(view(&tx, rollout).await?);
    }
    Ok(Json(List { items }))
}

/// One rollout.
#[utoipa::path(get, path = "/rollouts/{id}", operation_id = "rollouts.get", tag = "fleet",
    params(("id" = String, Path)),
    responses((status = 200, body = RolloutView), (status = "default", body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    _call: Call,
    Path(id): Path<String>,
) -> Result<Json<RolloutView>, Refusal> {
    Ok(Json(look(&app, parse(&id)?).await?))
}

/// A rollout as it goes on, as server-sent events: the whole of it whenever something has changed. Ends
/// when the rollout does.
#[utoipa::path(get, path = "/rollouts/{id}/events", operation_id = "rollouts.events", tag = "fleet",
    params(("id" = String, Path)),
    responses((status = 200, body = RolloutView, content_type = "text/event-stream"),
              (status = "default", body = Problem)))]
pub(super) async fn events(
    State(app): State<Arc<App>>,
    _call: Call,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let id = parse(&id)?;
    let first = look(&app, id).await?;
    let again = move || {
        let app = Arc::clone(&app);
        async move { look(&app, id).await }
    };
    Ok(watch("rollout", LOOK, first, again, |view| !view.is_open()))
}

/// Holds a rollout; namespaces in hand are finished.
#[utoipa::path(post, path = "/rollouts/{id}/pause", operation_id = "rollouts.pause", tag = "fleet",
    params(("id" = String, Path)),
    responses((status = 200, body = RolloutView), (status = "default", body = Problem)))]
pub(super) async fn pause(
    State(app): State<Arc<App>>,
    call: Call,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    steer(&app, &call, &id, Act::Pause).await
}

/// Lets a paused rollout go on.
#[utoipa::path(post, path = "/rollouts/{id}/resume", operation_id = "rollouts.resume", tag = "fleet",
    params(("id" = String, Path)),
    responses((status = 200, body = RolloutView), (status = "default", body = Problem)))]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    call: Call,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    steer(&app, &call, &id, Act::Resume).await
}

/// Gives a rollout up; what has the version keeps it.
#[utoipa::path(post, path = "/rollouts/{id}/cancel", operation_id = "rollouts.cancel", tag = "fleet",
    params(("id" = String, Path)),
    responses((status = 200, body = RolloutView), (status = "default", body = Problem)))]
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    call: Call,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    steer(&app, &call, &id, Act::Cancel).await
}

/// Tries the failed namespaces again.
#[utoipa::path(post, path = "/rollouts/{id}/retry", operation_id = "rollouts.retry", tag = "fleet",
    params(("id" = String, Path)),
    responses((status = 200, body = RolloutView), (status = "default", body = Problem)))]
pub(super) async fn retry(
    State(app): State<Arc<App>>,
    call: Call,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    steer(&app, &call, &id, Act::Retry).await
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Pause,
    Resume,
    Cancel,
    Retry,
}

impl Act {
    fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
            Self::Retry => "retry",
        }
    }

    /// The state after it, if the state before allows it.
    fn leads_to(self, state: RolloutState) -> Option<RolloutState> {
        use RolloutState::{Cancelled, Partial, Paused, Running, Stopped};
        match (self, state) {
            (Self::Resume, Paused) | (Self::Retry, Running | Stopped | Partial) => Some(Running),
            // What failed is tried again when the rollout goes on.
            (Self::Pause, Running) | (Self::Retry, Paused) => Some(Paused),
            (Self::Cancel, Running | Paused | Stopped) => Some(Cancelled),
            _ => None,
        }
    }
}

async fn steer(app: &App, call: &Call, id: &str, act: Act) -> Result<Response, Refusal> {
    let id = parse(id)?;
    let mut session = app.registry.session().await?;
    let change = match Change::begin(&mut session, call, &[]).await? {
        Begun::Done(stored) => return Ok(send(stored)),
        Begun::Fresh(change) => change,
    };
    let stored = steered(change, call, id, act).await?;
    app.reconciler.fleet.notify_one();
    Ok(send(stored))
}

async fn steered(
    change: Change<'_>,
    call: &Call,
    id: RolloutId,
    act: Act,
) -> Result<StoredReply, Fault> {
    let tx = &change.tx;
    let rollout = tx.lock_rollout(id).await?;
    let state = act.leads_to(rollout.state).ok_or_else(|| {
        fault::ROLLOUT_STATE.fault(format!(
            "can't {} a rollout that is {}",
            act.name(),
            rollout.state.as_str()
        ))
    })?;
    let mut wave = rollout.wave;
    let mut message = format!("{} by {}", act.name(), call.actor);
    if matches!(act, Act::Retry) {
        let (failed, first) = tx.retry_items(id).await?;
        wave = first.map_or(wave, |first| first.min(wave));
        message = format!(
            "{failed} failed namespaces are tried again, says {}",
            call.actor
        );
    }
    tx.move_rollout(id, state, wave, &message).await?;
    let view = view(tx, tx.get_rollout(id).await?).await?;
    let answer = reply(StatusCode::OK, None, &view)?;
    let detail = json!({ "rollout": id, "module": rollout.module });
    let action = format!("rollout.{}", act.name());
    change.commit_global(&action, &detail, answer).await
}

async fn look(app: &App, id: RolloutId) -> Result<RolloutView, Fault> {
    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    let rollout = tx.get_rollout(id).await?;
    view(&tx, rollout).await
}

/// A rollout with all that is known of it.
pub(super) async fn view(tx: &Tx<'_>, rollout: Rollout) -> Result<RolloutView, Fault> {
    let counts = tx.count_waves(rollout.id).await?;
    let running = rollout.state == RolloutState::Running;
    let pace = if running {
        Some(tx.measure_pace(rollout.id, PACE_SECONDS).await?)
    } else {
        None
    };
    let sum = |part: fn(&WaveCount) -> i64| counts.iter().map(part).sum::<i64>();
    let pending = sum(|count| count.pending);
    Ok(RolloutView {
        id: Some(rollout.id.to_string()),
        module: rollout.module.to_string(),
        version: rollout.version,
        state: rollout.state.as_str().to_owned(),
        reason: rollout.reason,
        wave: rollout.wave,
        total: sum(WaveCount::total),
        done: sum(|count| count.done + count.skipped),
        failed: sum(|count| count.failed),
        rate: pace.and_then(waves::rate),
        eta_seconds: pace.and_then(|pace| waves::estimate(pace, pending)),
        failures: failures(tx, rollout.id).await?,
        trail: trail(tx, rollout.id).await?,
        waves: counts
            .iter()
            .map(|count| wave(count, &rollout.waves))
            .collect(),
        stop_on: rollout.stop_percent,
        actor: rollout.actor,
        created_at: Some(rollout.created_at),
        finished_at: rollout.finished_at,
    })
}

/// A rollout that has not begun.
fn drafted(draft: &Draft) -> RolloutView {
    let mut counts: Vec<WaveCount> = Vec::new();
    for item in &draft.items {
        match counts.last_mut().filter(|count| count.wave == item.wave) {
            Some(count) => count.pending += 1,
            None => counts.push(WaveCount {
                wave: item.wave,
                pending: 1,
                ..WaveCount::default()
            }),
        }
    }
    let tenants: i64 = draft.behind.iter().map(|unit| unit.tenants).sum();
    RolloutView {
        id: None,
        module: draft.package.module.to_string(),
        version: draft.package.version.clone(),
        state: "draft".to_owned(),
        reason: Some(format!(
            "a dry run; {tenants} tenants have their rows there"
        )),
        wave: counts.first().map_or(0, |count| count.wave),
        total: counts.iter().map(WaveCount::total).sum(),
        done: 0,
        failed: 0,
        rate: None,
        eta_seconds: None,
        failures: Vec::new(),
        trail: Vec::new(),
        waves: counts
            .iter()
            .map(|count| wave(count, &draft.waves))
            .collect(),
        stop_on: draft.stop_percent,
        actor: String::new(),
        created_at: None,
        finished_at: None,
    }
}

fn wave(count: &WaveCount, percents: &[i32]) -> WaveView {
    let percent = usize::try_from(count.wave - 1)
        .ok()
        .and_then(|index| percents.get(index).copied());
    WaveView {
        wave: count.wave,
        percent,
        namespaces: count.total(),
        pending: count.pending,
        done: count.done,
        failed: count.failed,
        skipped: count.skipped,
    }
}

async fn failures(tx: &Tx<'_>, id: RolloutId) -> Result<Vec<FailureView>, Fault> {
    let items = tx.list_failed_items(id, FAILURES).await?;
    let view = |item: waangu_registry::FailedItem| FailureView {
        cell: item.cell.to_string(),
        tier: item.tier.to_string(),
        tenant: item.tenant.map(Into::into),
        attempts: item.attempts,
        waiting: item.waiting,
        error: item.error,
    };
    Ok(items.into_iter().map(view).collect())
}

async fn trail(tx: &Tx<'_>, id: RolloutId) -> Result<Vec<RolloutEventView>, Fault> {
    let events = tx.list_rollout_events(id).await?;
    let view = |event: waangu_registry::RolloutEvent| RolloutEventView {
        at: event.at,
        message: event.message,
    };
    Ok(events.into_iter().map(view).collect())
}

fn stop_on(percent: Option<i32>) -> Result<i32, Fault> {
    match percent.unwrap_or(waves::STOP_PERCENT) {
        percent @ 0..=100 => Ok(percent),
        _ => Err(fault::INVALID_FIELD
            .fault("stop_on is a percentage, 0 to 100")
            .field("stop_on")),
    }
}

fn canaries(slugs: &[String]) -> Result<Vec<Slug>, Fault> {
    if slugs.len() > MOST_CANARIES {
        return Err(fault::INVALID_FIELD
            .fault(format!("at most {MOST_CANARIES} tenants can be canaries"))
            .field("canaries"));
    }
    let parsed = slugs.iter().map(|slug| tenants::parse(slug));
    parsed
        .collect::<Result<_, _>>()
        .map_err(|fault: Fault| fault.field("canaries"))
}

fn parse(id: &str) -> Result<RolloutId, Fault> {
    id.parse().map_err(|_not_an_id: Fault| {
        fault::ROLLOUT_NOT_FOUND.fault(format!("there is no rollout `{}`", fault::excerpt(id)))
    })
}
