//! What can go wrong with a private server, in one line that says what to do about it.
//!
//! Invariant: no message holds a password, and none has a line break of our own making.

use std::{io, path::PathBuf};

use crate::version::Version;

/// Why a server could not be found, created, started or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No usable programs, and no permitted way to get them.
    #[error("no usable PostgreSQL ({needed}) here: {found}; {advice}")]
    NoBinaries {
        /// What would have been good enough.
        needed: String,
        /// What was found instead, and where.
        found: String,
        /// What to install, or which option to set.
        advice: String,
    },
    /// The npm package could not be fetched or is not the pinned one.
    #[error("could not get PostgreSQL {version} with npm: {reason}")]
    Download {
        /// The pinned version of the package.
        version: &'static str,
        /// The cause in one line.
        reason: String,
    },
    /// The system's package manager did not install PostgreSQL.
    #[error("could not install PostgreSQL with apt-get: {reason}")]
    Install {
        /// The cause in one line.
        reason: String,
    },
    /// A file operation failed.
    #[error("could not {doing} {path}: {source}", path = path.display())]
    Io {
        /// The attempt, as a verb.
        doing: &'static str,
        /// What it was attempted on.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A setting, name or path in the configuration cannot be used.
    #[error("the server setting {name} cannot be used: {reason}")]
    Setting {
        /// The setting.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The folder for the data holds something else.
    #[error("{path} holds files that are not a PostgreSQL data folder; choose another one", path = path.display())]
    NotACluster {
        /// The folder asked for.
        path: PathBuf,
    },
    /// Something that we did not make is in the way of the creation.
    #[error("{path} is in the way and was not made by us; move it elsewhere", path = path.display())]
    InTheWay {
        /// The folder in the way.
        path: PathBuf,
    },
    /// The real place of the data was recorded, but is gone.
    #[error("{location} says that the data is in {recorded}, which is gone; restore it, or delete {location} to begin with an empty server", location = location.display(), recorded = recorded.display())]
    Lost {
        /// The file that records the place.
        location: PathBuf,
        /// The place that it names.
        recorded: PathBuf,
    },
    /// The data exists where the server user may not go.
    #[error("user {uid}, which the server has to run as, cannot enter {path}; allow it with chmod o+x on its parent folders", path = path.display())]
    Unreachable {
        /// The data folder.
        path: PathBuf,
        /// The user id of the server.
        uid: u32,
    },
    /// The data belongs to another user, and we are not root.
    #[error("{path} belongs to user {owner}; run as that user or as root", path = path.display())]
    ForeignOwner {
        /// The data folder.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
    },
    /// The data was made by another major version.
    #[error("{path} was made by PostgreSQL {made}, found only {found}; install PostgreSQL {made} or choose another folder", path = path.display())]
    WrongMajor {
        /// The data folder.
        path: PathBuf,
        /// The major version that made it.
        made: u16,
        /// The version of the programs at hand.
        found: Version,
    },
    /// Another process of ours holds this data folder.
    #[error("the server {name} of {path} is held by process {pid}; stop that one first", path = path.display())]
    Held {
        /// The server's name.
        name: String,
        /// The data folder.
        path: PathBuf,
        /// The holder, `?` when it did not say.
        pid: String,
    },
    /// Somebody works on the data in single-user mode.
    #[error("process {pid} has {path} open in single-user mode; wait until it is done", path = path.display())]
    SingleUser {
        /// The data folder.
        path: PathBuf,
        /// The process.
        pid: i32,
    },
    /// `initdb` failed.
    #[error("could not create the server {name}: {reason}")]
    Create {
        /// The server's name.
        name: String,
        /// The useful line of what `initdb` wrote.
        reason: String,
    },
    /// The port belongs to another program.
    #[error(
        "port {port} of the server {name} is in use by another program; stop that one or choose another port"
    )]
    PortInUse {
        /// The server's name.
        name: String,
        /// The port.
        port: u16,
    },
    /// No free port was found.
    #[error("found no free port on 127.0.0.1 for the server {name}; choose one")]
    NoPort {
        /// The server's name.
        name: String,
    },
    /// The server ended while it was starting.
    #[error("the server {name} did not start: {reason}; its log is {log}", log = log.display())]
    Exited {
        /// The server's name.
        name: String,
        /// The useful line of its log.
        reason: String,
        /// The log.
        log: PathBuf,
    },
    /// The server was not ready in time.
    #[error("the server {name} was not ready after {seconds} s: {reason}; its log is {log}", log = log.display())]
    NotReady {
        /// The server's name.
        name: String,
        /// The time that it had.
        seconds: u64,
        /// The last useful line of its log.
        reason: String,
        /// The log.
        log: PathBuf,
    },
    /// The server is not running, so there is nothing to wait for.
    #[error("the server {name} is not running; start it first")]
    NotRunning {
        /// The server's name.
        name: String,
    },
    /// A process did not end, not even when killed.
    #[error("process {pid} of the server in {path} does not end; the machine may have to be restarted", path = path.display())]
    Undead {
        /// The process.
        pid: i32,
        /// The data folder.
        path: PathBuf,
    },
}

/// Turns an I/O result into ours: `read(path).doing("read", path)`.
pub(crate) trait Doing<T> {
    /// Says what was attempted, on what.
    fn doing(self, doing: &'static str, path: impl Into<PathBuf>) -> Result<T, Error>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &'static str, path: impl Into<PathBuf>) -> Result<T, Error> {
        self.map_err(|source| Error::Io {
            doing,
            path: path.into(),
            source,
        })
    }
}
