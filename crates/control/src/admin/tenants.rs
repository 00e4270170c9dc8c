//! Tenants: list, show, rename, re-parent, suspend, resume, delete.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::ETAG;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use waangu_api::Problem;
use waangu_api::places::PlacementExplained;
use waangu_api::types::{Accepted, PageQuery, PatchTenant, TenantList, TenantView};
use waangu_kernel::{Fault, Slug, TenantId, fault};
use waangu_registry::{Desired, StoredReply, Tenant, TenantPatch, Tx};

use super::call::{Begun, Call, Change, etag, reply};
use super::settings::Settings;
use super::surroundings::Surroundings;
use super::{create, entitlements, operations, view};
use crate::reply::{Path, Query, RawBody, Refusal};
use crate::server::App;

/// Tenants on a page if the caller does not say.
const PAGE: i64 = 50;

/// All live tenants, by age.
#[utoipa::path(get, path = "/tenants", operation_id = "tenants.list", tag = "tenants",
    params(PageQuery),
    responses((status = 200, body = TenantList), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    _call: Call,
    Query(query): Query<PageQuery>,
) -> Result<Json<TenantList>, Refusal> {
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=200).contains(&limit) {
        return Err(fault::INVALID_FIELD
            .fault("limit is 1 to 200")
            .field("limit")
            .into());
    }
    let after = match query.cursor.as_deref() {
        Some(cursor) => cursor
            .parse::<TenantId>()
            .map_err(|_fault| {
                fault::INVALID_FIELD
                    .fault("not a cursor of ours")
                    .field("cursor")
            })?
            .number(),
        None => 0,
    };
    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    let page = tx.list_tenants(after, limit).await?;
    let regions = tx.list_cell_regions().await?;
    let catalogue = entitlements::catalogue(&tx).await?;
    let mut items = Vec::with_capacity(page.tenants.len());
    for tenant in page.tenants {
        items.push(view::tenant(&tx, &app.config, &regions, &catalogue, tenant).await?);
    }
    Ok(Json(TenantList {
        items,
        next: page.next.map(|number| format!("ten_{number}")),
    }))
}

/// One tenant.
#[utoipa::path(get, path = "/tenants/{slug}", operation_id = "tenants.get", tag = "tenants",
    params(("slug" = String, Path)),
    responses((status = 200, body = TenantView, headers(("ETag" = String))),
              (status = "default", body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    _call: Call,
    Path(slug): Path<String>,
) -> Result<Response, Refusal> {
    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    let tenant = tx.get_tenant(&parse(&slug)?).await?;
    Ok(tagged(&tx, &app, tenant).await?)
}

/// Where a tenant's data lives, why there, and where it would be placed today.
#[utoipa::path(get, path = "/tenants/{slug}/placement", operation_id = "tenants.placement",
    tag = "tenants", params(("slug" = String, Path)),
    responses((status = 200, body = PlacementExplained), (status = "default", body = Problem)))]
pub(super) async fn placement(
    State(app): State<Arc<App>>,
    _call: Call,
    Path(slug): Path<String>,
) -> Result<Json<PlacementExplained>, Refusal> {
    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    let tenant = tx.get_tenant(&parse(&slug)?).await?;
    let surroundings = Surroundings::read(&app, &tx).await?;
    let settings = Settings::read(&tx, &tenant).await?;
    Ok(Json(PlacementExplained {
        placement: view::placement(&tenant, &tx.list_cell_regions().await?),
        today: surroundings.explain(&settings, &tenant),
    }))
}

/// Changes name, parent and plan.
#[utoipa::path(patch, path = "/tenants/{slug}", operation_id = "tenants.update", tag = "tenants",
    params(("slug" = String, Path)), request_body = PatchTenant,
    responses((status = 200, body = TenantView, headers(("ETag" = String))),
              (status = "default", body = Problem)))]
pub(super) async fn patch(
    State(app): State<Arc<App>>,
    call: Call,
    Path(slug): Path<String>,
    body: RawBody,
) -> Result<Response, Refusal> {
    let wish: PatchTenant = body.parse()?;
    let slug = parse(&slug)?;
    let mut session = app.registry.session().await?;
    let Begun::Fresh(change) = Change::begin(&mut session, &call, &body.bytes).await? else {
        // The key was used before; what it did then is what the tenant shows now.
        let tx = session.begin().await?;
        let tenant = tx.get_tenant(&slug).await?;
        return Ok(tagged(&tx, &app, tenant).await?);
    };
    change.tx.lock_tree().await?;
    let tenant = change.tx.lock_tenant(&slug).await?;
    call.check_version(&tenant)?;
    let name = wish.name.map(create::check_name).transpose()?;
    let parent = match wish.parent.as_deref() {
        None => None,
        Some("") => Some(None),
        Some(text) => Some(Some(adopt(&change.tx, &tenant, text).await?)),
    };
    change
        .tx
        .patch_tenant(
            tenant.id,
            &TenantPatch {
                name: name.clone(),
                parent,
            },
        )
        .await?;
    if let Some(text) = wish.plan.as_deref() {
        let plan = (!text.is_empty()).then(|| create::plan_id(text));
        let plan = plan.transpose()?;
        change.tx.put_tenant_plan(tenant.id, plan.as_ref()).await?;
    }
    let detail = json!({ "name": name, "parent": wish.parent, "plan": wish.plan });
    let empty = reply(axum::http::StatusCode::OK, None, &json!({}))?;
    change
        .commit("tenant.update", (tenant.id, &slug), &detail, empty)
        .await?;
    app.reconciler.work.notify_one();
    let tx = session.begin().await?;
    let tenant = tx.get_tenant(&slug).await?;
    Ok(tagged(&tx, &app, tenant).await?)
}

