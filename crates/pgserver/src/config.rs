//! What a private server is asked to be, and the `waangu.conf` that follows from it.
//!
//! Invariants: the settings given by the caller come last and so win; the password is never shown.

use std::{
    fmt::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::error::Error;

/// The name of our file in the data folder, which `postgresql.conf` includes.
pub(crate) const FILE: &str = "waangu.conf";

/// Whether the data has to survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Committed is committed, as PostgreSQL promises.
    Durable,
    /// For tests: nothing waits for the disk, and the data is deleted with the handle.
    Throwaway,
}

/// One private server.
#[derive(Clone)]
pub struct Config {
    /// A short name for messages and for the log file: lower-case letters, digits, `-`, `_`.
    pub name: String,
    /// The data folder; it and its parents are created.
    pub data_dir: PathBuf,
    /// The port on 127.0.0.1; 0 finds a free one the first time and keeps it.
    pub port: u16,
    /// The first user, who may do everything.
    pub superuser: String,
    /// That user's password, which counts when the server is created.
    pub password: String,
    /// Further settings for the configuration file; they win over ours.
    pub settings: Vec<(String, String)>,
    /// Whether the data has to survive.
    pub durability: Durability,
    /// How long a start may take; of the recovery after a crash, how long it may say nothing.
    pub start_timeout: Duration,
}

impl Config {
    /// A durable server on a port of its own choice.
    pub fn new(
        name: impl Into<String>,
        data_dir: impl Into<PathBuf>,
        superuser: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            data_dir: data_dir.into(),
            port: 0,
            superuser: superuser.into(),
            password: password.into(),
            settings: Vec::new(),
            durability: Durability::Durable,
            start_timeout: Duration::from_mins(1),
        }
    }

    /// Adds a setting.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Finds fault before anything is touched.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refuse = |name: &str, reason| {
            Err(Error::Setting {
                name: name.to_owned(),
                reason,
            })
        };
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        if self.name.is_empty() || !self.name.chars().all(plain) {
            return refuse("name", "it must be made of a-z, 0-9, - and _");
        }
        if self.data_dir.file_name().is_none() {
            return refuse("data_dir", "it must name a folder");
        }
        if self.superuser.is_empty() || self.superuser.contains(['\0', '\n', '\r']) {
            return refuse("superuser", "it must be a name on one line");
        }
        if self.password.is_empty() || self.password.contains(['\0', '\n', '\r']) {
            return refuse("password", "it must be one line that is not empty");
        }
        if self
            .settings
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("port"))
        {
            return refuse("port", "it has a field of its own");
        }
        let of_name = |c: char| c.is_ascii_alphanumeric() || "_.".contains(c);
        match self.settings.iter().find(|(name, value)| {
            name.is_empty() || !name.chars().all(of_name) || value.contains(['\0', '\n', '\r'])
        }) {
            Some((name, _)) => refuse(name, "its name or value is not possible in a file"),
            None => Ok(()),
        }
    }

    /// The text of our configuration file.
    pub(crate) fn render(&self, port: u16) -> String {
        let mut text = "# Written by Waangu at every start; changes here are lost.\n".to_owned();
        let port = port.to_string();
        let ours = [
            ("listen_addresses", "127.0.0.1"),
            ("port", port.as_str()),
            // The path of a socket may not be longer than 107 bytes, so there is none.
            ("unix_socket_directories", ""),
            ("password_encryption", "scram-sha-256"),
            ("max_connections", "200"),
            ("wal_level", "logical"),
            ("max_wal_senders", "20"),
            ("max_replication_slots", "20"),
            // A slot that nobody reads any more must not fill the disk.
            ("max_slot_wal_keep_size", "4GB"),
            // A file of the log is used again rather than made: all commits wait while one is made, which
            // takes longer than many commits, and a move writes a tenant's rows into the log.
            ("min_wal_size", "512MB"),
            ("max_wal_size", "2GB"),
            ("jit", "off"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
            ("log_destination", "stderr"),
            ("logging_collector", "off"),
            ("log_line_prefix", "%m [%p] "),
            ("log_connections", "off"),
            ("log_disconnections", "off"),
            ("lc_messages", "C"),
        ];
        let careless: &[_] = match self.durability {
            Durability::Durable => &[],
            Durability::Throwaway => &[
                ("fsync", "off"),
                ("full_page_writes", "off"),
                ("synchronous_commit", "off"),
            ],
        };
        let theirs = self
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in ours
            .into_iter()
            .chain(careless.iter().copied())
            .chain(theirs)
        {
            let value = value.replace('\\', "\\\\").replace('\'', "''");
            // Writing to a string cannot fail.
            writeln!(text, "{name} = '{value}'").ok();
        }
        text
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("name", &self.name)
            .field("data_dir", &self.data_dir)
            .field("port", &self.port)
            .field("superuser", &self.superuser)
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

/// The port in a `waangu.conf` of an earlier run.
pub(crate) fn kept_port(data: &Path) -> Option<u16> {
    let text = std::fs::read_to_string(data.join(FILE)).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("port = "))?;
    value
        .trim_matches('\'')
        .parse()
        .ok()
        .filter(|port| *port != 0)
}

/// A connection string with everything encoded that would end a part of it early.
pub(crate) fn dsn(user: &str, password: &str, port: u16, database: &str) -> String {
    let [user, password, database] = [user, password, database].map(encode);
    format!("postgresql://{user}:{password}@127.0.0.1:{port}/{database}")
}

fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            write!(out, "%{byte:02X}").ok();
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A password with a slash or an at sign would send the client to another host.
    #[test]
    fn dsn_encodes_what_would_end_a_part() {
        assert_eq!(
            dsn("a b", "p@s/s:%é", 5433, "d?b"),
            "postgresql://a%20b:p%40s%2Fs%3A%25%C3%A9@127.0.0.1:5433/d%3Fb"
        );
    }

    /// A value could end its quotes and set something else, or a bad name spoil every start.
    #[test]
    fn settings_are_quoted_last_and_checked() {
        let config = Config::new("a", "/x/data", "admin", "secret");
        let good = config
            .clone()
            .with("app.x", "it's a \\ path")
            .with("max_connections", "1");
        assert!(good.check().is_ok());
        let text = good.render(7);
        assert!(text.contains("\napp.x = 'it''s a \\\\ path'\n"), "{text}");
        let place = |line: &str| text.find(line);
        assert!(
            place("max_connections = '200'") < place("max_connections = '1'"),
            "{text}"
        );
        assert!(config.clone().with("Port", "1").check().is_err());
        assert!(config.clone().with("a b", "1").check().is_err());
        assert!(config.clone().with("a", "1\nfsync=off").check().is_err());
        assert!(
            Config::new("../x", "/x/data", "admin", "s")
                .check()
                .is_err()
        );
        assert!(!format!("{config:?}").contains("secret"));
    }
}
