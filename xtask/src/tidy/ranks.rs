//! Which crate of ours may name which: only downwards.
//!
//! `deny.toml` says the same with `wrappers`, for cargo-deny; this check needs nothing installed.

use std::collections::BTreeMap;

use super::Finding;
use crate::workspace::{DependencyKind, Workspace};

/// A crate's place in the house.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Names only crates of a lower rank.
    Rank(u8),
    /// Rank 4, and of ours it ships with the SDK alone.
    Module,
    /// Never ships: named in `[dev-dependencies]` only; itself names what it likes.
    Dev,
    /// This program: it names none of ours, and none names it.
    Tool,
}

const SDK: &str = "waangu-sdk";
const TESTKIT: &str = "waangu-testkit";

/// Every crate but the modules, whose place is their folder.
const PLACES: &[(&str, Place)] = &[
    ("waangu-kernel", Place::Rank(0)),
    ("waangu-api", Place::Rank(1)),
    ("waangu-audit", Place::Rank(1)),
    ("waangu-authz", Place::Rank(1)),
    ("waangu-identity", Place::Rank(1)),
    ("waangu-pgserver", Place::Rank(1)),
    ("waangu-process", Place::Rank(1)),
    ("waangu-registry", Place::Rank(1)),
    ("waangu-vault", Place::Rank(1)),
    ("waangu-tenancy", Place::Rank(2)),
    ("waangu-relocation", Place::Rank(3)),
    (SDK, Place::Rank(3)),
    ("waangu-control", Place::Rank(4)),
    ("waangu-gateway", Place::Rank(4)),
    ("waangu", Place::Rank(5)),
    ("waangu-bench", Place::Dev),
    (TESTKIT, Place::Dev),
    ("xtask", Place::Tool),
];

/// Edges that the ranks refuse and that stand all the same.
const EXCEPTIONS: &[Exception] = &[Exception {
    from: "waangu-bench",
    to: TESTKIT,
    reason: "the bench program never ships either, and measures on the testkit's clusters",
}];

#[derive(Debug)]
struct Exception {
    from: &'static str,
    to: &'static str,
    #[expect(dead_code, reason = "for the reader: no exception without a reason")]
    reason: &'static str,
}

/// Every edge that goes sideways or up, and every crate without a place.
pub(super) fn check(workspace: &Workspace) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut places = BTreeMap::new();
    for package in &workspace.packages {
        let name = package.name.as_str();
        if workspace.is_module(package) {
            places.insert(name, Place::Module);
        } else if let Some((_, place)) = PLACES.iter().find(|(known, _)| *known == name) {
            places.insert(name, *place);
        } else {
            found.push(Finding::error(format!(
                "{name}: has no rank; give it one in xtask/src/tidy/ranks.rs"
            )));
        }
    }
    for package in &workspace.packages {
        let from = package.name.as_str();
        for dependency in &package.dependencies {
            let to = dependency.name.as_str();
            if let (Some(&upper), Some(&lower)) = (places.get(from), places.get(to))
                && let Some(why) = refused((from, upper), (to, lower), dependency.kind)
            {
                found.push(Finding::error(format!("{from} names {to}: {why}")));
            }
        }
    }
    found
}

/// Why `from` may not name `to` in the table of that kind; None if it may.
fn refused(
    (from, upper): (&str, Place),
    (to, lower): (&str, Place),
    kind: Option<DependencyKind>,
) -> Option<String> {
    if EXCEPTIONS
        .iter()
        .any(|exception| exception.from == from && exception.to == to)
    {
        return None;
    }
    let ships = kind != Some(DependencyKind::Dev);
    match (upper, lower) {
        (Place::Tool, _) | (_, Place::Tool) => Some("xtask stands apart".into()),
        (Place::Module, _) if to == SDK || (to == TESTKIT && !ships) => None,
        (Place::Module, _) => Some(format!("of ours, a module names only {SDK}")),
        (_, Place::Dev) => {
            ships.then(|| format!("{to} never ships, it belongs in [dev-dependencies]"))
        }
        (Place::Dev, _) => None,
        (Place::Rank(above), Place::Rank(_) | Place::Module) => {
            let below = rank(lower);
            let wrong = ships && below >= above;
            wrong.then(|| format!("rank {above} names only ranks below, and this is rank {below}"))
        }
    }
}

