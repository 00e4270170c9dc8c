//! One private server: created or opened, started, watched and stopped through its handle.
//!
//! Invariants: the handle holds the lock beside the data folder from before the first look at it
//! until the handle is gone; the server is our direct child, so that its end is noticed at once.
//!
//! Dropped handles: a throw-away server is killed and its files are deleted; a durable one is told
//! to shut down, without waiting. When *we* are killed with SIGKILL, the server stays; the next
//! handle of the same folder ends it before it starts its own. Nothing does that for throw-away
//! servers, whose folders are not used again: their maker has to look for left-overs.

mod drop;
mod init;
mod start;
mod takeover;

use std::{
    fs::{self, File},
    path::Path,
    process::ExitStatus,
    time::Duration,
};

use rustix::process::{Pid, Signal};
use tokio::{process::Child, time::timeout};

use crate::{
    Binaries, Progress,
    config::{self, Config},
    error::{Doing, Error},
    files::{beside, write_private},
    log,
    place::{self, Content, Place},
    process::signal,
    user::ServerUser,
};

/// How a server is told to end; each is harder than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shutdown {
    /// Sessions are ended and everything is written: the usual way.
    Fast,
    /// Sessions are dropped; the next start recovers from the log.
    Immediate,
    /// The process is killed; the next start recovers from the log.
    Kill,
}

/// How a server ended.
#[derive(Debug, Clone)]
pub struct Exit {
    /// What the system says.
    pub status: ExitStatus,
    /// What it said itself in its log, when it gave up.
    pub reason: Option<String>,
}

/// A private server.
#[derive(Debug)]
pub struct Cluster {
    binaries: Binaries,
    config: Config,
    place: Place,
    user: ServerUser,
    port: u16,
    /// Whether a start has shown that the port can be used, or the caller insists on it.
    port_settled: bool,
    child: Option<Child>,
    /// The length of the log when the child was started.
    log_start: u64,
    /// Held for as long as the handle lives; never read again.
    _lock: File,
}

impl Cluster {
    /// Opens the server of `config.data_dir`, which is created first when there is none.
    ///
    /// It does not run yet. A password other than that of the creation changes nothing.
    pub async fn create_or_open(
        binaries: Binaries,
        config: Config,
        progress: Progress<'_>,
    ) -> Result<Self, Error> {
        config.check()?;
        let (lock, asked) = place::lock(&config)?;
        let (place, user) = Place::find(&config, asked, ServerUser::pick(), progress)?;
        match place::content(&place.data)? {
            Content::Cluster(made) if made != binaries.version().major => {
                let found = binaries.version();
                return Err(Error::WrongMajor {
                    path: place.data,
                    made,
                    found,
                });
            }
            Content::Cluster(_) => {
                init::check_durability(&config, &place.data)?;
                init::clear(&beside(&place.data, ".partial")).await?;
            }
            Content::Nothing | Content::Other => {
                progress(&format!("creating the PostgreSQL server {}", config.name));
                init::create(&binaries, &config, user, &place.data).await?;
            }
        }
        let kept = config::kept_port(&place.data);
        let (port, port_settled) = match (config.port, kept) {
            (0, Some(kept)) => (kept, true),
            (0, None) => (start::free_port(&config.name)?, false),
            (port, _) => (port, true),
        };
        let (child, log_start) = (None, 0);
        let cluster = Self {
            binaries,
            config,
            place,
            user,
            port,
            port_settled,
            child,
            log_start,
            _lock: lock,
        };
        cluster.include_settings()?;
        Ok(cluster)
    }

    /// Makes `postgresql.conf` include our file, unless that was done before.
    fn include_settings(&self) -> Result<(), Error> {
        if self.place.data.join(config::FILE).exists() {
            return Ok(());
        }
        let path = self.place.data.join("postgresql.conf");
        let mut text = fs::read_to_string(&path).doing("read", &path)?;
        let line = format!("include '{}'\n", config::FILE);
        if !text.ends_with(&line) {
            text.push('\n');
            text.push_str(&line);
            write_private(&path, &text, self.user)?;
        }
        // From here on this file's being there says that the line above is, too.
        self.write_settings()
    }

