//! `POST /tenants`: onboarding.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::json;
use waangu_api::Problem;
use waangu_api::types::{Accepted, CreateTenant};
use waangu_kernel::entitlement::{Catalogue, Values};
use waangu_kernel::{CountryCode, Fault, ModuleId, PlanId, ProfileId, Slug, TenantId, Tier, fault};
use waangu_registry::{Country, NewTenant, StoredModule, Tenant, Tx};

use super::call::{Begun, Call, Change};
use super::{entitlements, operations};
use crate::placement::{Question, choose};
use crate::reply::{RawBody, Refusal};
use crate::server::App;

/// The profile of a tenant that names none.
const DEFAULT_PROFILE: &str = "sme";

/// Tenants that one schema-tier database holds (data-plane design §4: catalogues and the memory of
/// each connection grow with every schema).
const BUCKET_LIMIT: i64 = 400;

/// Longest name for people, in characters.
pub(super) const NAME_LIMIT: usize = 200;

/// Onboards a tenant: chooses its place, answers with the reasons, and provisions it.
#[utoipa::path(post, path = "/tenants", operation_id = "tenants.create", tag = "tenants",
    request_body = CreateTenant,
    responses((status = 202, body = Accepted, headers(("Location" = String))),
              (status = "default", body = Problem)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    call: Call,
    body: RawBody,
) -> Result<Response, Refusal> {
    let wish = Wish::parse(body.parse()?)?;
    let mut session = app.registry.session().await?;
    let stored = match Change::begin(&mut session, &call, &body.bytes).await? {
        Begun::Done(stored) => stored,
        Begun::Fresh(change) => onboard(&app, change, wish).await?,
    };
    drop(session);
    operations::answer(&app, &call, stored).await
}

async fn onboard(
    app: &App,
    change: Change<'_>,
    wish: Wish,
) -> Result<waangu_registry::StoredReply, Fault> {
    let tx = &change.tx;
    let country = served_country(tx, wish.country).await?;
    let profile = tx.get_profile(&wish.profile).await?.ok_or_else(|| {
        fault::PROFILE_UNKNOWN
            .fault(format!("there is no profile `{}`", wish.profile))
            .field("profile")
    })?;
    let parent = match &wish.parent {
        Some(slug) => {
            tx.lock_tree().await?;
            Some(kin(tx, slug, &country).await?)
        }
        None => None,
    };
    let modules = match wish.modules {
        Some(modules) => modules,
        None => profile.modules.clone(),
    };
    let installed = tx.list_modules().await?;
    check_modules(&installed, &modules)?;
    let catalogue = Catalogue::new(installed.iter().map(|stored| &stored.manifest));
    entitlements::check_values(&catalogue, &wish.entitlements)?;
    let (regions, cells) = (tx.list_regions().await?, tx.list_cells().await?);
    let choice = choose(&Question {
        country: &country,
        profile: &profile,
        tier: wish.tier,
        environment: &app.config.environment,
        regions: &regions,
        cells: &cells,
    })?;
    let bucket = match choice.tier {
        Tier::Schema => tx.choose_bucket(&choice.cell, BUCKET_LIMIT).await?,
        Tier::Shared | Tier::Dedicated => 0,
    };
    let new = NewTenant {
        slug: wish.slug.clone(),
        name: wish.name,
        country: wish.country,
        parent,
        profile: Some(wish.profile),
        tier: choice.tier,
        cell: choice.cell,
        bucket,
        reasons: choice.reasons,
    };
    let id = tx
        .create_tenant(&new, app.config.name_grace_seconds)
        .await?;
    for module in &modules {
        tx.put_activation(id, module, true).await?;
    }
    for (key, value) in &wish.entitlements {
        tx.put_entitlement(id, key, value).await?;
    }
    if let Some(plan) = &wish.plan {
        tx.put_tenant_plan(id, Some(plan)).await?;
    }
    let detail = json!({
        "country": new.country,
        "tier": new.tier,
        "cell": new.cell,
        "modules": modules,
        "plan": wish.plan,
        "entitlements": wish.entitlements,
        "reasons": new.reasons,
    });
    operations::open(app, change, "create", (id, &wish.slug), 1, &detail).await
}

/// What was asked for, parsed.
struct Wish {
    slug: Slug,
    name: String,
    country: CountryCode,
    parent: Option<Slug>,
    profile: ProfileId,
    tier: Option<Tier>,
    modules: Option<Vec<ModuleId>>,
    plan: Option<PlanId>,
    entitlements: Values,
}

