//! `cargo xtask tidy`: everything that can be checked without running the platform.
//!
//! Every check runs, whatever the others found, and every finding is printed. The rules themselves
//! are pure functions in the files below; this one runs them and reports.

mod fences;
mod house;
mod manifests;
mod ranks;
mod tree;

use crate::process::{self, Failure};
use crate::say;
use crate::workspace::Workspace;

/// Something a check does not like.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    weight: Weight,
    /// Where, and what is wrong there.
    text: String,
}

/// Whether a finding fails the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    Warning,
    Error,
}

impl Finding {
    fn error(text: impl Into<String>) -> Self {
        Self {
            weight: Weight::Error,
            text: text.into(),
        }
    }

    fn warning(text: impl Into<String>) -> Self {
        Self {
            weight: Weight::Warning,
            text: text.into(),
        }
    }
}

pub(crate) fn run(workspace: &Workspace) -> Result<(), Failure> {
    let mut report = Report::default();
    report.add("format", cargo(workspace, &["fmt", "--all", "--check"]));
    let lints = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--keep-going",
        "--",
        "-D",
        "warnings",
    ];
    report.add("lints", cargo(workspace, &lints));
    report.add("house rules", tree::check(&workspace.root, house::check));
    report.add("crate ranks", ranks::check(workspace));
    report.add("manifests", manifests::check(workspace));
    report.add("fences", fences::check(&workspace.root));
    if process::answers("cargo", &["deny", "--version"]) {
        report.add("cargo deny", cargo(workspace, &["deny", "check"]));
    } else {
        say::note(
            "cargo-deny is not installed: licences, advisories and bans were not checked by it \
             (the crate ranks were checked, here)",
        );
    }
    report.close()
}

/// Runs cargo, which prints its own findings; ours is only that it was not content.
fn cargo(workspace: &Workspace, args: &[&str]) -> Vec<Finding> {
    match process::run(process::cargo(&workspace.root).args(args)) {
        Ok(()) => Vec::new(),
        Err(failure) => vec![Finding::error(failure.to_string())],
    }
}

/// Prints as it goes, so that a long check does not hide what is already known.
#[derive(Debug, Default)]
struct Report {
    failed: Vec<&'static str>,
}

impl Report {
    fn add(&mut self, name: &'static str, findings: Vec<Finding>) {
        let errors = findings
            .iter()
            .filter(|finding| finding.weight == Weight::Error)
            .count();
        let warnings = findings.len() - errors;
        say::result(&match (errors, warnings) {
            (0, 0) => format!("ok      {name}"),
            (0, _) => format!("ok      {name}: {warnings} warnings"),
            _ => format!("FAILED  {name}: {errors} errors, {warnings} warnings"),
        });
        for finding in findings {
            let weight = match finding.weight {
                Weight::Warning => "warning",
                Weight::Error => "error",
            };
            say::result(&format!("        {weight}: {}", finding.text));
        }
        if errors > 0 {
            self.failed.push(name);
        }
    }

    fn close(self) -> Result<(), Failure> {
        if self.failed.is_empty() {
            return Ok(());
        }
        Err(Failure::new(format!(
            "not tidy: {}",
            self.failed.join(", ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_do_not_fail_and_errors_do() {
        let mut report = Report::default();
        report.add("soft", vec![Finding::warning("long")]);
        assert!(report.failed.is_empty());
        report.add(
            "hard",
            vec![Finding::warning("long"), Finding::error("too long")],
        );
        assert_eq!(report.failed, ["hard"]);
        assert!(report.close().is_err());
    }
}
