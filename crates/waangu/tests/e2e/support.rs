//! What the tests share: folders, processes, HTTP, SQL, and a platform to aim them at.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

pub(crate) mod db;
pub(crate) mod folder;
pub(crate) mod http;
pub(crate) mod platform;
pub(crate) mod process;
pub(crate) mod shop;

pub(crate) use db::Session;
pub(crate) use folder::Folder;
pub(crate) use http::{Answer, Http};
pub(crate) use platform::{Platform, shared};
pub(crate) use shop::Shop;

/// The password of the users that tests create.
pub(crate) const PASSWORD: &str = "correct horse 12";

/// The program under test; its modules' programs stand beside it.
pub(crate) fn waangu() -> &'static Path {
    let waangu = Path::new(env!("CARGO_BIN_EXE_waangu"));
    assert!(
        waangu.with_file_name("waangu-inventory").exists(),
        "waangu-inventory does not stand beside {}: run `cargo xtask test`, or `cargo build \
         --workspace` first",
        waangu.display()
    );
    waangu
}

/// A run of the program that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the program to its end, which has to come.
pub(crate) async fn run(args: &[&str]) -> Ran {
    let mut command = tokio::process::Command::new(waangu());
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(Duration::from_mins(1), command.output()).await;
    let Output {
        status,
        stdout,
        stderr,
    } = output
        .unwrap_or_else(|_late| panic!("`waangu {}` does not end", args.join(" ")))
        .unwrap();
    Ran {
        code: status.code(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

/// Waits until `look` finds something, at most so long.
pub(crate) async fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A line on the test's own output for what could not be tried here.
pub(crate) fn skipped(what: &str, why: &str) {
    println!("skipped: {what}: {why}");
}
