//! A tenant's parameters: flags, limits, settings.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use waangu_api::Problem;
use waangu_api::types::{EntitlementView, PutEntitlement};
use waangu_kernel::{Fault, fault};
use waangu_registry::Entitlement;

use super::call::{Begun, Call, Change, reply};
use super::{tenants, view};
use crate::reply::{Path, RawBody, Refusal};
use crate::server::App;

/// One parameter.
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
    let all = tx.list_entitlements(tenant.id).await?;
    let found = all.into_iter().find(|entitlement| entitlement.key == key);
    Ok(Json(view::entitlement(found.ok_or_else(|| unknown(&key))?)))
}

/// Sets a parameter for this tenant alone.
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
    check_key(&key)?;
    check_value(&value).map_err(|fault| fault.field("value"))?;
    let new = Entitlement {
        key,
        value,
        origin: "override".to_owned(),
    };
    let slug = tenants::parse(&slug)?;
    let mut session = app.registry.session().await?;
    if let Begun::Fresh(change) = Change::begin(&mut session, &call, &body.bytes).await? {
        let tenant = change.tx.lock_tenant(&slug).await?;
        call.check_version(&tenant)?;
        change.tx.put_entitlement(tenant.id, &new).await?;
        let detail = json!({ "key": new.key, "value": new.value });
        let empty = reply(StatusCode::OK, None, &json!({}))?;
        change
            .commit("entitlement.put", (tenant.id, &slug), &detail, empty)
            .await?;
    }
    Ok(Json(view::entitlement(new)))
}

/// Removes this tenant's own value.
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
        if !change.tx.delete_entitlement(tenant.id, &key).await? {
            return Err(unknown(&key).into());
        }
        let empty = reply(StatusCode::NO_CONTENT, None, &json!({}))?;
        let detail = json!({ "key": key });
        change
            .commit("entitlement.delete", (tenant.id, &slug), &detail, empty)
            .await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// A key: lower-case words with dots, hyphens and underscores.
pub(super) fn check_key(key: &str) -> Result<(), Fault> {
    let fine = (1..=80).contains(&key.len())
        && key.starts_with(|c: char| c.is_ascii_lowercase())
        && key
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c));
    if fine {
        return Ok(());
    }
    Err(fault::INVALID_FIELD
        .fault(format!(
            "`{}` is not an entitlement key",
            fault::excerpt(key)
        ))
        .field("entitlements"))
}

/// A value that PostgreSQL can keep: its JSON has no U+0000.
pub(super) fn check_value(value: &Value) -> Result<(), Fault> {
    let refused = |text: &str| text.contains('\0');
    let null = match value {
        Value::String(text) => refused(text),
        Value::Array(items) => return items.iter().try_for_each(check_value),
        Value::Object(fields) => {
            fields.values().try_for_each(check_value)?;
            fields.keys().any(|name| refused(name))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    };
    if null {
        return Err(fault::INVALID_FIELD.fault("a value must not have a null character (U+0000)"));
    }
    Ok(())
}

fn unknown(key: &str) -> Fault {
    fault::ENTITLEMENT_NOT_FOUND.fault(format!(
        "the tenant has no entitlement `{}`",
        fault::excerpt(key)
    ))
}