impl Wish {
    fn parse(body: CreateTenant) -> Result<Self, Fault> {
        let parent = body.parent.map(|slug| parent_slug(&slug)).transpose()?;
        let profile = body.profile.as_deref().unwrap_or(DEFAULT_PROFILE);
        let modules = body
            .modules
            .map(|modules| {
                modules
                    .iter()
                    .map(|id| module_id(id))
                    .collect::<Result<_, _>>()
            })
            .transpose()?;
        Ok(Self {
            slug: body.slug.parse()?,
            name: check_name(body.name)?,
            country: body.country.parse()?,
            parent,
            profile: profile.parse()?,
            tier: body.tier.as_deref().map(str::parse).transpose()?,
            modules,
            plan: body.plan.as_deref().map(plan_id).transpose()?,
            entitlements: body.entitlements,
        })
    }
}

/// A plan's id in a request body.
pub(super) fn plan_id(text: &str) -> Result<PlanId, Fault> {
    text.parse().map_err(|fault: Fault| fault.field("plan"))
}

/// A name for people: not empty, not endless, without control characters.
pub(super) fn check_name(name: String) -> Result<String, Fault> {
    let fine = !name.trim().is_empty()
        && name.chars().count() <= NAME_LIMIT
        && !name.chars().any(char::is_control);
    if fine {
        return Ok(name);
    }
    Err(fault::INVALID_FIELD
        .fault(format!("a name has 1 to {NAME_LIMIT} printable characters"))
        .field("name"))
}

/// A module's id in a request body.
pub(super) fn module_id(text: &str) -> Result<ModuleId, Fault> {
    text.parse().map_err(|fault: Fault| fault.field("modules"))
}

/// A parent's slug in a request body.
pub(super) fn parent_slug(text: &str) -> Result<Slug, Fault> {
    text.parse().map_err(|_fault: Fault| unknown_parent(text))
}

fn unknown_parent(text: &str) -> Fault {
    fault::PARENT_UNKNOWN
        .fault(format!("there is no tenant `{}`", fault::excerpt(text)))
        .field("parent")
}

/// The country, if this installation serves it.
async fn served_country(tx: &Tx<'_>, code: CountryCode) -> Result<Country, Fault> {
    tx.list_countries(Some(code)).await?.pop().ok_or_else(|| {
        fault::COUNTRY_UNKNOWN
            .fault(format!("this installation does not serve {code}"))
            .field("country")
    })
}

/// The parent, if kinship between the two countries is allowed.
async fn kin(tx: &Tx<'_>, slug: &Slug, country: &Country) -> Result<TenantId, Fault> {
    let parent = match tx.lock_tenant(slug).await {
        Ok(parent) => parent,
        Err(fault) if fault.code() == fault::TENANT_NOT_FOUND.code => {
            return Err(unknown_parent(slug.as_str()));
        }
        Err(other) => return Err(other.field("parent")),
    };
    check_kin(tx, &parent, country).await?;
    Ok(parent.id)
}

/// Refuses kinship across a border that either side's rule closes.
pub(super) async fn check_kin(
    tx: &Tx<'_>,
    parent: &Tenant,
    country: &Country,
) -> Result<(), Fault> {
    if parent.country == country.code {
        return Ok(());
    }
    let parents = served_country(tx, parent.country).await?;
    let closed = [country, &parents]
        .into_iter()
        .find(|side| !side.kin_abroad);
    match closed {
        Some(side) => Err(fault::PARENT_COUNTRY_FORBIDDEN
            .fault(format!(
                "{} does not allow kinship between {} and {}",
                side.code, country.code, parent.country
            ))
            .field("parent")),
        None => Ok(()),
    }
}

/// Refuses modules that are not installed, or whose dependencies are left out.
fn check_modules(installed: &[StoredModule], wanted: &[ModuleId]) -> Result<(), Fault> {
    for module in wanted {
        let found = installed
            .iter()
            .find(|stored| stored.manifest.id == *module);
        let Some(stored) = found else {
            return Err(fault::MODULE_UNKNOWN
                .fault(format!("module `{module}` is not installed"))
                .field("modules"));
        };
        if let Some(missing) = stored
            .manifest
            .depends
            .iter()
            .find(|needed| !wanted.contains(needed))
        {
            return Err(fault::MODULE_DEPENDENCY
                .fault(format!("module `{module}` needs `{missing}`"))
                .field("modules"));
        }
    }
    Ok(())
}
