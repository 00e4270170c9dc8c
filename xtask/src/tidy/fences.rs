//! `modules/clippy.toml` repeats the root's `clippy.toml`.
//!
//! Clippy reads the nearest file and merges nothing, so that a ban added at the root alone would
//! silently not hold for the modules.

use std::fs;
use std::path::Path;

use toml::{Table, Value};

use super::Finding;

const ROOT: &str = "clippy.toml";
const MODULES: &str = "modules/clippy.toml";

pub(super) fn check(root: &Path) -> Vec<Finding> {
    let read = |path| fs::read_to_string(root.join(path)).map_err(|err| format!("{path}: {err}"));
    let found = match (read(ROOT), read(MODULES)) {
        (Ok(root), Ok(modules)) => not_repeated(&root, &modules),
        (Err(err), _) | (_, Err(err)) => vec![err],
    };
    found.into_iter().map(Finding::error).collect()
}

/// What the root's file says and the modules' does not.
fn not_repeated(root: &str, modules: &str) -> Vec<String> {
    let (root, modules) = match (root.parse::<Table>(), modules.parse::<Table>()) {
        (Ok(root), Ok(modules)) => (root, modules),
        (Err(err), _) => return vec![format!("{ROOT}: {err}")],
        (_, Err(err)) => return vec![format!("{MODULES}: {err}")],
    };
    let mut found = Vec::new();
    for (key, value) in &root {
        let repeated = modules.get(key);
        match value.as_array() {
            Some(bans) => {
                let repeated = repeated
                    .and_then(Value::as_array)
                    .map_or(&[][..], Vec::as_slice);
                for ban in bans.iter().filter(|ban| !repeated.contains(ban)) {
                    let path = ban.get("path").and_then(Value::as_str).unwrap_or("?");
                    found.push(format!(
                        "{MODULES}: does not repeat the ban of `{path}` in `{key}`"
                    ));
                }
            }
            None if repeated == Some(value) => {}
            None => found.push(format!("{MODULES}: does not repeat `{key} = {value}`")),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        too-many-lines-threshold = 80
        disallowed-methods = [{ path = "a::b", reason = "c" }, { path = "d::e", reason = "f" }]
    "#;

    #[test]
    fn the_modules_may_add_bans() {
        let modules = FILE.replace("80\n", "80\ndisallowed-types = []\n");
        assert_eq!(not_repeated(FILE, &modules), [""; 0]);
    }

    #[test]
    fn the_modules_may_not_drop_a_ban_or_raise_a_threshold() {
        let found = not_repeated(FILE, &FILE.replace("d::e", "x::y").replace("80", "800"));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().any(|text| text.contains("d::e")), "{found:?}");
        assert!(
            found
                .iter()
                .any(|text| text.contains("too-many-lines-threshold")),
            "{found:?}"
        );
    }
}
