//! Whether an authenticated request may happen: tenant, module, route, permission, in this order.
//!
//! Invariants: called only after the token was verified, so that strangers learn nothing of a
//! tenant's modules; roles come from the registry's grants, never from the token; what is not
//! declared is not let through.

use http::Method;
use waangu_kernel::manifest::Scope;
use waangu_kernel::{Fault, ModuleId, Permission, UserId, fault};

use crate::problem::Refusal;
use crate::snapshot::Tenant;
use crate::snapshot::modules::{Door, Modules};

/// What was allowed.
#[derive(Debug)]
pub(crate) struct Grant {
    /// The route's template, for logs.
    pub(crate) template: String,
    /// Everything the actor may do in this module.
    pub(crate) permissions: Vec<Permission>,
    /// Whose rows the route reaches.
    pub(crate) scope: Scope,
}

/// Refuses a tenant that is not served.
pub(crate) fn require_active(tenant: &Tenant) -> Result<(), Fault> {
    if tenant.is_active() {
        return Ok(());
    }
    let detail = format!("tenant `{}` is not active", tenant.slug);
    Err(fault::TENANT_NOT_ACTIVE.fault(detail))
}

/// Decides.
pub(crate) fn authorise(
    tenant: &Tenant,
    modules: &Modules,
    user: UserId,
    id: &ModuleId,
    method: &Method,
    path: &str,
) -> Result<Grant, Refusal> {
    require_active(tenant)?;
    let module = modules
        .get(id)
        .ok_or_else(|| fault::ROUTE_NOT_FOUND.fault("no module with this name is installed"))?;
    if !tenant.modules().contains(id) {
        let detail = format!("module `{id}` is not active for tenant `{}`", tenant.slug);
        return Err(fault::MODULE_NOT_ACTIVE.fault(detail).into());
    }
    let (template, needed, scope) = match module.door(method, path) {
        Door::Open {
            template,
            permission,
            scope,
        } => (template, permission, scope),
        Door::OtherMethods(allow) => {
            let detail = format!("this address answers to {allow}");
            return Err(Refusal {
                allow: Some(allow),
                ..fault::METHOD_NOT_ALLOWED.fault(detail).into()
            });
        }
        Door::None => {
            let detail = format!("module `{id}` has no such address");
            return Err(fault::ROUTE_NOT_FOUND.fault(detail).into());
        }
    };
    let permissions = module.permissions(tenant.roles(user));
    if permissions.contains(needed) {
        Ok(Grant {
            template: template.to_owned(),
            permissions,
            scope,
        })
    } else {
        let detail = format!("permission `{needed}` is needed");
        Err(fault::PERMISSION_DENIED.fault(detail).into())
    }
}
