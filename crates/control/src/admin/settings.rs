//! How a tenant stands to its profile: what it has from there, and where it differs by explicit
//! override.
//!
//! Flags and limits are entitlements; tier and modules are shown here but change elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use waangu_api::places::{PutSetting, SettingView};
use waangu_api::types::List;
use waangu_api::{Problem, world::ProfileSpec};
use waangu_kernel::{Fault, Sla, Tier, fault};
use waangu_registry::{Activation, Country, Profile, Tenant, Tx};

use super::call::{Begun, Call, Change, reply};
use super::tenants;
use crate::reply::{Path, RawBody, Refusal};
use crate::server::App;
use crate::world;

/// Settings in the order they are shown in.
const KEYS: [&str; 8] = [
    "tier",
    "sla",
    "in_country",
    "modules",
    "roles",
    "retention_days",
    "mfa",
    "reports",
];

/// A tenant's profile, and what it has of its own.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) country: Option<Country>,
    pub(super) profile: Option<Profile>,
    overrides: BTreeMap<String, Value>,
}

impl Settings {
    /// Reads a tenant's.
    pub(super) async fn read(tx: &Tx<'_>, tenant: &Tenant) -> Result<Self, Fault> {
        let profile = match &tenant.profile {
            Some(id) => tx.get_profile(id).await?,
            None => None,
        };
        Ok(Self {
            country: tx.list_countries(Some(tenant.country)).await?.pop(),
            profile,
            overrides: tx.list_overrides(tenant.id).await?,
        })
    }

    /// The tier that was asked for.
    pub(super) fn asked_tier(&self) -> Option<Tier> {
        self.overrides.get("tier")?.as_str()?.parse().ok()
    }

    /// The service level that was asked for.
    pub(super) fn asked_sla(&self) -> Option<Sla> {
        self.overrides.get("sla")?.as_str()?.parse().ok()
    }

    /// All settings with their origins.
    pub(super) fn list(self, tenant: &Tenant, modules: &[Activation]) -> Vec<SettingView> {
        let Some(profile) = self.profile else {
            return Vec::new();
        };
        let given = fields(&world::profile_spec(profile));
        let enabled = modules.iter().filter(|activation| activation.enabled);
        let enabled: Vec<&str> = enabled
            .map(|activation| activation.module.as_str())
            .collect();
        KEYS.into_iter()
            .map(|key| {
                let profile = given.get(key).cloned().unwrap_or_default();
                let own = self.overrides.get(key);
                let value = match key {
                    "tier" => json!(tenant.placement.tier),
                    "modules" => json!(enabled),
                    _ => own.unwrap_or(&profile).clone(),
                };
                let origin = if own.is_some() {
                    "override"
                } else if same(&value, &profile) {
                    "profile"
                } else if key == "modules" {
                    // Somebody has switched one on or off.
                    "override"
                } else {
                    "birth"
                };
                SettingView {
                    key: key.to_owned(),
                    value,
                    origin: origin.to_owned(),
                    profile,
                }
            })
            .collect()
    }
}

/// Equal, whatever the order of lists.
fn same(one: &Value, other: &Value) -> bool {
    let sorted = |value: &Value| {
        let mut texts: Vec<String> = value
            .as_array()
            .map(|items| items.iter().map(Value::to_string).collect())?;
        texts.sort();
        Some(texts)
    };
    one == other || sorted(one).is_some_and(|texts| Some(texts) == sorted(other))
}

fn fields(spec: &ProfileSpec) -> Map<String, Value> {
    match serde_json::to_value(spec) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// What a tenant has from its profile, and where it differs.
#[utoipa::path(get, path = "/tenants/{slug}/settings", operation_id = "settings.list",
    tag = "settings", params(("slug" = String, Path)),
    responses((status = 200, body = List<SettingView>), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    _call: Call,
    Path(slug): Path<String>,
) -> Result<Json<List<SettingView>>, Refusal> {
    let slug = tenants::parse(&slug)?;
    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    let items = read(&tx, &tx.get_tenant(&slug).await?).await?;
    Ok(Json(List { items }))
}

/// Lets a tenant differ from its profile in one setting.
#[utoipa::path(put, path = "/tenants/{slug}/settings/{key}", operation_id = "settings.put",
    tag = "settings", params(("slug" = String, Path), ("key" = String, Path)),
    request_body = PutSetting,
    responses((status = 200, body = SettingView), (status = "default", body = Problem)))]
