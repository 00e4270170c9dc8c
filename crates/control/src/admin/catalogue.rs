//! What there is: modules, regions, countries, environments; and the audit log.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use waangu_api::Problem;
use waangu_api::types::{
    AuditQuery, AuditView, CountryView, EnvironmentView, List, ModuleView, RegionView,
};
use waangu_kernel::fault;
use waangu_registry::{AuditEvent, Country, Region, StoredModule};

use super::call::Call;
use super::tenants;
use crate::reply::{Query, Refusal};
use crate::server::App;

/// Audit events on a page if the caller does not say.
const PAGE: i64 = 100;

/// Installed modules.
#[utoipa::path(get, path = "/modules", operation_id = "modules.list", tag = "modules",
    responses((status = 200, body = List<ModuleView>), (status = "default", body = Problem)))]
pub(super) async fn modules(
    State(app): State<Arc<App>>,
    _call: Call,
) -> Result<Json<List<ModuleView>>, Refusal> {
    let mut session = app.registry.session().await?;
    let modules = session.begin().await?.list_modules().await?;
    Ok(Json(List {
        items: modules.into_iter().map(module).collect(),
    }))
}

/// Places with a provider.
#[utoipa::path(get, path = "/regions", operation_id = "regions.list", tag = "places",
    responses((status = 200, body = List<RegionView>), (status = "default", body = Problem)))]
pub(super) async fn regions(
    State(app): State<Arc<App>>,
    _call: Call,
) -> Result<Json<List<RegionView>>, Refusal> {
    let mut session = app.registry.session().await?;
    let regions = session.begin().await?.list_regions().await?;
    Ok(Json(List {
        items: regions.into_iter().map(region).collect(),
    }))
}

/// Countries served, with their residency rules.
#[utoipa::path(get, path = "/countries", operation_id = "countries.list", tag = "places",
    responses((status = 200, body = List<CountryView>), (status = "default", body = Problem)))]
pub(super) async fn countries(
    State(app): State<Arc<App>>,
    _call: Call,
) -> Result<Json<List<CountryView>>, Refusal> {
    let mut session = app.registry.session().await?;
    let countries = session.begin().await?.list_countries(None).await?;
    Ok(Json(List {
        items: countries.into_iter().map(country).collect(),
    }))
}

/// Environments in the order of promotion.
#[utoipa::path(get, path = "/environments", operation_id = "environments.list", tag = "places",
    responses((status = 200, body = List<EnvironmentView>), (status = "default", body = Problem)))]
pub(super) async fn environments(
    State(app): State<Arc<App>>,
    _call: Call,
) -> Result<Json<List<EnvironmentView>>, Refusal> {
    let mut session = app.registry.session().await?;
    let ids = session.begin().await?.list_environments().await?;
    let current = &app.config.environment;
    let items = ids
        .into_iter()
        .map(|id| EnvironmentView {
            current: id == *current,
            id,
        })
        .collect();
    Ok(Json(List { items }))
}

/// Who changed what, newest first.
#[utoipa::path(get, path = "/audit", operation_id = "audit.list", tag = "audit",
    params(AuditQuery),
    responses((status = 200, body = List<AuditView>), (status = "default", body = Problem)))]
pub(super) async fn audit(
    State(app): State<Arc<App>>,
    _call: Call,
    Query(query): Query<AuditQuery>,
) -> Result<Json<List<AuditView>>, Refusal> {
    let slug = query.tenant.as_deref().map(tenants::parse).transpose()?;
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=500).contains(&limit) {
        return Err(fault::INVALID_FIELD
            .fault("limit is 1 to 500")
            .field("limit")
            .into());
    }
    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    let events = tx
        .list_audit(slug.as_ref(), query.before.unwrap_or(i64::MAX), limit)
        .await?;
    Ok(Json(List {
        items: events.into_iter().map(event).collect(),
    }))
}

fn module(StoredModule { manifest }: StoredModule) -> ModuleView {
    ModuleView {
        roles: manifest
            .roles
            .keys()
            .map(|role| format!("{}.{role}", manifest.id))
            .collect(),
        permissions: manifest.permissions.into_keys().map(Into::into).collect(),
        depends: manifest.depends.into_iter().map(Into::into).collect(),
        id: manifest.id.into(),
        version: manifest.version,
        title: manifest.title,
    }
}

fn region(region: Region) -> RegionView {
    RegionView {
        id: region.id.into(),
        provider: region.provider,
        country: region.country.into(),
        name: region.name,
    }
}

fn country(country: Country) -> CountryView {
    CountryView {
        code: country.code.into(),
        name: country.name,
        regions: country.regions.into_iter().map(Into::into).collect(),
        kin_abroad: country.kin_abroad,
    }
}

fn event(event: AuditEvent) -> AuditView {
    let AuditEvent {
        id,
        at,
        actor,
        action,
        slug,
        detail,
    } = event;
    AuditView {
        id,
        at,
        actor,
        action,
        tenant: slug,
        detail,
    }
}
