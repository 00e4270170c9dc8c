//! Programs of others, and a Python environment with the packages of peers, in `target/bench-venv`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::failure::{Failure, Of as _};

/// Longest time to get packages.
const FETCH_PATIENCE: Duration = Duration::from_mins(3);

/// The interpreter of the environment, in which `import <names>` works: packages are fetched once.
pub(crate) async fn python(names: &str, packages: &[&str]) -> Result<PathBuf, Failure> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench-venv");
    let python = home.join("bin/python");
    let check = format!("import {names}");
    if said(&python, &["-c", &check]).await.is_err() {
        let mut make = Command::new("python3");
        make.args(["-m", "venv"]).arg(&home);
        output(make, FETCH_PATIENCE).await?;
        let mut fetch = Command::new(&python);
        fetch.args(["-m", "pip", "-q", "install"]).args(packages);
        output(fetch, FETCH_PATIENCE).await?;
    }
    Ok(python)
}

/// What a program prints at once.
pub(crate) async fn said(
    program: impl AsRef<OsStr>,
    arguments: &[&str],
) -> Result<String, Failure> {
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", search_path());
    output(command, Duration::from_secs(20)).await
}

/// What a program prints; it is killed when it takes too long.
pub(crate) async fn output(mut command: Command, patience: Duration) -> Result<String, Failure> {
    let name = command.as_std().get_program().display().to_string();
    command.stdin(Stdio::null()).kill_on_drop(true);
    let ended = timeout(patience, command.output()).await;
    let output = ended.of(&name)?.of(&name)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().last().unwrap_or("no message");
    Err(Failure::new(format!("{name}: {}: {last}", output.status)))
}

/// Debian puts some programs where only root looks.
#[expect(
    clippy::disallowed_methods,
    reason = "programs are found where programs are found; the bench has no configuration"
)]
pub(crate) fn search_path() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin");
    path
}
