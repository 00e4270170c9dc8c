//! House rules that can be read off one file.
//!
//! What is looked for is put together at run time: this file has to pass its own rules.

use std::path::Path;

use super::Finding;

/// Above this a file should be split when it is next touched.
const LONG: usize = 400;
/// Above this a file is refused.
const TOO_LONG: usize = 600;

/// Written by a tool that we do not control, host names included.
const NOT_OURS: &[&str] = &["Cargo.lock"];

/// Where a note about unfinished work may hide.
const SOURCES: &[&str] = &[
    "css", "html", "js", "mjs", "rs", "sh", "sql", "tf", "toml", "ts", "yaml", "yml",
];

/// Everything wrong with the file at `path`, a path from the workspace's root.
pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    if NOT_OURS.contains(&path) {
        return Vec::new();
    }
    let extension = Path::new(path)
        .extension()
        .and_then(|found| found.to_str())
        .unwrap_or("");
    let mut found = Vec::new();
    if extension == "rs" {
        found.extend(opening(path, text));
        found.extend(length(path, text));
        found.extend(module_file(path));
    }
    for (line, number) in text.lines().zip(1_usize..) {
        let findings = [
            SOURCES
                .contains(&extension)
                .then(|| unfinished(line))
                .flatten(),
            private_path(line),
            registry_host(line),
        ];
        let place = |text| Finding::error(format!("{path}:{number}: {text}"));
        found.extend(findings.into_iter().flatten().map(place));
    }
    found
}

fn opening(path: &str, text: &str) -> Option<Finding> {
    let missing = !text.starts_with("//!");
    missing.then(|| {
        Finding::error(format!(
            "{path}:1: opens without `//!` saying what it is for"
        ))
    })
}

fn length(path: &str, text: &str) -> Option<Finding> {
    match text.lines().count() {
        lines if lines > TOO_LONG => Some(Finding::error(format!(
            "{path}: {lines} lines, at most {TOO_LONG}"
        ))),
        lines if lines > LONG => Some(Finding::warning(format!(
            "{path}: {lines} lines, better below {LONG}"
        ))),
        _ => None,
    }
}

fn module_file(path: &str) -> Option<Finding> {
    let named_mod = Path::new(path)
        .file_name()
        .is_some_and(|name| name == "mod.rs");
    named_mod.then(|| Finding::error(format!("{path}: a module is `foo.rs` beside `foo/`")))
}

/// A note about work to do, without the number of the issue behind it.
fn unfinished(line: &str) -> Option<String> {
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), "X".repeat(3)];
    let mark = line
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .find(|word| marks.iter().any(|mark| mark == word))?;
    let has_issue = line
        .split('#')
        .skip(1)
        .any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    (!has_issue).then(|| format!("{mark} without an issue (`#123`) behind it"))
}

/// An absolute path that exists on one machine only.
fn private_path(line: &str) -> Option<String> {
    let roots = ["work", "root", "home"].map(|name| format!("/{name}/"));
    let root = roots.into_iter().find(|root| {
        line.match_indices(root.as_str()).any(|(start, _)| {
            // After one of these it is the tail of another path, of a URL or of a variable.
            let before = line.get(..start).and_then(|head| head.chars().next_back());
            !before.is_some_and(|c| c.is_alphanumeric() || "_-.*})".contains(c))
        })
    })?;
    Some(format!(
        "an absolute path below `{root}` exists on one machine only"
    ))
}

