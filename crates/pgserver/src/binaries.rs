//! Finding PostgreSQL's programs: on this machine, else from npm, else from the system's packages.
//!
//! Invariants: a folder counts only when both `postgres` and `initdb` run as the server user and
//! are of one version; a release is preferred to a pre-release, and then the newer version.
//! Left out: reading the environment, which is the caller's; `psql` and other clients.

mod fetch;
mod local;

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::time::timeout;

use crate::{
    Progress,
    error::Error,
    user::ServerUser,
    version::{MINIMUM, Version},
};

/// What may be done when this machine has no usable PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// Nothing: say what to install.
    Nothing,
    /// Unpack the pinned npm package into the cache folder.
    Download,
    /// The same; when that cannot be, install the system's package (root on Debian only).
    DownloadOrInstall,
}

/// Where to look, and what may be done.
#[derive(Debug, Clone, Copy)]
pub struct Search<'a> {
    /// The folder that the configuration names; then no other is considered.
    pub chosen: Option<&'a Path>,
    /// The search path for programs (`PATH`).
    pub path: &'a OsStr,
    /// The folder for downloads, which is created when needed.
    pub cache: &'a Path,
    /// The major version that existing data needs, see [`crate::made_by`].
    pub major: Option<u16>,
    /// What may be done when there is nothing.
    pub fallback: Fallback,
}

/// The programs of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    bin_dir: PathBuf,
    version: Version,
}

impl Binaries {
    /// Finds the newest usable programs, or gets them as far as `search` permits.
    pub async fn find(search: &Search<'_>, progress: Progress<'_>) -> Result<Self, Error> {
        let user = ServerUser::pick();
        if let Some(chosen) = search.chosen {
            let mut survey = Survey::new(search.major);
            survey.look(chosen, user).await;
            return survey.best("correct the folder that the configuration names, or name none");
        }
        let survey = Survey::everywhere(search, user).await;
        let mut advice = advice(search);
        let on_site = survey.best(&advice);
        if on_site.is_ok() || search.fallback == Fallback::Nothing {
            return on_site;
        }
        if search
            .major
            .is_none_or(|major| major == fetch::VERSION.major)
        {
            match Self::download(search.cache, search.path, progress).await {
                Ok(found) => return Ok(found),
                Err(error) => advice = format!("{error}; {advice}"),
            }
        }
        if search.fallback == Fallback::DownloadOrInstall && fetch::apt_works(search.path) {
            fetch::install(search.path, progress).await?;
            return Survey::everywhere(search, user).await.best(&advice);
        }
        survey.best(&advice)
    }

    /// Unpacks the pinned npm package into `cache`, or finds it there from an earlier time.
    ///
    /// As root, `cache` may be where the server user cannot go; then it is a folder of ours in
    /// `/var/lib/waangu` or `/var/tmp`.
    pub async fn download(
        cache: &Path,
        path: &OsStr,
        progress: Progress<'_>,
    ) -> Result<Self, Error> {
        fetch::download(cache, path, ServerUser::pick(), progress).await
    }

    /// The folder of the programs.
    pub fn bin_dir(&self) -> &Path {
        &self.bin_dir
    }

    /// Their version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The path of one of them.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }

    /// Runs the programs of a folder; the error tells in a few words what is wrong.
    pub(crate) async fn probe(bin_dir: &Path, user: ServerUser) -> Result<Self, String> {
        let version = banner(&bin_dir.join("postgres"), user).await?;
        let initdb = banner(&bin_dir.join("initdb"), user).await?;
        if version == initdb {
            Ok(Self {
                bin_dir: bin_dir.to_owned(),
                version,
            })
        } else {
            Err(format!("postgres is {version} but initdb is {initdb}"))
        }
    }
}

async fn banner(program: &Path, user: ServerUser) -> Result<Version, String> {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let line = first_line(program, "--version", user).await?;
    Version::from_banner(&line).ok_or_else(|| format!("{name} does not tell its version"))
}

