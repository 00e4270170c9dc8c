//! Running other programs: shown before they run, their exit code kept.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use crate::say;

/// Why a command of xtask ends without success, and with which exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// Ends with exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            code: 1,
            message: message.into(),
        }
    }

    /// What the shell gets to see.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// `cargo`, standing in `root`. The `cargo` on the path is the one that started xtask.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root);
    command
}

/// Shows `command`, runs it to its end and keeps its exit code.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    say::note(&format!("$ {}", shown(command)));
    run_unshown(command)
}

/// As `run`, for a command after which the output of an earlier one should stay the last.
pub(crate) fn run_unshown(command: &mut Command) -> Result<(), Failure> {
    let status = command
        .status()
        .map_err(|err| cannot_start(command, &err))?;
    if status.success() {
        return Ok(());
    }
    // A child killed by a signal has no code of its own.
    let code = status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1);
    Err(Failure {
        code,
        message: format!("`{}` ended with {status}", shown(command)),
    })
}

/// Runs `command` and returns what it wrote to stdout.
pub(crate) fn capture(command: &mut Command) -> Result<Vec<u8>, Failure> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|err| cannot_start(command, &err))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(Failure::new(format!(
            "`{}` ended with {}",
            shown(command),
            output.status
        )))
    }
}

/// Becomes `command`, so that signals and the exit code are its own. Returns only if that fails.
pub(crate) fn exec(command: &mut Command) -> Failure {
    say::note(&format!("$ {}", shown(command)));
    let err = command.exec();
    cannot_start(command, &err)
}

/// Whether `program` starts and succeeds with `args`, silently.
pub(crate) fn answers(program: &str, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Says what to install when there is no C compiler: the cryptography (aws-lc) is built from C.
pub(crate) fn require_c_compiler() -> Result<(), Failure> {
    if answers("cc", &["--version"]) {
        return Ok(());
    }
    Err(Failure::new(
        "no C compiler: `cc` is not on the path, and the cryptography library is built from C; \
         install one (Debian, Ubuntu: `apt-get install build-essential`; Fedora: `dnf install gcc`; \
         Alpine: `apk add build-base`; macOS: `xcode-select --install`)",
    ))
}

fn cannot_start(command: &Command, err: &std::io::Error) -> Failure {
    Failure::new(format!(
        "cannot start `{}`: {err}",
        command.get_program().display()
    ))
}

fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_of_a_child_is_kept() {
        let failure = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(failure.code, 3);
    }

    #[test]
    fn a_missing_program_is_named() {
        let failure = run(&mut Command::new("no-such-program-here")).unwrap_err();
        assert!(
            failure.message.contains("no-such-program-here"),
            "{failure}"
        );
    }
}
