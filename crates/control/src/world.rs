//! The declared world and the registry's: what is declared is compared with what is there, and made
//! so, in one transaction.
//!
//! Invariants: applied twice, it changes nothing the second time; what is not declared is never
//! touched unless it is to be pruned, and never removed while something uses it; a cell with tenants
//! stays where it is. A dry run does everything and takes it back, so that it tells no fairy tales.

use waangu_api::world::{ApplyQuery, World, WorldChange, WorldDiff};
use waangu_kernel::{Fault, fault};
use waangu_registry::{Cell, Hold, Kind, Policy, Scope, Tx};

mod describe;
mod diff;
mod parse;

pub(crate) use describe::{policy_spec, profile_spec, threshold_spec};
pub(crate) use parse::{mfa, reports, retention_days, roles};

use diff::{EXTRA, REMOVE};
use parse::Declared;

/// Where a world is applied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Here<'a> {
    /// This installation's environment.
    pub(crate) environment: &'a str,
}

/// The registry's world, as somebody would declare it.
pub(crate) async fn current(tx: &Tx<'_>) -> Result<World, Fault> {
    describe::world(tx).await
}

/// Makes the registry's world the declared one; says what has changed. The caller commits, or not.
///
/// # Errors
/// `invalid-field` and others that name the entry and its field; `place-in-use`.
pub(crate) async fn apply(
    tx: &Tx<'_>,
    here: Here<'_>,
    world: &World,
    query: &ApplyQuery,
) -> Result<WorldDiff, Fault> {
    tx.lock_placement(Hold::Exclusive).await?;
    let cells = tx.list_cells().await?;
    let declared = Declared::parse(world, here.environment, &cells)?;
    let now = current(tx).await?;
    let mut changes = diff::diff(world, &now);
    check_references(world, &now)?;
    check_scopes(&declared, world, &now)?;
    check_limits(tx, world).await?;
    check_homes(&changes, &cells)?;
    write(tx, &declared, &changes).await?;
    let extra = settle_extras(tx, here, &mut changes, query.prune).await?;
    if query.prune && !query.dry_run && !extra.is_empty() {
        return Err(fault::PLACE_IN_USE.fault(format!("can't remove {}", extra.join("; "))));
    }
    Ok(WorldDiff {
        applied: !query.dry_run,
        warnings: warnings(tx, world).await?,
        changes,
    })
}

/// Refuses names of regions and environments that are neither declared nor there.
fn check_references(world: &World, now: &World) -> Result<(), Fault> {
    let region = |id: &str| {
        let mut all = world.regions.iter().chain(&now.regions);
        all.any(|region| region.id == id)
    };
    let environment = |id: &str| {
        let mut all = world.environments.iter().chain(&now.environments);
        all.any(|environment| environment.id == id)
    };
    let no_region = |id: &str, at: String| {
        let detail = format!("there is no region `{}`", fault::excerpt(id));
        Err(fault::REGION_UNKNOWN.fault(detail).field(at))
    };
    for country in &world.countries {
        if let Some(id) = country.regions.iter().find(|id| !region(id)) {
            return no_region(id, format!("countries.{}.regions", country.code));
        }
    }
    for cell in &world.cells {
        if !region(&cell.region) {
            return no_region(&cell.region, format!("cells.{}.region", cell.id));
        }
        if let Some(id) = cell.environment.as_deref().filter(|id| !environment(id)) {
            let detail = format!("there is no environment `{}`", fault::excerpt(id));
            return Err(fault::ENVIRONMENT_UNKNOWN
                .fault(detail)
                .field(format!("cells.{}.environment", cell.id)));
        }
    }
    Ok(())
}

/// Refuses policies about what is neither declared nor there: a misspelt one would hold nobody back.
fn check_scopes(declared: &Declared, world: &World, now: &World) -> Result<(), Fault> {
    for Policy { scope, .. } in &declared.policies {
        let known = [world, now].into_iter().any(|world| match scope {
            Scope::Global => true,
            Scope::Region(id) => world.regions.iter().any(|known| known.id == id.as_str()),
            Scope::Cell(id) => world.cells.iter().any(|known| known.id == id.as_str()),
            Scope::Profile(id) => world.profiles.iter().any(|known| known.id == id.as_str()),
        });
        if !known {
            return Err(fault::INVALID_FIELD
                .fault(format!("there is no {scope}"))
                .field(format!("advisor.{scope}.id")));
        }
    }
    Ok(())
}

/// Refuses limits of another type than they are declared with, and such that the platform, or an
/// installed module, does not declare: a misspelt one would hold nobody. A module that is not installed
/// yet may declare it.
async fn check_limits(tx: &Tx<'_>, world: &World) -> Result<(), Fault> {
    let catalogue = crate::admin::entitlement_catalogue(tx).await?;
    let modules = tx.list_modules().await?;
    let installed = |id: &str| {
        modules
            .iter()
            .any(|stored| stored.manifest.id.as_str() == id)
    };
    for profile in &world.profiles {
        for (key, value) in &profile.limits {
            let named = |fault: Fault| fault.field(format!("profiles.{}.limits", profile.id));
            if let Some(declaration) = catalogue.get(key) {
                declaration.check(value).map_err(named)?;
            } else if key
                .split_once('.')
                .is_none_or(|(module, _)| installed(module))
            {
                let detail = format!("nobody declares the limit `{}`", fault::excerpt(key));
                return Err(named(fault::INVALID_FIELD.fault(detail)));
            }
        }
    }
    Ok(())
}

