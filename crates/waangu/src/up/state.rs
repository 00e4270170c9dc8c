//! The state folder: whose it is, which version, and what is kept in it.
//!
//! Invariants: one `up` at a time (an flock that ends with the process, however it ends); what holds
//! secrets is readable by its owner only; every file is written aside and renamed, so that a crash
//! leaves the old one or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use waangu_process::file::write_private;

use crate::failure::{Failure, Of as _};

/// Version of the folder's layout.
const VERSION: u32 = 1;

/// Free space that a start asks for: two fresh clusters with their first WAL take about 200 MB.
const FREE_BYTES: u64 = 512 * 1024 * 1024;

/// An opened state folder.
#[derive(Debug)]
pub(crate) struct State {
    root: PathBuf,
    /// Held until the process ends.
    _lock: File,
}

impl State {
    /// Opens or creates the folder.
    pub(crate) fn open(root: &Path) -> Result<Self, Failure> {
        // Others may pass through but not look: PostgreSQL runs as another user when we are root, and
        // its files are below this folder.
        create_folder(root, 0o711)?;
        let root = fs::canonicalize(root).of(root.display())?;
        // First, because on a full disk not even the lock can be written.
        check_room(&root)?;
        let lock = take_lock(&root)?;
        let state = Self { root, _lock: lock };
        state.check_version()?;
        create_folder(&state.path("pg"), 0o711)?;
        for folder in ["keys", "log", "packages", "run", "tls"] {
            create_folder(&state.path(folder), 0o700)?;
        }
        Ok(state)
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Makes a folder with these files, all of it or nothing.
    pub(crate) fn write_folder(&self, name: &str, files: &[(&str, &str)]) -> Result<(), Failure> {
        let draft = format!("{name}.draft");
        create_folder(&self.path(&draft), 0o700)?;
        for (file, text) in files {
            self.write(&format!("{draft}/{file}"), text.as_bytes())?;
        }
        fs::rename(self.path(&draft), self.path(name)).of(self.path(name).display())
    }

    /// A file's text, if it exists.
    pub(crate) fn read(&self, name: &str) -> Result<Option<String>, Failure> {
        let path = self.path(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).of(path.display()),
        }
    }

    /// Writes a file that only its owner may read.
    pub(crate) fn write(&self, name: &str, contents: &[u8]) -> Result<PathBuf, Failure> {
        let path = self.path(name);
        write_private(&path, contents).of(path.display())?;
        Ok(path)
    }

    /// Writes a TOML file that only its owner may read.
    pub(crate) fn write_toml<T: Serialize>(
        &self,
        name: &str,
        value: &T,
    ) -> Result<PathBuf, Failure> {
        let text = toml::to_string_pretty(value).of(name)?;
        self.write(name, text.as_bytes())
    }

    fn check_version(&self) -> Result<(), Failure> {
        let Some(text) = self.read("VERSION")? else {
            self.write("VERSION", format!("{VERSION}\n").as_bytes())?;
            return Ok(());
        };
        match text.trim().parse::<u32>() {
            Ok(version) if version <= VERSION => Ok(()),
            Ok(version) => Err(Failure::failed(format!(
                "state folder {} is of version {version}, this program knows {VERSION}; \
                 start the newer program, or choose another --state",
                self.root.display()
            ))),
            Err(_not_a_number) => Err(Failure::failed(format!(
                "{} is not a version; is {} a state folder of ours? choose another --state",
                self.path("VERSION").display(),
                self.root.display()
            ))),
        }
    }
}

fn check_room(root: &Path) -> Result<(), Failure> {
    let disk = rustix::fs::statvfs(root).of(root.display())?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free >= FREE_BYTES {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "{} has {} MB free, {} MB are needed; free some space, or choose another --state",
        root.display(),
        free / 1_048_576,
        FREE_BYTES / 1_048_576
    )))
}

/// Creates a folder of this mode, with its parents.
fn create_folder(path: &Path, mode: u32) -> Result<(), Failure> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(|error| {
        Failure::failed(format!(
            "can't create {}: {error}; choose another --state",
            path.display()
        ))
    })?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).of(path.display())
}

fn take_lock(root: &Path) -> Result<File, Failure> {
    let path = root.join("lock");
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    let mut file = options.open(&path).map_err(|error| {
        Failure::failed(format!(
            "can't write to state folder {}: {error}; make it writable, or choose another --state",
            root.display()
        ))
    })?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        drop(file.read_to_string(&mut holder));
        return Err(Failure::failed(format!(
            "state folder {} is in use by `waangu up` (process {}); stop it first, or choose \
             another --state",
            root.display(),
            holder.trim()
        )));
    }
    file.set_len(0).of(path.display())?;
    writeln!(file, "{}", std::process::id()).of(path.display())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two supervisors on one folder would fight over the same database files.
    #[test]
    fn a_folder_is_used_once_at_a_time() {
        let folder = std::env::temp_dir().join(format!("waangu-state-{}", std::process::id()));
        let first = State::open(&folder).unwrap();
        assert!(State::open(&folder).is_err());
        drop(first);
        fs::write(folder.join("VERSION"), "99").unwrap();
        assert!(State::open(&folder).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
