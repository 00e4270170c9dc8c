//! `POST /tenants`: onboarding.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use futures_util::future::try_join_all;
use futures_util::try_join;
use serde_json::{Value, json};
use waangu_api::types::{Accepted, CreateTenant, Rehearsed, Trial};
use waangu_api::{Problem, REPLAYED_HEADER};
use waangu_kernel::entitlement::{Catalogue, Values};
use waangu_kernel::{
    CountryCode, Fault, ModuleId, PlanId, ProfileId, Sla, Slug, TenantId, Tier, fault,
};
use waangu_registry::{
    Country, Hold, NewTenant, Profile, Session, StoredModule, StoredReply, Tenant, Tx,
};

use super::call::{Begun, Call, Change};
use super::surroundings::Surroundings;
use super::{entitlements, operations, view};
use crate::placement::{Choice, Question, choose};
use crate::reply::{Query, RawBody, Refusal};
use crate::server::App;

/// The profile of a tenant that names none.
const DEFAULT_PROFILE: &str = "sme";

/// With more places free than this, creations need not wait for each other: so many can't be under
/// way at once, because each holds a connection to the control database.
const ELBOW_ROOM: i64 = 1000;

/// Longest name for people, in characters.
pub(super) const NAME_LIMIT: usize = 200;

/// Onboards a tenant: chooses its place, answers with the reasons, and provisions it. With `dry_run`
/// all checks are made and nothing is changed. A repeated `Idempotency-Key` gets its first answer, with
/// `Idempotent-Replayed: true`.
#[utoipa::path(post, path = "/tenants", operation_id = "tenants.create", tag = "tenants",
    request_body = CreateTenant, params(Trial),
    responses((status = 202, body = Accepted, headers(("Location" = String))),
              (status = 200, body = Rehearsed, description = "What a dry run found"),
              (status = "default", body = Problem)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    call: Call,
    Query(trial): Query<Trial>,
    body: RawBody,
) -> Result<Response, Refusal> {
    let wish = Wish::parse(body.parse()?)?;
    if trial.parent_country.is_some() && !trial.dry_run {
        return Err(fault::INVALID_FIELD
            .fault("only a dry run takes a parent that does not exist yet")
            .field("parent_country")
            .into());
    }
    let mut session = app.registry.session().await?;
    if trial.dry_run {
        return Ok(rehearse(&app, &mut session, wish, &trial).await?);
    }
    // From before the work can begin, so that its end can't be missed.
    let mut waiter = app.reconciler.progress.wait();
    let (stored, born) = match Change::begin(&mut session, &call, &body.bytes).await? {
        Begun::Done(stored) => (stored, None),
        Begun::Fresh(change) => {
            let (tenant, stored) = onboard(&app, change, wish).await?;
            (stored, Some(tenant))
        }
    };
    drop(session);
    if let Some(tenant) = born {
        operations::let_work(&call, &mut waiter, tenant).await;
    }
    let mut answer = operations::answer(&app, &call, stored).await?;
    if born.is_none() {
        let yes = HeaderValue::from_static("true");
        answer.headers_mut().insert(REPLAYED_HEADER, yes);
    }
    Ok(answer)
}

async fn onboard(
    app: &App,
    change: Change<'_>,
    wish: Wish,
) -> Result<(TenantId, StoredReply), Fault> {
    let slug = wish.slug.clone();
    let (id, detail) = bear(app, &change.tx, wish, None).await?;
    let stored = operations::open(app, change, "create", (id, &slug), 1, &detail).await?;
    Ok((id, stored))
}

/// Does all that a creation does, and forgets it.
async fn rehearse(
    app: &App,
    session: &mut Session,
    wish: Wish,
    trial: &Trial,
) -> Result<Response, Fault> {
    let abroad = trial.parent_country.as_deref().map(str::parse).transpose();
    let abroad = abroad.map_err(|fault: Fault| fault.field("parent_country"))?;
    // Dropped without a commit: nothing has happened.
    let tx = session.begin().await?;
    let (id, _) = bear(app, &tx, wish, abroad).await?;
    let tenant = tx.get_tenant_by_id(id).await?;
    let placement = view::placement(&tenant, &tx.list_cell_regions().await?);
    Ok(Json(Rehearsed { placement }).into_response())
}