    fn write_settings(&self) -> Result<(), Error> {
        let path = self.place.data.join(config::FILE);
        write_private(&path, &self.config.render(self.port), self.user)
    }

    /// Stops the server as asked; harder, when that takes longer than `patience`.
    ///
    /// Says which way it took in the end. A server that does not run is stopped already.
    pub async fn stop(&mut self, how: Shutdown, patience: Duration) -> Result<Shutdown, Error> {
        let steps = [
            (Shutdown::Fast, Signal::INT, Duration::from_secs(8)),
            (Shutdown::Immediate, Signal::QUIT, Duration::from_secs(8)),
            (Shutdown::Kill, Signal::KILL, Duration::from_secs(8)),
        ];
        for (step, with, limit) in steps.into_iter().filter(|(step, _, _)| *step >= how) {
            let limit = if step == how { patience } else { limit };
            let limit = if step == Shutdown::Kill {
                limit.max(Duration::from_secs(1))
            } else {
                limit
            };
            let Some((child, pid)) = self.child.as_mut().and_then(|child| {
                let pid = to_pid(child.id()?)?;
                Some((child, pid))
            }) else {
                self.child = None;
                return Ok(how);
            };
            signal(pid, with);
            if let Ok(status) = timeout(limit, child.wait()).await {
                status.doing("wait for the server of", &self.place.data)?;
                self.child = None;
                if step == Shutdown::Kill {
                    takeover::end_backends(&self.place.data).await?;
                }
                return Ok(step);
            }
        }
        let pid = self.pid().and_then(to_pid).map_or(0, Pid::as_raw_pid);
        Err(Error::Undead {
            pid,
            path: self.place.data.clone(),
        })
    }

    /// Waits until the server ends, whatever the cause; may be cancelled.
    pub async fn wait(&mut self) -> Result<Exit, Error> {
        let Some(child) = self.child.as_mut() else {
            return Err(Error::NotRunning {
                name: self.config.name.clone(),
            });
        };
        let pid = child.id();
        let status = child
            .wait()
            .await
            .doing("wait for the server of", &self.place.data)?;
        self.child = None;
        Ok(self.exit(status, pid))
    }

    /// How the server ended, when it did since it was started and nobody has asked yet.
    pub fn try_wait(&mut self) -> Result<Option<Exit>, Error> {
        let Some(child) = self.child.as_mut() else {
            return Ok(None);
        };
        let pid = child.id();
        let status = child
            .try_wait()
            .doing("wait for the server of", &self.place.data)?;
        Ok(status.map(|status| {
            self.child = None;
            self.exit(status, pid)
        }))
    }

    fn exit(&self, status: ExitStatus, pid: Option<u32>) -> Exit {
        let text = log::since(&self.place.log, self.log_start);
        Exit {
            status,
            reason: pid.and_then(|pid| log::last_words(&text, pid)),
        }
    }

    /// A connection string; it holds the password.
    pub fn dsn(&self, user: &str, password: &str, database: &str) -> String {
        config::dsn(user, password, self.port, database)
    }

    /// A connection string for the superuser; it holds the password.
    pub fn superuser_dsn(&self, database: &str) -> String {
        self.dsn(&self.config.superuser, &self.config.password, database)
    }

    /// The server's name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The port on 127.0.0.1; sure once the server has started.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the data really is.
    pub fn data_dir(&self) -> &Path {
        &self.place.data
    }

    /// The server's log, which is kept across starts.
    pub fn log_path(&self) -> &Path {
        &self.place.log
    }

    /// The process, while the server runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// The programs that it runs with.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The user that it runs as.
    pub fn server_user(&self) -> ServerUser {
        self.user
    }
}

fn to_pid(id: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(id).ok()?)
}
