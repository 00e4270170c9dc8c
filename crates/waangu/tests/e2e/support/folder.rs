//! A folder to throw away, with everything that runs in it.
//!
//! Invariant: whatever ends this process (return, panic, SIGKILL), the platform in the folder is ended
//! and the folder removed. A shell on the other end of a pipe sees to it; it signals only processes
//! whose command line names the folder.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Waits for the end of the pipe; then ends `up` as a user would, PostgreSQL if it has outlived `up`,
/// and whatever still names the folder.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
folder=$1
while read -r _; do :; done
mine() { tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -qF "$folder/"; }
gone() {
    tries=0
    while mine "$1"; do
        tries=$((tries + 1))
        [ "$tries" -gt "$2" ] && return 1
        sleep 0.1
    done
}
up=$(cat "$folder/state/lock" 2>/dev/null)
if [ -n "$up" ] && mine "$up"; then
    kill -TERM "$up"
    gone "$up" 150 || kill -KILL "$up"
fi
for file in "$folder"/state/pg/*/data/postmaster.pid; do
    pid=$(head -n 1 "$file" 2>/dev/null)
    if [ -n "$pid" ] && mine "$pid"; then
        kill -QUIT "$pid"
        gone "$pid" 50 || kill -KILL "$pid"
    fi
done
for entry in /proc/[0-9]*; do
    pid=${entry#/proc/}
    [ "$pid" != $$ ] && mine "$pid" && kill -KILL "$pid"
done
umount "$folder/small" 2>/dev/null
rm -rf "$folder"
"#;

/// The folder.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    watchdog: Child,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let path = tempfile::Builder::new()
            .prefix("waangu-e2e-")
            // Others may pass, because PostgreSQL runs as another user when we are root.
            .permissions(Permissions::from_mode(0o755))
            .tempdir()
            .unwrap()
            .keep();
        let watchdog = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "waangu-e2e-watchdog"])
            .arg(&path)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { path, watchdog }
    }

    /// A path below it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The state folder that a platform in it has.
    pub(crate) fn state(&self) -> PathBuf {
        self.join("state")
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Everything that a failed start has said.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.join("up.log")).unwrap_or_default()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Closes the pipe as well. An error leaves nothing to be done about it.
        drop(self.watchdog.wait());
    }
}