/// Writes all that belongs to a new tenant; returns its number and what the audit has to know. With
/// `abroad`, its parent is one of this country that is not there yet.
async fn bear(
    app: &App,
    tx: &Tx<'_>,
    wish: Wish,
    abroad: Option<CountryCode>,
) -> Result<(TenantId, Value), Fault> {
    let Placed {
        country,
        profile,
        choice,
        installed,
    } = place(app, tx, &wish).await?;
    if let Some(parents) = abroad {
        check_border(tx, parents, &country).await?;
    }
    let parent = match &wish.parent {
        Some(slug) => {
            tx.lock_tree().await?;
            Some(kin(tx, slug, &country).await?)
        }
        None => None,
    };
    let modules = wish.modules.as_ref().unwrap_or(&profile.modules);
    check_modules(&installed, modules)?;
    check_values(&installed, &wish.entitlements)?;
    let bucket = match choice.tier {
        Tier::Schema => tx.choose_bucket(&choice.cell).await?,
        Tier::Shared | Tier::Dedicated => 0,
    };
    let new = NewTenant {
        slug: wish.slug.clone(),
        name: wish.name.clone(),
        country: wish.country,
        parent,
        profile: Some(wish.profile.clone()),
        tier: choice.tier,
        cell: choice.cell,
        bucket,
        reasons: choice.reasons,
    };
    let id = tx
        .create_tenant(&new, app.config.name_grace_seconds)
        .await?;
    let overrides = wish.overrides();
    let overrides = overrides
        .iter()
        .map(|(key, value)| tx.put_override(id, key, value));
    let activations = modules
        .iter()
        .map(|module| tx.put_activation(id, module, true));
    try_join!(
        try_join_all(overrides),
        try_join_all(activations),
        subscribe(tx, id, wish.plan.as_ref(), &wish.entitlements),
    )?;
    let detail = json!({
        "country": new.country,
        "tier": new.tier,
        "cell": new.cell,
        "modules": modules,
        "plan": wish.plan,
        "entitlements": wish.entitlements,
        "reasons": new.reasons,
    });
    Ok((id, detail))
}

/// Refuses flags and limits that nobody declares.
fn check_values(installed: &[StoredModule], values: &Values) -> Result<(), Fault> {
    let catalogue = Catalogue::new(installed.iter().map(|stored| &stored.manifest));
    entitlements::check_values(&catalogue, values)
}

/// Gives a new tenant its plan, and flags and limits of its own.
async fn subscribe(
    tx: &Tx<'_>,
    id: TenantId,
    plan: Option<&PlanId>,
    own: &Values,
) -> Result<(), Fault> {
    for (key, value) in own {
        tx.put_entitlement(id, key, value).await?;
    }
    match plan {
        Some(plan) => tx.put_tenant_plan(id, Some(plan)).await,
        None => Ok(()),
    }
}

/// Where a tenant will be, and what that was decided on.
struct Placed {
    country: Country,
    profile: Profile,
    choice: Choice,
    installed: Vec<StoredModule>,
}

/// Chooses the place, and keeps it free until the transaction ends: beside other creations while
/// there is elbow room, alone where places are few. What the choice rests on is read under the lock.
async fn place(app: &App, tx: &Tx<'_>, wish: &Wish) -> Result<Placed, Fault> {
    let mut hold = Hold::Shared;
    loop {
        tx.savepoint().await?;
        tx.lock_placement(hold).await?;
        let (country, profile, surroundings, installed) = try_join!(
            served_country(tx, wish.country),
            known_profile(tx, &wish.profile),
            Surroundings::read(app, tx),
            tx.list_modules(),
        )?;
        let choice = choose(&Question {
            tier: wish.tier,
            sla: wish.sla,
            ..surroundings.question(&country, &profile)
        })?;
        let taker = surroundings
            .cells
            .iter()
            .find(|cell| cell.id == choice.cell);
        let free = taker.map_or(0, |cell| i64::from(cell.capacity) - cell.tenants);
        if hold == Hold::Exclusive || free > ELBOW_ROOM {
            return Ok(Placed {
                country,
                profile,
                choice,
                installed,
            });
        }
        // Whoever waits to be alone must not hold what others wait for.
        tx.back_to_savepoint().await?;
        hold = Hold::Exclusive;
    }
}

async fn known_profile(tx: &Tx<'_>, id: &ProfileId) -> Result<Profile, Fault> {
    tx.get_profile(id).await?.ok_or_else(|| {
        fault::PROFILE_UNKNOWN
            .fault(format!("there is no profile `{id}`"))
            .field("profile")
    })
}

/// What was asked for, parsed.
struct Wish {
    slug: Slug,
    name: String,
    country: CountryCode,
    parent: Option<Slug>,
    profile: ProfileId,
    tier: Option<Tier>,
    sla: Option<Sla>,
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
            sla: body.sla.as_deref().map(str::parse).transpose()?,
            modules,
            plan: body.plan.as_deref().map(plan_id).transpose()?,
            entitlements: body.entitlements,
        })
    }

    /// What was asked for instead of what the profile gives.
    fn overrides(&self) -> Vec<(&'static str, Value)> {
        let tier = self.tier.map(|tier| ("tier", json!(tier)));
        let sla = self.sla.map(|sla| ("sla", json!(sla)));
        let modules = self.modules.as_ref().map(|all| ("modules", json!(all)));
        [tier, sla, modules].into_iter().flatten().collect()
    }
}

/// A plan's id in a request body.
pub(super) fn plan_id(text: &str) -> Result<PlanId, Fault> {
    text.parse().map_err(|fault: Fault| fault.field("plan"))
}

/// A name for people: not empty, not endless, without control characters.
pub(crate) fn check_name(name: String) -> Result<String, Fault> {
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
    check_border(tx, parent.country, country).await
}

async fn check_border(tx: &Tx<'_>, parent: CountryCode, country: &Country) -> Result<(), Fault> {
    if parent == country.code {
        return Ok(());
    }
    let parents = served_country(tx, parent).await?;
    let closed = [country, &parents]
        .into_iter()
        .find(|side| !side.kin_abroad);
    match closed {
        Some(side) => Err(fault::PARENT_COUNTRY_FORBIDDEN
            .fault(format!(
                "{} does not allow kinship between {} and {parent}",
                side.code, country.code
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
