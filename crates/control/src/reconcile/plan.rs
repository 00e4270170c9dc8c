//! What is left to do for a tenant: desired and observed in, steps out. Pure.
//!
//! Invariants: the door opens only after everything behind it is ready, and closes before anything
//! behind it goes; a plan for what is already so is empty.

use waangu_kernel::ModuleId;
use waangu_registry::Desired;
use waangu_tenancy::HomeState;
use waangu_tenancy::admin::Observed;

/// What the registry wants of one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Served, kept, or gone.
    pub desired: Desired,
    /// The placement's epoch.
    pub epoch: i64,
    /// The enabled modules with the number of migrations of each.
    pub modules: Vec<(ModuleId, usize)>,
    /// The numbers of its ancestors, itself included, in ascending order.
    pub lineage: Vec<i64>,
}

/// One idempotent step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the placement's database.
    CreatePlace,
    /// Say who may read it as part of a subtree.
    SetLineage,
    /// Bring a module's schema to its last migration.
    InstallModule(ModuleId),
    /// Let transactions begin.
    OpenHome,
    /// Let no transaction begin.
    CloseHome,
    /// Remove all data.
    RemoveData,
}

impl Step {
    /// For people.
    pub fn describe(&self) -> String {
        match self {
            Self::CreatePlace => "create database".to_owned(),
            Self::SetLineage => "record its place in the hierarchy".to_owned(),
            Self::InstallModule(module) => format!("install module {module}"),
            Self::OpenHome => "open".to_owned(),
            Self::CloseHome => "close".to_owned(),
            Self::RemoveData => "remove data".to_owned(),
        }
    }
}

/// The steps from what is to what is wanted.
pub fn plan(wanted: &Wanted, observed: &Observed) -> Vec<Step> {
    match wanted.desired {
        Desired::Deleted => removal(observed),
        Desired::Active => presence(wanted, observed, HomeState::Active),
        Desired::Suspended => presence(wanted, observed, HomeState::Suspended),
    }
}

fn presence(wanted: &Wanted, observed: &Observed, home: HomeState) -> Vec<Step> {
    let mut steps = Vec::new();
    if home == HomeState::Suspended && observed.home.is_some_and(|(state, _)| state != home) {
        steps.push(Step::CloseHome);
    }
    if !observed.database {
        steps.push(Step::CreatePlace);
    }
    // Early, because it also takes away: whom the tenant has left must not read on.
    if observed.lineage != wanted.lineage {
        steps.push(Step::SetLineage);
    }
    for (module, migrations) in &wanted.modules {
        let have = observed
            .modules
            .iter()
            .find(|(id, _)| id == module)
            .map_or(0, |(_, n)| *n);
        if have < *migrations {
            steps.push(Step::InstallModule(module.clone()));
        }
    }
    if observed.home != Some((home, wanted.epoch)) && !steps.contains(&Step::CloseHome) {
        steps.push(match home {
            HomeState::Active => Step::OpenHome,
            HomeState::Suspended => Step::CloseHome,
        });
    }
    steps
}

fn removal(observed: &Observed) -> Vec<Step> {
    // Data is looked for even where no door stands: an earlier attempt may have died in between.
    match observed.home {
        Some((HomeState::Active, _)) => vec![Step::CloseHome, Step::RemoveData],
        Some((HomeState::Suspended, _)) | None => vec![Step::RemoveData],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(desired: Desired) -> Wanted {
        Wanted {
            desired,
            epoch: 1,
            modules: vec![("inventory".parse().unwrap(), 2)],
            lineage: vec![1, 7],
        }
    }

    fn observed(home: Option<(HomeState, i64)>, migrations: usize) -> Observed {
        Observed {
            database: true,
            modules: vec![("inventory".parse().unwrap(), migrations)],
            home,
            lineage: vec![1, 7],
        }
    }

    /// The first line of each case is the state of the world; a wrong plan half-makes a tenant.
    #[test]
    fn plans_are_exactly_what_is_missing() {
        let install = Step::InstallModule("inventory".parse().unwrap());
        let nothing = Observed::default();
        let moved = |home| Observed {
            lineage: vec![2, 7],
            ..observed(Some((home, 1)), 1)
        };
        let cases = [
            (
                wanted(Desired::Active),
                moved(HomeState::Active),
                vec![Step::SetLineage, install.clone()],
            ),
            (
                wanted(Desired::Suspended),
                moved(HomeState::Active),
                vec![Step::CloseHome, Step::SetLineage, install.clone()],
            ),
            (
                wanted(Desired::Deleted),
                moved(HomeState::Suspended),
                vec![Step::RemoveData],
            ),
            (
                wanted(Desired::Active),
                nothing.clone(),
                vec![
                    Step::CreatePlace,
                    Step::SetLineage,
                    install.clone(),
                    Step::OpenHome,
                ],
            ),
            (
                wanted(Desired::Active),
                observed(None, 0),
                vec![install.clone(), Step::OpenHome],
            ),
            (
                wanted(Desired::Active),
                observed(Some((HomeState::Active, 1)), 1),
                vec![install.clone()],
            ),
            (
                wanted(Desired::Active),
                observed(Some((HomeState::Active, 1)), 2),
                vec![],
            ),
            (
                wanted(Desired::Active),
                observed(Some((HomeState::Suspended, 1)), 2),
                vec![Step::OpenHome],
            ),
            (
                wanted(Desired::Suspended),
                observed(Some((HomeState::Active, 1)), 1),
                vec![Step::CloseHome, install],
            ),
            (
                wanted(Desired::Suspended),
                observed(Some((HomeState::Suspended, 1)), 2),
                vec![],
            ),
            (
                wanted(Desired::Deleted),
                observed(Some((HomeState::Active, 1)), 2),
                vec![Step::CloseHome, Step::RemoveData],
            ),
            (wanted(Desired::Deleted), nothing, vec![Step::RemoveData]),
        ];
        for (wanted, observed, steps) in cases {
            assert_eq!(
                plan(&wanted, &observed),
                steps,
                "{wanted:?} from {observed:?}"
            );
        }
    }
}