pub(super) async fn put(
    State(app): State<Arc<App>>,
    call: Call,
    Path((slug, key)): Path<(String, String)>,
    body: RawBody,
) -> Result<Json<SettingView>, Refusal> {
    let PutSetting { value } = body.parse()?;
    let value = check(&key, value)?;
    let slug = tenants::parse(&slug)?;
    let mut session = app.registry.session().await?;
    if let Begun::Fresh(change) = Change::begin(&mut session, &call, &body.bytes).await? {
        let tenant = change.tx.lock_tenant(&slug).await?;
        call.check_version(&tenant)?;
        change.tx.put_override(tenant.id, &key, &value).await?;
        let empty = reply(StatusCode::OK, None, &json!({}))?;
        let detail = json!({ "key": key, "value": value });
        change
            .commit("setting.put", (tenant.id, &slug), &detail, empty)
            .await?;
    }
    let tx = session.begin().await?;
    let settings = read(&tx, &tx.get_tenant(&slug).await?).await?;
    let found = settings.into_iter().find(|setting| setting.key == key);
    Ok(Json(found.ok_or_else(|| unknown(&key))?))
}

/// Lets a tenant be as its profile says in one setting.
#[utoipa::path(delete, path = "/tenants/{slug}/settings/{key}", operation_id = "settings.delete",
    tag = "settings", params(("slug" = String, Path), ("key" = String, Path)),
    responses((status = 204), (status = "default", body = Problem)))]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    call: Call,
    Path((slug, key)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    check_key(&key)?;
    let slug = tenants::parse(&slug)?;
    let mut session = app.registry.session().await?;
    if let Begun::Fresh(change) = Change::begin(&mut session, &call, &[]).await? {
        let tenant = change.tx.lock_tenant(&slug).await?;
        call.check_version(&tenant)?;
        if !change.tx.delete_override(tenant.id, &key).await? {
            return Err(unknown(&key).into());
        }
        let empty = reply(StatusCode::NO_CONTENT, None, &json!({}))?;
        let detail = json!({ "key": key });
        change
            .commit("setting.delete", (tenant.id, &slug), &detail, empty)
            .await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn read(tx: &Tx<'_>, tenant: &Tenant) -> Result<Vec<SettingView>, Fault> {
    let modules = tx.list_activations(tenant.id).await?;
    Ok(Settings::read(tx, tenant).await?.list(tenant, &modules))
}

/// A value that a profile could have too.
fn check(key: &str, value: Value) -> Result<Value, Fault> {
    check_key(key)?;
    match key {
        "sla" => typed::<String>(&value)?.parse::<Sla>().map(drop),
        "roles" => world::roles(&typed::<Vec<String>>(&value)?).map(drop),
        "retention_days" => world::retention_days(typed(&value)?).map(drop),
        "mfa" => world::mfa(&typed::<String>(&value)?).map(drop),
        _ => world::reports(&typed::<Vec<_>>(&value)?).map(drop),
    }
    .map_err(|fault| fault.field("value"))?;
    Ok(value)
}

fn check_key(key: &str) -> Result<(), Fault> {
    match key {
        "sla" | "roles" | "retention_days" | "mfa" | "reports" => Ok(()),
        "tier" | "modules" | "in_country" => {
            Err(fault::SETTING_FIXED.fault(format!("`{key}` is not changed as a setting")))
        }
        other => Err(unknown(other)),
    }
}

fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, Fault> {
    T::deserialize(value).map_err(|error| fault::INVALID_FIELD.fault(error.to_string()))
}

fn unknown(key: &str) -> Fault {
    fault::SETTING_UNKNOWN.fault(format!(
        "there is no setting `{}` of the tenant's own",
        fault::excerpt(key)
    ))
}
