//! Who ends the servers when the test process is gone.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Reads folders until the pipe ends, then ends the server in each and removes it. The process is
/// ours only if it works in that folder (`/proc`, where there is one); SIGQUIT is PostgreSQL's
/// immediate shutdown. `initdb` may still be writing, so removal is tried for a few seconds.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
while IFS= read -r folder; do set -- "$@" "$folder"; done
for folder; do
    tries=0
    while [ -e "$folder" ] && [ "$tries" -lt 100 ]; do
        tries=$((tries + 1))
        pid=$(head -n 1 "$folder/data/postmaster.pid" 2>/dev/null)
        if [ -n "$pid" ]; then
            if [ ! -d /proc/self ] || [ "$(readlink "/proc/$pid/cwd")" = "$folder/data" ]; then
                if [ "$tries" -lt 50 ]; then kill -QUIT "$pid"; else kill -KILL "$pid"; fi
                sleep 0.1
                kill -0 "$pid" && continue
            fi
        fi
        rm -rf "$folder"
        [ -e "$folder" ] && sleep 0.1
    done
done
"#;

/// The other end of the pipe. Never dropped on purpose: the end of this process closes it.
pub(crate) struct Watchdog(Child);

impl Watchdog {
    /// Starts to watch. In a process group of its own, so that Ctrl-C reaches only us.
    pub(crate) fn start() -> Self {
        let child = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "waangu-testkit-watchdog"])
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start the watchdog of the test servers");
        Self(child)
    }

    /// Adds a folder; a server's data is in `data` below it.
    pub(crate) fn watch(&mut self, folder: &Path) {
        let pipe = self.0.stdin.as_mut().expect("the watchdog has a pipe");
        writeln!(pipe, "{}", folder.display()).expect("tell the watchdog");
    }
}