/// Where a crate that ships stands; what does not ship stands above them all.
fn rank(place: Place) -> u8 {
    match place {
        Place::Rank(rank) => rank,
        Place::Module => 4,
        Place::Dev | Place::Tool => u8::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::path::PathBuf;

    use crate::workspace::{Dependency, Package};

    /// A workspace in which `from`, at `folder`, names `to` in the table of that kind.
    fn edge(folder: &str, from: &str, to: &str, kind: Option<DependencyKind>) -> Vec<String> {
        let mut packages: Vec<_> = PLACES
            .iter()
            .map(|(name, _)| package("crates/x", name))
            .collect();
        packages.retain(|package| package.name != from);
        let mut package = package(folder, from);
        package.dependencies.push(Dependency {
            name: to.into(),
            kind,
        });
        packages.push(package);
        let workspace = Workspace {
            packages,
            root: "/w".into(),
            target: "/w/target".into(),
        };
        check(&workspace)
            .into_iter()
            .map(|finding| finding.text)
            .collect()
    }

    fn package(folder: &str, name: &str) -> Package {
        let manifest_path = PathBuf::from("/w").join(folder).join("Cargo.toml");
        Package {
            name: name.into(),
            manifest_path,
            dependencies: Vec::new(),
        }
    }

    const CRATE: &str = "crates/x";
    const MODULE: &str = "modules/crm";
    const DEV: Option<DependencyKind> = Some(DependencyKind::Dev);
    const BUILD: Option<DependencyKind> = Some(DependencyKind::Build);

    #[test]
    fn edges_go_down() {
        assert!(edge(CRATE, "waangu-control", "waangu-registry", None).is_empty());
        assert!(edge(CRATE, "waangu", "waangu-gateway", None).is_empty());
        assert_eq!(edge(CRATE, "waangu-kernel", "waangu-api", None).len(), 1);
        assert_eq!(
            edge(CRATE, "waangu-api", "waangu-tenancy", None).len(),
            1,
            "sideways"
        );
        assert_eq!(
            edge(CRATE, "waangu-api", "waangu-tenancy", BUILD).len(),
            1,
            "build scripts"
        );
        assert!(
            edge(CRATE, "waangu-api", "waangu-tenancy", DEV).is_empty(),
            "tests may"
        );
    }

    #[test]
    fn a_module_names_only_the_sdk() {
        assert!(edge(MODULE, "waangu-crm", "waangu-sdk", None).is_empty());
        assert!(edge(MODULE, "waangu-crm", "waangu-testkit", DEV).is_empty());
        assert!(
            edge(MODULE, "waangu-crm", "serde", None).is_empty(),
            "not ours"
        );
        for to in ["waangu-kernel", "waangu-registry", "waangu-tenancy"] {
            assert_eq!(edge(MODULE, "waangu-crm", to, None).len(), 1, "{to}");
            assert_eq!(
                edge(MODULE, "waangu-crm", to, DEV).len(),
                1,
                "{to} in tests"
            );
        }
    }

    #[test]
    fn the_testkit_never_ships() {
        assert!(edge(CRATE, "waangu-control", TESTKIT, DEV).is_empty());
        assert!(
            edge(CRATE, "waangu-bench", TESTKIT, None).is_empty(),
            "the exception"
        );
        assert!(edge(CRATE, TESTKIT, "waangu-control", None).is_empty());
        assert_eq!(edge(CRATE, "waangu", TESTKIT, None).len(), 1);
        assert_eq!(edge(MODULE, "waangu-crm", TESTKIT, None).len(), 1);
    }

    #[test]
    fn xtask_stands_apart() {
        assert_eq!(edge("xtask", "xtask", "waangu-kernel", None).len(), 1);
        assert_eq!(edge(CRATE, "waangu", "xtask", DEV).len(), 1);
    }

    #[test]
    fn a_crate_without_a_rank_is_refused() {
        let found = edge(CRATE, "waangu-surprise", "waangu-kernel", None);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].contains("waangu-surprise: has no rank"),
            "{found:?}"
        );
    }
}