/// The first line that a program prints.
async fn first_line(program: &Path, argument: &str, user: ServerUser) -> Result<String, String> {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let mut command = user.command(program);
    command
        .arg(argument)
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let Ok(output) = timeout(Duration::from_secs(10), command.output()).await else {
        return Err(format!("{name} hangs"));
    };
    let output = output.map_err(|err| format!("{name} does not run: {err}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text.lines().next().unwrap_or("no message").trim();
        return Err(format!("{name} does not run: {line}"));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

fn advice(search: &Search<'_>) -> String {
    let major = search
        .major
        .map(|major| format!(" {major}"))
        .unwrap_or_default();
    let permit = match search.fallback {
        Fallback::Nothing => ", or permit the download with npm",
        Fallback::Download | Fallback::DownloadOrInstall => "",
    };
    format!(
        "install PostgreSQL{major} (on Debian and Ubuntu: apt-get install postgresql), or name the \
         folder of its programs in the configuration{permit}"
    )
}

/// What the folders looked at have.
struct Survey {
    major: Option<u16>,
    usable: Vec<Binaries>,
    refused: Vec<String>,
}

impl Survey {
    fn new(major: Option<u16>) -> Self {
        Self {
            major,
            usable: Vec::new(),
            refused: Vec::new(),
        }
    }

    async fn everywhere(search: &Search<'_>, user: ServerUser) -> Self {
        let mut survey = Self::new(search.major);
        for folder in local::folders(search.path, user).await {
            survey.look(&folder, user).await;
        }
        survey
    }

    async fn look(&mut self, folder: &Path, user: ServerUser) {
        match Binaries::probe(folder, user).await {
            Ok(binaries) => self.judge(binaries),
            Err(reason) => self
                .refused
                .push(format!("{} ({reason})", folder.display())),
        }
    }

    fn judge(&mut self, binaries: Binaries) {
        let version = binaries.version;
        if self.major.is_some_and(|major| major != version.major) {
            self.refuse(&binaries, "another major version");
        } else if version < MINIMUM {
            self.refuse(&binaries, "too old");
        } else {
            self.usable.push(binaries);
        }
    }

    fn refuse(&mut self, binaries: &Binaries, reason: &str) {
        let (version, folder) = (binaries.version, binaries.bin_dir.display());
        self.refused
            .push(format!("{version} in {folder} ({reason})"));
    }

    /// The newest; the first one found among equals.
    fn best(&self, advice: &str) -> Result<Binaries, Error> {
        let newest = self.usable.iter().rev().max_by_key(|found| {
            let version = found.version;
            (version.stable, version)
        });
        newest.cloned().ok_or_else(|| Error::NoBinaries {
            needed: match self.major {
                Some(major) if major == MINIMUM.major => {
                    format!("version {MINIMUM} or newer of the same major, for this data")
                }
                Some(major) => format!("version {major}, for this data"),
                None => format!("version {MINIMUM} or newer"),
            },
            found: if self.refused.is_empty() {
                "found none".to_owned()
            } else {
                format!("found {}", self.refused.join(", "))
            },
            advice: advice.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(major: Option<u16>, versions: &[&str]) -> Result<Binaries, Error> {
        let mut survey = Survey::new(major);
        for (number, text) in versions.iter().enumerate() {
            if let Some(version) = Version::from_banner(text) {
                survey.judge(Binaries {
                    bin_dir: PathBuf::from(format!("/{number}")),
                    version,
                });
            }
        }
        survey.best("install it")
    }

    fn folder(found: Result<Binaries, Error>) -> PathBuf {
        found.map(|found| found.bin_dir).unwrap_or_default()
    }

    /// A user with several versions would get an old one, a beta, or one that cannot read the data.
    #[test]
    fn the_newest_that_fits_wins() {
        assert_eq!(
            folder(survey(None, &["15.18", "17.2", "17.2", "16.4"])),
            Path::new("/1")
        );
        assert_eq!(folder(survey(None, &["17.2", "18beta1"])), Path::new("/0"));
        assert_eq!(folder(survey(None, &["14.9", "18beta1"])), Path::new("/1"));
        assert_eq!(
            folder(survey(Some(15), &["15.18", "17.2"])),
            Path::new("/0")
        );
    }

    /// A user with an old version would not learn that it was seen, nor what would do.
    #[test]
    fn refusals_say_what_was_found_where() {
        let text = |found: Result<Binaries, Error>| found.err().map(|err| err.to_string());
        assert_eq!(
            text(survey(None, &["14.9", "15.13"])).as_deref(),
            Some(
                "no usable PostgreSQL (version 15.14 or newer) here: found 14.9 in /0 (too old), \
                 15.13 in /1 (too old); install it"
            )
        );
        assert_eq!(
            text(survey(Some(16), &["15.18"])).as_deref(),
            Some(
                "no usable PostgreSQL (version 16, for this data) here: found 15.18 in /0 \
                 (another major version); install it"
            )
        );
    }
}