/// The new parent's number, if the tree stays a tree and no border forbids it.
async fn adopt(tx: &Tx<'_>, tenant: &Tenant, text: &str) -> Result<TenantId, Fault> {
    let slug = create::parent_slug(text)?;
    // Locked, because one that is being deleted can't be a parent any more.
    let parent = tx.lock_tenant(&slug).await.map_err(|fault| {
        if fault.code() == fault::TENANT_NOT_FOUND.code {
            fault::PARENT_UNKNOWN
                .fault(format!("there is no tenant `{slug}`"))
                .field("parent")
        } else {
            fault.field("parent")
        }
    })?;
    if tx
        .list_ancestors(parent.id)
        .await?
        .contains(&tenant.id.number())
    {
        return Err(fault::PARENT_CYCLE
            .fault(format!("`{slug}` is `{}` itself or below it", tenant.slug))
            .field("parent"));
    }
    if let Some(country) = tx.list_countries(Some(tenant.country)).await?.first() {
        create::check_kin(tx, &parent, country).await?;
    }
    Ok(parent.id)
}

/// Stops serving a tenant; its data is kept.
#[utoipa::path(post, path = "/tenants/{slug}/suspend", operation_id = "tenants.suspend",
    tag = "tenants", params(("slug" = String, Path)),
    responses((status = 202, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn suspend(
    State(app): State<Arc<App>>,
    call: Call,
    Path(slug): Path<String>,
) -> Result<Response, Refusal> {
    let stored = want(&app, &call, &slug, Desired::Suspended).await?;
    operations::answer(&app, &call, stored).await
}

/// Serves a suspended tenant again.
#[utoipa::path(post, path = "/tenants/{slug}/resume", operation_id = "tenants.resume",
    tag = "tenants", params(("slug" = String, Path)),
    responses((status = 202, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    call: Call,
    Path(slug): Path<String>,
) -> Result<Response, Refusal> {
    let stored = want(&app, &call, &slug, Desired::Active).await?;
    operations::answer(&app, &call, stored).await
}

/// Removes a tenant and all its data. The audit stays; the slug is free after a grace time.
#[utoipa::path(delete, path = "/tenants/{slug}", operation_id = "tenants.delete", tag = "tenants",
    params(("slug" = String, Path)),
    responses((status = 202, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    call: Call,
    Path(slug): Path<String>,
) -> Result<Response, Refusal> {
    let stored = want(&app, &call, &slug, Desired::Deleted).await?;
    operations::answer(&app, &call, stored).await
}

async fn want(app: &App, call: &Call, slug: &str, desired: Desired) -> Result<StoredReply, Fault> {
    let slug = parse(slug)?;
    let mut session = app.registry.session().await?;
    let change = match Change::begin(&mut session, call, desired.as_str().as_bytes()).await? {
        Begun::Done(stored) => return Ok(stored),
        Begun::Fresh(change) => change,
    };
    if desired == Desired::Deleted {
        // Nobody may be born below it while it goes.
        change.tx.lock_tree().await?;
    }
    let tenant = change.tx.lock_tenant(&slug).await?;
    call.check_version(&tenant)?;
    if desired == Desired::Deleted && change.tx.has_children(tenant.id).await? {
        return Err(fault::TENANT_HAS_CHILDREN.fault(format!("`{slug}` still has sub-tenants")));
    }
    let generation = change.tx.want_tenant(tenant.id, desired).await?;
    let kind = match desired {
        Desired::Active => "resume",
        Desired::Suspended => "suspend",
        Desired::Deleted => "delete",
    };
    operations::open(
        app,
        change,
        kind,
        (tenant.id, &slug),
        generation,
        &json!({}),
    )
    .await
}

async fn tagged(tx: &Tx<'_>, app: &App, tenant: Tenant) -> Result<Response, Fault> {
    let tag = etag(&tenant);
    let regions = tx.list_cell_regions().await?;
    let catalogue = entitlements::catalogue(tx).await?;
    let view = view::tenant(tx, &app.config, &regions, &catalogue, tenant).await?;
    Ok(([(ETAG, tag)], Json(view)).into_response())
}

/// A slug in a path: one that can't exist is a tenant that does not.
pub(super) fn parse(slug: &str) -> Result<Slug, Fault> {
    slug.parse().map_err(|_fault: Fault| {
        fault::TENANT_NOT_FOUND.fault(format!("there is no tenant `{}`", fault::excerpt(slug)))
    })
}
