//! `cargo xtask test`: binaries first, because the end-to-end tests start them as real processes
//! and find them next to each other; then the tests; then the documentation.
//!
//! Stops at the first failure, whose exit code is the command's.

use std::ffi::OsString;

use crate::process::{self, Failure};
use crate::workspace::{Profile, Workspace};

pub(crate) fn run(workspace: &Workspace, args: &[OsString]) -> Result<(), Failure> {
    workspace.build(Profile::Dev, &[])?;

    let mut test = process::cargo(&workspace.root);
    test.arg("test");
    if !chooses_packages(args) {
        test.arg("--workspace");
    }
    process::run(test.args(args))?;

    // A crate's `//!` is for whoever changes it, so it may name private parts.
    let flags = "-D warnings -A rustdoc::private-intra-doc-links";
    // Unshown and quiet: a failure still speaks, and otherwise the test runner's closing lines stay
    // the last.
    let doc = ["doc", "--workspace", "--no-deps", "--quiet"];
    process::run_unshown(
        process::cargo(&workspace.root)
            .args(doc)
            .env("RUSTDOCFLAGS", flags),
    )
}

/// Whether the caller names packages: beside `--workspace`, cargo would ignore them.
fn chooses_packages(args: &[OsString]) -> bool {
    args.iter().take_while(|arg| *arg != "--").any(|arg| {
        let arg = arg.to_string_lossy();
        arg.starts_with("-p") || arg == "--package" || arg.starts_with("--package=")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chooses(args: &[&str]) -> bool {
        chooses_packages(&args.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_chosen_package_replaces_the_workspace() {
        assert!(chooses(&["-p", "xtask"]));
        assert!(chooses(&["-pxtask"]));
        assert!(chooses(&["--package=xtask"]));
        assert!(!chooses(&["--no-fail-fast", "relocation"]));
        assert!(!chooses(&["--", "-p"]));
    }
}
