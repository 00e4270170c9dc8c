//! `cargo xtask up`: builds the platform, then becomes it, so that Ctrl-C reaches it directly.
//!
//! Stands in the caller's directory: relative paths such as `--state DIR` are the caller's.

use std::ffi::OsString;
use std::process::Command;

use crate::process::{self, Failure};
use crate::workspace::{Profile, WAANGU, Workspace};

pub(crate) fn run(workspace: &Workspace, args: Vec<OsString>) -> Result<(), Failure> {
    let (profile, args) = profile_of(args);
    workspace.build(profile, &[])?;
    let binary = workspace.binary(profile, WAANGU);
    Err(process::exec(Command::new(binary).arg("up").args(args)))
}

/// `--release`, wherever it stands, chooses the build; everything else is for `waangu up`.
fn profile_of(args: Vec<OsString>) -> (Profile, Vec<OsString>) {
    let all = args.len();
    let rest: Vec<_> = args.into_iter().filter(|arg| arg != "--release").collect();
    let profile = if rest.len() == all {
        Profile::Dev
    } else {
        Profile::Release
    };
    (profile, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_is_ours_and_the_rest_is_passed_on() {
        let args = ["--demo", "--release", "--help"]
            .map(OsString::from)
            .to_vec();
        let (profile, rest) = profile_of(args);
        assert_eq!(profile, Profile::Release);
        assert_eq!(rest, ["--demo", "--help"]);

        let (profile, rest) = profile_of(vec!["--demo".into()]);
        assert_eq!(profile, Profile::Dev);
        assert_eq!(rest, ["--demo"]);
    }
}
