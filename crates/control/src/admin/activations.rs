//! Switching modules on and off for a tenant. Off hides the module and keeps its data.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::json;
use waangu_api::Problem;
use waangu_api::types::Accepted;
use waangu_kernel::{Fault, ModuleId, fault};
use waangu_registry::{StoredReply, Tenant, Tx};

use super::call::{Begun, Call, Change};
use super::{operations, tenants};
use crate::reply::{Path, Refusal};
use crate::server::App;

/// Switches a module on.
#[utoipa::path(put, path = "/tenants/{slug}/modules/{module}", operation_id = "modules.enable",
    tag = "modules", params(("slug" = String, Path), ("module" = String, Path)),
    responses((status = 202, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn put(
    State(app): State<Arc<App>>,
    call: Call,
    Path((slug, module)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let stored = switch(&app, &call, &slug, &module, true).await?;
    operations::answer(&app, &call, stored).await
}

/// Switches a module off; its data is kept.
#[utoipa::path(delete, path = "/tenants/{slug}/modules/{module}", operation_id = "modules.disable",
    tag = "modules", params(("slug" = String, Path), ("module" = String, Path)),
    responses((status = 202, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    call: Call,
    Path((slug, module)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let stored = switch(&app, &call, &slug, &module, false).await?;
    operations::answer(&app, &call, stored).await
}

async fn switch(
    app: &App,
    call: &Call,
    slug: &str,
    module: &str,
    enabled: bool,
) -> Result<StoredReply, Fault> {
    let slug = tenants::parse(slug)?;
    let module: ModuleId = module.parse()?;
    let mut session = app.registry.session().await?;
    let change = match Change::begin(&mut session, call, &[]).await? {
        Begun::Done(stored) => return Ok(stored),
        Begun::Fresh(change) => change,
    };
    let tenant = change.tx.lock_tenant(&slug).await?;
    call.check_version(&tenant)?;
    check_dependencies(&change.tx, &tenant, &module, enabled).await?;
    change
        .tx
        .put_activation(tenant.id, &module, enabled)
        .await?;
    let generation = change.tx.touch_tenant(tenant.id).await?;
    let kind = if enabled { "enable" } else { "disable" };
    let detail = json!({ "module": module });
    operations::open(app, change, kind, (tenant.id, &slug), generation, &detail).await
}

/// What a module needs must be on before it; what needs it must be off before it goes.
async fn check_dependencies(
    tx: &Tx<'_>,
    tenant: &Tenant,
    module: &ModuleId,
    enabled: bool,
) -> Result<(), Fault> {
    let installed = tx.list_modules().await?;
    let Some(stored) = installed
        .iter()
        .find(|stored| stored.manifest.id == *module)
    else {
        return Err(fault::MODULE_UNKNOWN.fault(format!("module `{module}` is not installed")));
    };
    let active: Vec<ModuleId> = tx
        .list_activations(tenant.id)
        .await?
        .into_iter()
        .filter(|activation| activation.enabled)
        .map(|activation| activation.module)
        .collect();
    let obstacle = if enabled {
        let missing = stored
            .manifest
            .depends
            .iter()
            .find(|needed| !active.contains(needed));
        missing.map(|needed| format!("`{module}` needs `{needed}`, which is off"))
    } else {
        let dependent = installed
            .iter()
            .map(|stored| &stored.manifest)
            .find(|manifest| active.contains(&manifest.id) && manifest.depends.contains(module));
        dependent.map(|manifest| format!("`{}` is on and needs `{module}`", manifest.id))
    };
    obstacle.map_or(Ok(()), |why| Err(fault::MODULE_DEPENDENCY.fault(why)))
}
