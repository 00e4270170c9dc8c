//! A tenant's flags and limits, and what is declared at all.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::json;
use waangu_api::Problem;
use waangu_api::types::{DeclarationView, EntitlementView, List, PutEntitlement};
use waangu_kernel::entitlement::{Catalogue, Declaration, USERS, Values, check_key, platform};
use waangu_kernel::{Fault, TenantId, fault};
use waangu_registry::{Held, Tx};

use super::call::{Begun, Call, Change, reply};
use super::{tenants, view};
use crate::reply::{Path, RawBody, Refusal};
use crate::server::App;

/// Everything that is declared, by the platform and by installed modules.
#[utoipa::path(get, path = "/entitlements", operation_id = "entitlements.declared",
    tag = "entitlements",
    responses((status = 200, body = List<DeclarationView>), (status = "default", body = Problem)))]
pub(super) async fn declared(
    State(app): State<Arc<App>>,
    _call: Call,
) -> Result<Json<List<DeclarationView>>, Refusal> {
    let mut session = app.registry.session().await?;
    let catalogue = catalogue(&session.begin().await?).await?;
    Ok(Json(List {
        items: catalogue.iter().map(declaration).collect(),
    }))
}

/// All flags and limits of a tenant, with what each comes from.
#[utoipa::path(get, path = "/tenants/{slug}/entitlements", operation_id = "entitlements.list",
    tag = "entitlements", params(("slug" = String, Path)),
    responses((status = 200, body = List<EntitlementView>), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    _call: Call,
    Path(slug): Path<String>,
) -> Result<Json<List<EntitlementView>>, Refusal> {
    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    let tenant = tx.get_tenant(&tenants::parse(&slug)?).await?;
    let (catalogue, held) = (catalogue(&tx).await?, tx.get_held(tenant.id).await?);
    let all = catalogue.iter().map(|one| view::entitlement(one, &held));
    Ok(Json(List {
        items: all.collect(),
    }))
}

/// One flag or limit of a tenant.
#[utoipa::path(get, path = "/tenants/{slug}/entitlements/{key}", operation_id = "entitlements.get",
    tag = "entitlements", params(("slug" = String, Path), ("key" = String, Path)),
    responses((status = 200, body = EntitlementView), (status = "default", body = Problem)))]
pub(super) async fn get(
    State(app): State<Arc<App>>,
    _call: Call,
    Path((slug, key)): Path<(String, String)>,
) -> Result<Json<EntitlementView>, Refusal> {
    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    let tenant = tx.get_tenant(&tenants::parse(&slug)?).await?;
    let catalogue = catalogue(&tx).await?;
    let declaration = catalogue.get(&key).ok_or_else(|| {
        fault::ENTITLEMENT_NOT_FOUND.fault(format!(
            "nobody declares a flag or limit `{}`",
            fault::excerpt(&key)
        ))
    })?;
    let held = tx.get_held(tenant.id).await?;
    Ok(Json(view::entitlement(declaration, &held)))
}

/// Sets a flag or limit for this tenant alone.
#[utoipa::path(put, path = "/tenants/{slug}/entitlements/{key}", operation_id = "entitlements.put",
    tag = "entitlements", params(("slug" = String, Path), ("key" = String, Path)),
    request_body = PutEntitlement,
    responses((status = 200, body = EntitlementView), (status = "default", body = Problem)))]
pub(super) async fn put(
    State(app): State<Arc<App>>,
    call: Call,
    Path((slug, key)): Path<(String, String)>,
    body: RawBody,
) -> Result<Json<EntitlementView>, Refusal> {
    let PutEntitlement { value } = body.parse()?;
    let slug = tenants::parse(&slug)?;
    let mut session = app.registry.session().await?;
    if let Begun::Fresh(change) = Change::begin(&mut session, &call, &body.bytes).await? {
        let tenant = change.tx.lock_tenant(&slug).await?;
        call.check_version(&tenant)?;
        let catalogue = catalogue(&change.tx).await?;
        catalogue.check(&key, &value).map_err(|fault| {
            let unknown = fault.code() == fault::ENTITLEMENT_UNKNOWN.code;
            fault.field(if unknown { "key" } else { "value" })
        })?;
        let before = change.tx.get_held(tenant.id).await?;
        let before = before.own.as_ref().and_then(|own| own.get(&key));
        change.tx.put_entitlement(tenant.id, &key, &value).await?;
        let detail = json!({ "key": key, "before": before, "after": value });
        let empty = reply(StatusCode::OK, None, &json!({}))?;
        change
            .commit("entitlement.put", (tenant.id, &slug), &detail, empty)
            .await?;
    }
    get(State(app), call, Path((slug.into(), key))).await
}

/// Removes this tenant's own value; its profile's, its plan's or the default counts again.
#[utoipa::path(delete, path = "/tenants/{slug}/entitlements/{key}",
    operation_id = "entitlements.delete", tag = "entitlements",
    params(("slug" = String, Path), ("key" = String, Path)),
    responses((status = 204), (status = "default", body = Problem)))]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    call: Call,
    Path((slug, key)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let slug = tenants::parse(&slug)?;
    let mut session = app.registry.session().await?;
    if let Begun::Fresh(change) = Change::begin(&mut session, &call, &[]).await? {
        let tenant = change.tx.lock_tenant(&slug).await?;
        call.check_version(&tenant)?;
        if check_key(&key).is_err() || !change.tx.delete_entitlement(tenant.id, &key).await? {
            return Err(fault::ENTITLEMENT_NOT_FOUND
                .fault(format!(
                    "the tenant has no value of its own for `{}`",
                    fault::excerpt(&key)
                ))
                .into());
        }
        let empty = reply(StatusCode::NO_CONTENT, None, &json!({}))?;
        let detail = json!({ "key": key });
        change
            .commit("entitlement.delete", (tenant.id, &slug), &detail, empty)
            .await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// What may have a value, by the platform and installed modules.
pub(crate) async fn catalogue(tx: &Tx<'_>) -> Result<Catalogue, Fault> {
    let modules = tx.list_modules().await?;
    Ok(Catalogue::new(
        modules.iter().map(|stored| &stored.manifest),
    ))
}

/// Refuses values of a request body whose keys nobody declares, or of another type.
pub(super) fn check_values(catalogue: &Catalogue, values: &Values) -> Result<(), Fault> {
    values.iter().try_for_each(|(key, value)| {
        let named = |fault: Fault| fault.field(format!("entitlements.{}", fault::excerpt(key)));
        catalogue.check(key, value).map_err(named)
    })
}

/// Refuses one more user than the tenant may have. The tenant is locked, so the count stands.
pub(super) async fn check_room_for_user(tx: &Tx<'_>, tenant: TenantId) -> Result<(), Fault> {
    let held: Held = tx.get_held(tenant).await?;
    let platform = platform();
    let users = platform.iter().find(|one| one.key == USERS);
    let Some(limit) = users.and_then(|users| held.layers().limit(users)) else {
        return Ok(());
    };
    let have = u64::try_from(tx.count_users(tenant).await?).unwrap_or(0);
    if have < limit {
        return Ok(());
    }
    Err(fault::LIMIT_REACHED
        .fault(format!(
            "the tenant has {have} of at most {limit} users (`{USERS}`)"
        ))
        .field("username"))
}

fn declaration(one: &Declaration) -> DeclarationView {
    DeclarationView {
        key: one.key.clone(),
        kind: one.kind.to_string(),
        default: one.default.clone(),
        unit: one.unit.clone(),
        description: one.description.clone(),
    }
}
