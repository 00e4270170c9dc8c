//! The server's log file: where it goes, and the one line of it that tells why a start failed.
//!
//! The server writes to its standard error, which is the file that we open here. PostgreSQL's own
//! collector stays off: it starts late, so that the most wanted lines would be lost to it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::{
    files::{beside, best_effort},
    user::ServerUser,
};

/// A log above this size is set aside (one generation) at the next start.
const ROTATE_ABOVE: u64 = 16 << 20;
/// As much of a log as is looked at for a reason.
const TAIL: u64 = 64 << 10;

/// Opens the log for appending; the number is its length so far. It belongs to the server user,
/// who may start the server the next time.
pub(crate) fn open(path: &Path, user: ServerUser) -> io::Result<(File, u64)> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    if fs::metadata(path).is_ok_and(|meta| meta.len() > ROTATE_ABOVE) {
        best_effort(
            "set the old log aside",
            fs::rename(path, beside(path, ".1")),
        );
    }
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    user.own_file(&file)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

/// What was written after `offset`, or the end of it when that is much.
pub(crate) fn since(path: &Path, offset: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(
            offset.max(length.saturating_sub(TAIL)).min(length),
        ))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// The last line in which a server that is on its way up says how far it is (from PostgreSQL 15 on every ten
/// seconds, `log_startup_progress_interval`). That it refuses clients meanwhile says nothing.
pub(crate) fn progress(text: &str) -> Option<String> {
    let line = text.lines().rfind(|line| line.contains("LOG:  "));
    line.map(str::to_owned)
}

/// The line of a log or of `initdb`'s output that a person needs, with its hint.
pub(crate) fn reason(text: &str) -> Option<String> {
    // Clients that call too early get a FATAL, which says nothing about the server.
    let told = |line: &&str| !line.is_empty() && !line.contains("FATAL:  the database system is ");
    let lines: Vec<&str> = text.lines().map(str::trim).filter(told).collect();
    let last = |marks: &[&str]| {
        lines
            .iter()
            .rposition(|line| marks.iter().any(|mark| line.contains(mark)))
    };
    // A failed bind says more than the FATAL line after it, and so does the line before one on
    // the configuration as a whole.
    let at = last(&["could not bind "])
        .or_else(|| last(&["contains errors"]).and_then(|at| at.checked_sub(1)))
        .or_else(|| last(&["PANIC:", "FATAL:", "error:"]));
    let Some(at) = at else {
        return lines.last().map(|line| after_level(line).to_owned());
    };
    let line = after_level(lines.get(at)?);
    let hint = lines
        .iter()
        .skip(at + 1)
        .take(3)
        .find_map(|next| next.split_once("HINT:"));
    Some(match hint {
        Some((_, hint)) => format!("{line} ({})", hint.trim().trim_end_matches('.')),
        None => line.to_owned(),
    })
}

/// Why the server itself, not one of its sessions, gave up; nothing when it was told to end.
pub(crate) fn last_words(text: &str, pid: u32) -> Option<String> {
    let own = format!("[{pid}] ");
    let grave = ["PANIC:", "FATAL:", "terminated by signal"];
    let mut lines = text.lines().filter(|line| line.contains(&own)).rev();
    let line = lines.find(|line| grave.iter().any(|mark| line.contains(mark)))?;
    Some(after_level(line).to_owned())
}

/// Takes time, process and level off a line.
fn after_level(line: &str) -> &str {
    ["PANIC:", "FATAL:", "LOG:", "error:"]
        .into_iter()
        .find_map(|level| line.split_once(level))
        .map_or(line, |(_, message)| message)
        .trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server with much to recover would be ended each time just before it is there.
    #[test]
    fn recovery_that_goes_on_is_seen() {
        let first = "1 [7] LOG:  syncing data directory (fsync), elapsed time: 10.00 s\n\
            2 [8] FATAL:  the database system is starting up\n";
        let later = format!("{first}3 [7] LOG:  redo in progress, elapsed time: 10.00 s\n");
        let refuses = format!("{later}4 [9] FATAL:  the database system is starting up\n");
        assert_ne!(progress(first), progress(&later));
        assert_eq!(progress(&later), progress(&refuses));
        assert_eq!(progress(""), None);
    }

    /// A user would see "did not start" and have to search the log for the cause.
    #[test]
    fn the_telling_line_is_found() {
        let port = "2026-01-01 [7] LOG:  starting PostgreSQL 15.18\n\
            2026-01-01 [7] LOG:  could not bind IPv4 address \"127.0.0.1\": Address already in use\n\
            2026-01-01 [7] HINT:  Is another postmaster already running on port 5?\n\
            2026-01-01 [7] FATAL:  could not create any TCP/IP sockets\n\
            2026-01-01 [7] LOG:  database system is shut down\n";
        let expected = "could not bind IPv4 address \"127.0.0.1\": Address already in use \
                        (Is another postmaster already running on port 5?)";
        assert_eq!(reason(port).as_deref(), Some(expected));
        let disk = "x [7] FATAL:  could not write lock file \"postmaster.pid\": No space left on device\n\
                    x [7] LOG:  database system is shut down\n";
        let expected = "could not write lock file \"postmaster.pid\": No space left on device";
        assert_eq!(reason(disk).as_deref(), Some(expected));
        let initdb = "creating ...\ninitdb: error: superuser name \"pg_x\" is disallowed\n";
        assert_eq!(
            reason(initdb).as_deref(),
            Some("superuser name \"pg_x\" is disallowed")
        );
        assert_eq!(reason("just this\n\n").as_deref(), Some("just this"));
        assert_eq!(reason(""), None);
        let setting = "x [7] LOG:  9 8kB is outside the valid range for parameter \"shared_buffers\"\n\
                       x [7] FATAL:  configuration file \"/x/waangu.conf\" contains errors\n";
        let expected = "9 8kB is outside the valid range for parameter \"shared_buffers\"";
        assert_eq!(reason(setting).as_deref(), Some(expected));
        let early = "x [8] PANIC:  could not locate a valid checkpoint record\n\
                     x [9] FATAL:  the database system is starting up\n";
        let expected = "could not locate a valid checkpoint record";
        assert_eq!(reason(early).as_deref(), Some(expected));
    }

    /// A supervisor would blame a client's wrong password for the end of the server.
    #[test]
    fn last_words_are_the_servers_own() {
        let client = "x [8] FATAL:  password authentication failed for user \"a\"\n";
        assert_eq!(last_words(client, 7), None);
        let both = format!("x [7] FATAL:  could not open lock file\n{client}");
        assert_eq!(
            last_words(&both, 7).as_deref(),
            Some("could not open lock file")
        );
    }
}