/// Data does not move because somebody edits a file.
fn check_homes(changes: &[WorldChange], cells: &[Cell]) -> Result<(), Fault> {
    for change in changes.iter().filter(|change| change.kind == "cell") {
        let held = cells
            .iter()
            .find(|cell| cell.id.as_str() == change.id)
            .map_or(0, |cell| cell.tenants);
        let moved = change
            .fields
            .iter()
            .find(|field| matches!(field.field.as_str(), "region" | "environment"));
        if let Some(field) = moved.filter(|_| held > 0) {
            return Err(fault::PLACE_IN_USE
                .fault(format!(
                    "cell {} holds {held} tenants: its {} can't change",
                    change.id, field.field
                ))
                .field(format!("cells.{}.{}", change.id, field.field)));
        }
    }
    Ok(())
}

/// Writes what is new or different.
async fn write(tx: &Tx<'_>, declared: &Declared, changes: &[WorldChange]) -> Result<(), Fault> {
    let concerned = |kind: Kind, id: &str| {
        changes.iter().any(|change| {
            change.kind == kind.as_str()
                && change.id == id
                && change.action != EXTRA
                && change.action != REMOVE
        })
    };
    for (rank, id) in (0_i32..).zip(&declared.environments) {
        if concerned(Kind::Environment, id) {
            tx.put_environment(id, rank).await?;
        }
    }
    for region in &declared.regions {
        if concerned(Kind::Region, region.id.as_str()) {
            tx.put_region(region).await?;
        }
    }
    for country in &declared.countries {
        if concerned(Kind::Country, country.code.as_str()) {
            tx.put_country(country).await?;
        }
    }
    for profile in &declared.profiles {
        if concerned(Kind::Profile, profile.id.as_str()) {
            tx.put_profile(profile).await?;
        }
    }
    for cell in &declared.cells {
        if concerned(Kind::Cell, cell.id.as_str()) {
            tx.put_cell(cell).await?;
        }
    }
    write_advisor(tx, declared, concerned).await
}

async fn write_advisor(
    tx: &Tx<'_>,
    declared: &Declared,
    concerned: impl Fn(Kind, &str) -> bool,
) -> Result<(), Fault> {
    for threshold in &declared.thresholds {
        if concerned(Kind::Threshold, threshold.tier.as_str()) {
            tx.put_threshold(threshold).await?;
        }
    }
    for policy in &declared.policies {
        if concerned(Kind::Policy, &policy.scope.to_string()) {
            tx.put_policy(policy).await?;
        }
    }
    Ok(())
}

/// Says of what is not declared what uses it, and removes it if it is to be pruned and nothing does.
/// Returns what stands in the way of a removal.
async fn settle_extras(
    tx: &Tx<'_>,
    here: Here<'_>,
    changes: &mut [WorldChange],
    prune: bool,
) -> Result<Vec<String>, Fault> {
    let mut obstacles = Vec::new();
    // What names others goes first.
    for kind in Kind::ALL.into_iter().rev() {
        for change in changes.iter_mut() {
            if change.kind != kind.as_str() || change.action != EXTRA {
                continue;
            }
            change.used_by = tx.list_uses(kind, &change.id).await?;
            if kind == Kind::Environment && change.id == here.environment {
                change.used_by.push("this installation".to_owned());
            }
            if !prune {
                continue;
            }
            REMOVE.clone_into(&mut change.action);
            if change.used_by.is_empty() {
                tx.remove_declared(kind, &change.id).await?;
            } else {
                let by = change.used_by.join(", ");
                obstacles.push(format!("{} {}: used by {by}", change.kind, change.id));
            }
        }
    }
    Ok(obstacles)
}

async fn warnings(tx: &Tx<'_>, world: &World) -> Result<Vec<String>, Fault> {
    let mut warnings = Vec::new();
    let installed = tx.list_modules().await?;
    for profile in &world.profiles {
        for module in &profile.modules {
            let known = |stored: &waangu_registry::StoredModule| {
                stored.manifest.id.as_str() == module.as_str()
            };
            if !installed.iter().any(known) {
                warnings.push(format!(
                    "profile {}: module {module} is not installed here",
                    profile.id
                ));
            }
        }
    }
    let catalogue = crate::admin::entitlement_catalogue(tx).await?;
    for profile in &world.profiles {
        for key in profile.limits.keys() {
            if catalogue.get(key).is_none() {
                let id = &profile.id;
                warnings.push(format!("profile {id}: nobody declares the limit {key}"));
            }
        }
    }
    for (tenant, country, region) in tx.list_misplaced().await? {
        let slug = tx.get_tenant_by_id(tenant).await?.slug;
        warnings.push(format!(
            "tenant {slug} of {country} lives in region {region}, which the rule of {country} forbids"
        ));
        if warnings.len() >= 50 {
            warnings.push("and more".to_owned());
            break;
        }
    }
    Ok(warnings)
}

/// What the control plane does at its start: an empty registry is given the world that the process
/// was told; later, only a new cell of its own is taken in, and where its cells answer is brought up
/// to date. Everything else is changed by `PUT /world`, so that a restart takes nothing back.
///
/// # Errors
/// As [`apply`].
pub(crate) async fn bootstrap(
    tx: &Tx<'_>,
    here: Here<'_>,
    world: &World,
    own: &[&waangu_tenancy::CellAdminConfig],
) -> Result<(), Fault> {
    let cells = tx.list_cells().await?;
    if tx.list_environments().await?.is_empty() {
        apply(tx, here, world, &ApplyQuery::default()).await?;
    } else {
        for cell in Declared::parse(world, here.environment, &cells)?.cells {
            let known = cells.iter().any(|there| there.id == cell.id);
            if !known && own.iter().any(|admin| admin.id == cell.id) {
                tx.put_cell(&cell).await?;
            }
        }
    }
    for admin in own {
        tx.set_cell_address(&admin.id, &admin.host, i32::from(admin.port))
            .await?;
    }
    Ok(())
}
