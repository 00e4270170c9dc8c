//! What `cargo metadata` says about the workspace: the few fields that xtask needs.
//!
//! Read with serde and not through a crate: the crate would switch features on in `serde_json` for
//! the whole workspace, and then `cargo test --workspace` would compile the tree a second time,
//! with other features than those that ship.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::process::{self, Failure};

/// The package of the platform's binary, and the name of that binary.
pub(crate) const WAANGU: &str = "waangu";

/// The workspace as it stands on disk.
#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    /// Members only: nothing from a registry.
    pub(crate) packages: Vec<Package>,
    /// Where the root `Cargo.toml` lies.
    #[serde(rename = "workspace_root")]
    pub(crate) root: PathBuf,
    /// Where cargo builds.
    #[serde(rename = "target_directory")]
    pub(crate) target: PathBuf,
}

/// A member of the workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    /// As in its manifest.
    pub(crate) name: String,
    /// Its `Cargo.toml`.
    pub(crate) manifest_path: PathBuf,
    /// What it names, before features and targets are resolved.
    pub(crate) dependencies: Vec<Dependency>,
}

/// One line of a `[dependencies]` table.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    /// The package behind it, also when it is renamed.
    pub(crate) name: String,
    /// Which of the three tables it stands in.
    pub(crate) kind: Option<DependencyKind>,
}

/// The tables beside `[dependencies]`, for which cargo writes null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DependencyKind {
    /// `[dev-dependencies]`
    Dev,
    /// `[build-dependencies]`
    Build,
}

/// Which of cargo's two profiles to build and run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// `target/debug`
    Dev,
    /// `target/release`
    Release,
}

impl Workspace {
    /// Asks cargo, without touching the network.
    pub(crate) fn load() -> Result<Self, Failure> {
        let args = ["metadata", "--format-version", "1", "--no-deps"];
        let json = process::capture(process::cargo(Path::new(".")).args(args))?;
        serde_json::from_slice(&json)
            .map_err(|err| Failure::new(format!("cannot read `cargo metadata`: {err}")))
    }

    /// The member of that name, if there is one.
    pub(crate) fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }

    /// The members below `modules/`: the business capabilities.
    pub(crate) fn modules(&self) -> impl Iterator<Item = &Package> {
        self.packages
            .iter()
            .filter(|package| self.is_module(package))
    }

    /// Whether `package` lies below `modules/`.
    pub(crate) fn is_module(&self, package: &Package) -> bool {
        package.manifest_path.starts_with(self.root.join("modules"))
    }

    /// Builds the platform, every module, and `also`. One invocation, so that cargo resolves the
    /// features once.
    pub(crate) fn build(&self, profile: Profile, also: &[&str]) -> Result<(), Failure> {
        process::require_c_compiler()?;
        let mut cargo = process::cargo(&self.root);
        cargo.arg("build");
        if profile == Profile::Release {
            cargo.arg("--release");
        }
        let modules = self.modules().map(|module| module.name.as_str());
        for name in std::iter::once(WAANGU)
            .chain(modules)
            .chain(also.iter().copied())
        {
            cargo.args(["--package", name]);
        }
        process::run(&mut cargo)
    }

    /// Where `profile` leaves the binary of that name.
    pub(crate) fn binary(&self, profile: Profile, name: &str) -> PathBuf {
        let folder = match profile {
            Profile::Dev => "debug",
            Profile::Release => "release",
        };
        self.target.join(folder).join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_metadata_is_read() {
        let json = r#"{"version":1,"workspace_root":"/w","target_directory":"/w/target","packages":[
            {"name":"waangu-crm","manifest_path":"/w/modules/crm/Cargo.toml","dependencies":[
                {"name":"waangu-sdk","kind":null},{"name":"waangu-testkit","kind":"dev"}]},
            {"name":"xtask","manifest_path":"/w/xtask/Cargo.toml","dependencies":[]}]}"#;
        let workspace: Workspace = serde_json::from_str(json).unwrap();

        let modules: Vec<_> = workspace
            .modules()
            .map(|module| module.name.as_str())
            .collect();
        assert_eq!(modules, ["waangu-crm"]);
        let crm = workspace.package("waangu-crm").unwrap();
        assert_eq!(crm.dependencies[0].kind, None);
        assert_eq!(crm.dependencies[1].kind, Some(DependencyKind::Dev));
        assert!(workspace.package("waangu-bench").is_none());
        assert_eq!(
            workspace.binary(Profile::Release, "bench"),
            Path::new("/w/target/release/bench")
        );
    }
}
