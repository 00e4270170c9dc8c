//! What a machine must have before anything runs: PostgreSQL, or the means to get it. As root on
//! Debian and its kin it is installed; elsewhere it is named. (A linker, and so a C compiler, is
//! there: without one this very program could not have been built.)

use std::path::Path;
use std::process::Command;

use crate::process::{self, Failure, answers, capture};
use crate::say;

/// Folders where packages put PostgreSQL without putting it on the path.
const FOLDERS: [&str; 3] = [
    "/usr/lib/postgresql",
    "/usr/local/pgsql",
    "/opt/homebrew/opt/postgresql",
];

/// Makes sure that there is a PostgreSQL to run, or a way to fetch one when it is first needed.
pub(crate) fn ensure() -> Result<(), Failure> {
    let found = answers("initdb", &["--version"])
        || answers("pg_config", &["--version"])
        || FOLDERS.iter().any(|folder| Path::new(folder).is_dir());
    // npm fetches the binaries that ship in a registry package.
    if found || answers("npm", &["--version"]) {
        return Ok(());
    }
    let is_root = capture(Command::new("id").arg("-u")).is_ok_and(|uid| uid.trim_ascii() == b"0");
    if !(is_root && answers("apt-get", &["--version"])) {
        return Err(Failure::new(
            "neither PostgreSQL 15.14 or newer nor npm (which can fetch one) is here; install one of \
             them (Debian, Ubuntu: `apt-get install postgresql`)",
        ));
    }
    say::note("no PostgreSQL and no npm here: installing Debian's postgresql");
    process::run(Command::new("apt-get").args(["update", "--quiet"]))?;
    process::run(
        Command::new("apt-get")
            .args([
                "install",
                "--yes",
                "--quiet",
                "--no-install-recommends",
                "postgresql",
            ])
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}
