//! `GET /fleet`: how the whole platform fares.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::sse::{Event, Sse};
use futures_util::stream::Stream;
use waangu_api::Problem;
use waangu_api::fleet::{
    CircuitView, FailingTenantView, FleetView, RefusedPackageView, StandingView, TenantCountView,
};
use waangu_kernel::Fault;
use waangu_registry::{Cell, Tx};

use super::call::Call;
use super::watch::watch;
use super::{repairs, rollouts};
use crate::circuits::Outage;
use crate::reply::Refusal;
use crate::server::App;

/// Failing tenants in a view.
const FAILING: i64 = 50;

/// Rollouts that are looked through for open ones; a module has at most one.
const ROLLOUTS: i64 = 200;

/// Pause between two looks for somebody who watches.
const LOOK: Duration = Duration::from_secs(1);

/// Tenants, cells, versions and rollouts at a glance.
#[utoipa::path(get, path = "/fleet", operation_id = "fleet.get", tag = "fleet",
    responses((status = 200, body = FleetView), (status = "default", body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    _call: Call,
) -> Result<Json<FleetView>, Refusal> {
    Ok(Json(look(&app).await?))
}

/// The same as server-sent events, whenever something has changed.
#[utoipa::path(get, path = "/fleet/events", operation_id = "fleet.events", tag = "fleet",
    responses((status = 200, body = FleetView, content_type = "text/event-stream"),
              (status = "default", body = Problem)))]
pub(super) async fn events(
    State(app): State<Arc<App>>,
    _call: Call,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let first = look(&app).await?;
    let again = move || {
        let app = Arc::clone(&app);
        async move { look(&app).await }
    };
    Ok(watch("fleet", LOOK, first, again, |_| false))
}

async fn look(app: &App) -> Result<FleetView, Fault> {
    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    let backlog = tx.measure_backlog().await?;
    let outages = app.reconciler.circuits.outages();
    let cells = tx.list_cells().await?;
    let mut open = Vec::new();
    for rollout in tx.list_rollouts(ROLLOUTS).await? {
        if rollout.state.is_open() {
            open.push(rollouts::view(&tx, rollout).await?);
        }
    }
    Ok(FleetView {
        tenants: tenants(&tx).await?,
        behind: backlog.tenants,
        waiting_since: backlog.since,
        failing: failing(&tx).await?,
        cells: cells
            .iter()
            .map(|cell| circuit(cell, outages.get(&cell.id)))
            .collect(),
        namespaces: standing(&tx).await?,
        rollouts: open,
        repair: match tx.get_last_repair().await? {
            Some(repair) => Some(repairs::view(&tx, repair).await?),
            None => None,
        },
        refused: refused(&tx).await?,
    })
}

async fn tenants(tx: &Tx<'_>) -> Result<Vec<TenantCountView>, Fault> {
    let counts = tx.count_tenants().await?;
    let view = |count: waangu_registry::TenantCount| TenantCountView {
        cell: count.cell.to_string(),
        tier: count.tier.to_string(),
        state: count.state.as_str().to_owned(),
        tenants: count.tenants,
    };
    Ok(counts.into_iter().map(view).collect())
}

async fn failing(tx: &Tx<'_>) -> Result<Vec<FailingTenantView>, Fault> {
    let found = tx.list_failing_tenants(FAILING).await?;
    let view = |tenant: waangu_registry::FailingTenant| FailingTenantView {
        tenant: tenant.tenant.into(),
        cell: tenant.cell.to_string(),
        attempts: tenant.attempts,
        error: tenant.error,
    };
    Ok(found.into_iter().map(view).collect())
}

async fn standing(tx: &Tx<'_>) -> Result<Vec<StandingView>, Fault> {
    let counts = tx.count_namespaces().await?;
    let view = |standing: waangu_registry::Standing| StandingView {
        module: standing.module.to_string(),
        version: standing.version,
        current: standing.current,
        namespaces: standing.namespaces,
    };
    Ok(counts.into_iter().map(view).collect())
}

async fn refused(tx: &Tx<'_>) -> Result<Vec<RefusedPackageView>, Fault> {
    let found = tx.list_refusals().await?;
    let view = |refusal: waangu_registry::PackageRefusal| RefusedPackageView {
        module: refusal.module.to_string(),
        version: refusal.version,
        code: refusal.code,
        reason: refusal.reason,
        since: refusal.since,
    };
    Ok(found.into_iter().map(view).collect())
}

fn circuit(cell: &Cell, outage: Option<&Outage>) -> CircuitView {
    CircuitView {
        cell: cell.id.to_string(),
        state: cell.state.as_str().to_owned(),
        circuit: if outage.is_some() { "open" } else { "closed" }.to_owned(),
        since: outage.map(|outage| outage.since),
        probes: outage.map_or(0, |outage| outage.probes),
        cause: outage.map(|outage| outage.cause.clone()),
    }
}
