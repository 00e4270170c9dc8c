//! From the registry's types to the wire's.

use waangu_api::types::{
    Accepted, ActivationView, EntitlementView, OperationView, PlacementView, TenantView,
};
use waangu_kernel::entitlement::{Catalogue, Declaration, Origin};
use waangu_kernel::{CellId, Fault, RegionId};
use waangu_registry::{Activation, Held, Operation, Tenant, Tx};

use super::settings::Settings;
use crate::config::Config;

/// A tenant with all that belongs to it.
pub(crate) async fn tenant(
    tx: &Tx<'_>,
    config: &Config,
    regions: &[(CellId, RegionId)],
    catalogue: &Catalogue,
    tenant: Tenant,
) -> Result<TenantView, Fault> {
    let modules = tx.list_activations(tenant.id).await?;
    let held = tx.get_held(tenant.id).await?;
    let entitlements = catalogue
        .iter()
        .filter(|one| held.layers().find(one).1 != Origin::Default)
        .map(|one| entitlement(one, &held))
        .collect();
    let settings = Settings::read(tx, &tenant).await?.list(&tenant, &modules);
    Ok(TenantView {
        id: tenant.id.to_string(),
        placement: placement(&tenant, regions),
        url: config.tenant_url(tenant.slug.as_str()),
        slug: tenant.slug.into(),
        name: tenant.name,
        country: tenant.country.into(),
        parent: tenant.parent.map(|(_, slug)| slug.into()),
        profile: tenant.profile.map(Into::into),
        plan: tenant.plan.map(Into::into),
        state: tenant.state.as_str().to_owned(),
        modules: modules.into_iter().map(activation).collect(),
        entitlements,
        settings,
        generation: tenant.generation,
        last_error: tenant.last_error,
        created_at: tenant.created_at,
    })
}

/// A tenant's placement.
pub(crate) fn placement(tenant: &Tenant, regions: &[(CellId, RegionId)]) -> PlacementView {
    let placement = &tenant.placement;
    let region = regions.iter().find(|(cell, _)| *cell == placement.cell);
    PlacementView {
        cell: placement.cell.to_string(),
        region: region
            .map(|(_, region)| region.to_string())
            .unwrap_or_default(),
        tier: placement.tier.to_string(),
        database: placement.database(tenant.id),
        epoch: placement.epoch,
        reasons: tenant.reasons.clone(),
    }
}

/// An operation.
pub(crate) fn operation(operation: Operation) -> OperationView {
    OperationView {
        id: operation.id.to_string(),
        tenant: operation.tenant.into(),
        kind: operation.kind,
        status: operation.status.as_str().to_owned(),
        step: operation.step,
        percent: operation.percent,
        error: operation.error,
        created_at: operation.created_at,
        finished_at: operation.finished_at,
    }
}

/// An operation with the tenant's placement.
pub(crate) fn accepted(op: Operation, tenant: &Tenant, regions: &[(CellId, RegionId)]) -> Accepted {
    Accepted {
        operation: operation(op),
        placement: placement(tenant, regions),
    }
}

fn activation(activation: Activation) -> ActivationView {
    let Activation {
        module,
        version,
        enabled,
        ready,
    } = activation;
    ActivationView {
        module: module.into(),
        version,
        enabled,
        ready,
    }
}

/// A flag or limit as a tenant has it.
pub(crate) fn entitlement(declaration: &Declaration, held: &Held) -> EntitlementView {
    let (value, origin) = held.layers().find(declaration);
    EntitlementView {
        key: declaration.key.clone(),
        kind: declaration.kind.to_string(),
        value: value.clone(),
        origin: origin.as_str().to_owned(),
    }
}
