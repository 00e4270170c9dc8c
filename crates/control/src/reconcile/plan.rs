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
    /// The enabled modules.
    pub modules: Vec<WantedModule>,
    /// The numbers of its ancestors, itself included, in ascending order.
    pub lineage: Vec<i64>,
}

/// A module that is switched on for a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedModule {
    /// The module.
    pub module: ModuleId,
    /// Migrations of the package that its tables shall have: the one they stand on, or the newest.
    pub steps: usize,
    /// Migrations that its tables are known to have; zero if it is only known that they are there.
    pub stands: Option<usize>,
}

impl WantedModule {
    /// Migrations that its tables shall have, given those they have. Tables that are there get newer by
    /// a rollout only, whatever else brings the reconciler here.
    fn target(&self, have: usize) -> usize {
        match self.stands {
            Some(0) if have > 0 => have,
            Some(_) | None => self.steps,
        }
    }
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
    for wanted in &wanted.modules {
        let have = migrations(observed, &wanted.module);
        if have < wanted.target(have) {
            steps.push(Step::InstallModule(wanted.module.clone()));
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

/// A module of which tables are known to have stood where now none are. To make them again would be to
/// hide that a tenant's data is gone.
pub fn lost<'w>(wanted: &'w Wanted, observed: &Observed) -> Option<&'w ModuleId> {
    if wanted.desired == Desired::Deleted {
        return None;
    }
    let gone = wanted.modules.iter().find(|module| {
        module.stands.is_some_and(|steps| steps > 0) && migrations(observed, &module.module) == 0
    });
    gone.map(|module| &module.module)
}

/// The epoch at which the tenant has left this place, if the registry does not know of it: then it is older
/// than the cell, and the tenant lives elsewhere. To open the door would be to serve it twice.
pub(crate) fn left_at(wanted: &Wanted, observed: &Observed) -> Option<i64> {
    let (_, epoch) = observed.home?;
    (epoch > wanted.epoch).then_some(epoch)
}

fn migrations(observed: &Observed, module: &ModuleId) -> usize {
    let found = observed.modules.iter().find(|(id, _)| id == module);
    found.map_or(0, |(_, steps)| *steps)
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
            modules: vec![WantedModule {
                module: "inventory".parse().unwrap(),
                steps: 2,
                stands: None,
            }],
            lineage: vec![1, 7],
        }
    }

    fn standing(steps: usize) -> Wanted {
        let mut wanted = wanted(Desired::Active);
        wanted.modules[0].stands = Some(steps);
        wanted
    }

    /// Tables get newer wave by wave, or a bad migration reaches everybody at the next suspend; and an
    /// empty schema in the place of a lost one would look like a healthy tenant that has no data.
    #[test]
    fn what_stands_is_neither_upgraded_nor_made_anew() {
        let install = Step::InstallModule("inventory".parse().unwrap());
        let open = Some((HomeState::Active, 1));
        assert_eq!(plan(&standing(0), &observed(open, 1)), vec![]);
        assert_eq!(
            plan(&standing(0), &observed(open, 0)),
            vec![install.clone()]
        );
        assert_eq!(plan(&standing(2), &observed(open, 1)), vec![install]);
        assert_eq!(plan(&standing(2), &observed(open, 3)), vec![]);
        assert_eq!(lost(&standing(2), &observed(open, 1)), None);
        assert_eq!(lost(&standing(0), &observed(open, 0)), None);
        assert_eq!(lost(&wanted(Desired::Active), &Observed::default()), None);
        assert!(lost(&standing(2), &observed(open, 0)).is_some());
        assert!(lost(&standing(2), &Observed::default()).is_some());
        let leaving = Wanted {
            desired: Desired::Deleted,
            ..standing(2)
        };
        assert_eq!(lost(&leaving, &Observed::default()), None);
    }

    /// A registry that was restored from before a move would open the old place beside the new one.
    #[test]
    fn a_place_that_was_left_later_than_the_registry_knows_is_told() {
        let moved = |epoch| observed(Some((HomeState::Suspended, epoch)), 2);
        assert_eq!(left_at(&wanted(Desired::Active), &moved(2)), Some(2));
        assert_eq!(left_at(&wanted(Desired::Deleted), &moved(2)), Some(2));
        assert_eq!(left_at(&wanted(Desired::Active), &moved(1)), None);
        assert_eq!(left_at(&wanted(Desired::Active), &observed(None, 2)), None);
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