/// The host of a package registry: where packages come from is the business of each machine.
fn registry_host(line: &str) -> Option<String> {
    let hosts = [
        ["crates", "io"],
        ["maven.apache", "org"],
        ["npmjs", "com"],
        ["npmjs", "org"],
        ["nuget", "org"],
        ["packagist", "org"],
        ["proxy.golang", "org"],
        ["pypi", "org"],
        ["pythonhosted", "org"],
        ["rubygems", "org"],
        ["yarnpkg", "com"],
    ];
    let line = line.to_ascii_lowercase();
    let host = hosts
        .map(|parts| parts.join("."))
        .into_iter()
        .find(|host| line.contains(host))?;
    Some(format!("names the package registry host `{host}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::tidy::Weight;

    fn weights(path: &str, text: &str) -> Vec<Weight> {
        check(path, text)
            .into_iter()
            .map(|finding| finding.weight)
            .collect()
    }

    fn lines(count: usize) -> String {
        "//! line\n".repeat(count)
    }

    #[test]
    fn a_file_opens_by_saying_what_it_is_for() {
        assert!(check("crates/a/src/b.rs", "//! Dates.\n\nfn main() {}\n").is_empty());
        assert_eq!(
            weights("crates/a/src/b.rs", "use std::fs;\n//! Dates.\n"),
            [Weight::Error]
        );
        assert_eq!(weights("crates/a/tests/b.rs", ""), [Weight::Error]);
        assert!(check("docs/b.md", "Dates.\n").is_empty());
    }

    #[test]
    fn a_long_file_warns_and_a_longer_one_fails() {
        assert!(check("a.rs", &lines(LONG)).is_empty());
        assert_eq!(weights("a.rs", &lines(LONG + 1)), [Weight::Warning]);
        assert_eq!(weights("a.rs", &lines(TOO_LONG)), [Weight::Warning]);
        assert_eq!(weights("a.rs", &lines(TOO_LONG + 1)), [Weight::Error]);
        assert!(check("docs/a.md", &lines(TOO_LONG + 1)).is_empty());
    }

    #[test]
    fn a_module_is_not_named_mod() {
        assert_eq!(
            weights("crates/a/src/b/mod.rs", "//! B.\n"),
            [Weight::Error]
        );
        assert!(check("crates/a/src/b/modes.rs", "//! B.\n").is_empty());
    }

    #[test]
    fn work_to_do_has_an_issue() {
        for mark in [["TO", "DO"].concat(), ["FIX", "ME"].concat(), "X".repeat(3)] {
            assert!(unfinished(&format!("// {mark}: later")).is_some(), "{mark}");
            assert!(
                unfinished(&format!("-- {mark}(#) later")).is_some(),
                "{mark}"
            );
            assert!(
                unfinished(&format!("// {mark}(#12): later")).is_none(),
                "{mark}"
            );
            assert!(unfinished(&format!("// MY_{mark}S")).is_none(), "{mark}");
        }
        assert!(unfinished("todo!()").is_none());
    }

    #[test]
    fn a_path_of_one_machine_is_refused() {
        for name in ["work", "root", "home"] {
            assert!(
                private_path(&format!("cd /{name}/waangu")).is_some(),
                "{name}"
            );
            assert!(
                private_path(&format!("file:///{name}/waangu")).is_some(),
                "{name}"
            );
            assert!(
                private_path(&format!("\"/{name}/waangu\"")).is_some(),
                "{name}"
            );
            assert!(
                private_path(&format!("https://host/{name}/waangu")).is_none(),
                "{name}"
            );
            assert!(
                private_path(&format!("$STATE/{name}/waangu")).is_none(),
                "{name}"
            );
            assert!(
                private_path(&format!("../{name}/waangu")).is_none(),
                "{name}"
            );
        }
    }

    #[test]
    fn a_registry_host_is_refused_everywhere_but_in_the_lock_file() {
        let host = ["Crates", "io"].join(".");
        assert!(registry_host(&format!("published on {host}")).is_some());
        assert!(registry_host("the crates-io repository").is_none());
        assert_eq!(weights("README.md", &host), [Weight::Error]);
        assert!(check("Cargo.lock", &host).is_empty());
    }

    #[test]
    fn a_finding_says_where() {
        let text = format!("//! A.\n\n// {}\n", "X".repeat(3));
        let found = check("a.rs", &text);
        assert!(
            found
                .iter()
                .any(|finding| finding.text.starts_with("a.rs:3: ")),
            "{found:?}"
        );
    }
}
