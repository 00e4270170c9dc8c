//! One place for versions and one for lints: the root `Cargo.toml`. Every other one inherits.

use std::fs;

use toml::{Table, Value};

use super::Finding;
use crate::workspace::Workspace;

const PACKAGE_FIELDS: &[&str] = &["version", "edition", "rust-version", "license", "publish"];
const DEPENDENCY_TABLES: &[&str] = &["dependencies", "dev-dependencies", "build-dependencies"];

pub(super) fn check(workspace: &Workspace) -> Vec<Finding> {
    let mut found = Vec::new();
    for package in &workspace.packages {
        let path = &package.manifest_path;
        let shown = path.strip_prefix(&workspace.root).unwrap_or(path).display();
        let findings = match fs::read_to_string(path) {
            Ok(text) => not_inherited(&text),
            Err(err) => vec![err.to_string()],
        };
        found.extend(
            findings
                .iter()
                .map(|text| Finding::error(format!("{shown}: {text}"))),
        );
    }
    found
}

/// What a member's manifest says for itself and should inherit.
fn not_inherited(manifest: &str) -> Vec<String> {
    let manifest: Table = match manifest.parse() {
        Ok(table) => table,
        Err(err) => return vec![err.to_string()],
    };
    let mut found = Vec::new();
    if !manifest.get("lints").is_some_and(inherits) {
        found.push("`[lints] workspace = true` is missing".to_owned());
    }
    for field in PACKAGE_FIELDS {
        if !manifest
            .get("package")
            .and_then(|table| table.get(field))
            .is_some_and(inherits)
        {
            found.push(format!("`{field}.workspace = true` is missing"));
        }
    }
    let per_target = manifest
        .get("target")
        .and_then(Value::as_table)
        .into_iter()
        .flatten();
    let per_target = per_target.filter_map(|(_, target)| target.as_table());
    for holder in std::iter::once(&manifest).chain(per_target) {
        for table in DEPENDENCY_TABLES {
            let entries = holder
                .get(*table)
                .and_then(Value::as_table)
                .into_iter()
                .flatten();
            for (name, _) in entries.filter(|(_, value)| !inherits(value)) {
                found.push(format!(
                    "[{table}] `{name}`: take the version from the workspace"
                ));
            }
        }
    }
    found
}

fn inherits(value: &Value) -> bool {
    value.get("workspace").and_then(Value::as_bool) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        [package]
        name = "a"
        version.workspace = true
        edition.workspace = true
        rust-version.workspace = true
        license.workspace = true
        publish.workspace = true
        [lints]
        workspace = true
        [dependencies]
        serde.workspace = true
        toml = { workspace = true, features = ["preserve_order"] }
        [target.'cfg(unix)'.dev-dependencies]
        tempfile.workspace = true
    "#;

    #[test]
    fn a_manifest_that_inherits_is_fine() {
        assert_eq!(not_inherited(GOOD), [""; 0]);
    }

    #[test]
    fn own_lints_are_refused() {
        let found =
            not_inherited(&GOOD.replace("[lints]\n        workspace = true", "[lints.rust]"));
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("lints"), "{found:?}");
    }

    #[test]
    fn an_own_edition_is_refused() {
        let found = not_inherited(&GOOD.replace("edition.workspace = true", "edition = \"2021\""));
        assert_eq!(found, ["`edition.workspace = true` is missing"]);
    }

    #[test]
    fn own_versions_are_refused_in_every_table() {
        let manifest = GOOD
            .replace("serde.workspace = true", "serde = \"1\"")
            .replace(
                "tempfile.workspace = true",
                "tempfile = { version = \"3\" }",
            );
        let found = not_inherited(&manifest);
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("[dependencies] `serde`"), "{found:?}");
        assert!(
            found[1].starts_with("[dev-dependencies] `tempfile`"),
            "{found:?}"
        );
    }
}
