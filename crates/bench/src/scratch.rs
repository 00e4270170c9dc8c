//! A folder for one platform's state, removed at the end, whatever the end is.
//!
//! Invariant: declare it before the platform that lives in it, so that it goes after it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::failure::{Failure, Of as _};

/// A folder of our own.
#[derive(Debug)]
pub(crate) struct Scratch(TempDir);

impl Scratch {
    /// A new, empty folder in the system's place for such.
    pub(crate) fn new() -> Result<Self, Failure> {
        // Others may pass through: PostgreSQL runs as another user when we are root.
        let permissions = Permissions::from_mode(0o711);
        tempfile::Builder::new()
            .prefix("waangu-bench-")
            .permissions(permissions)
            .tempdir()
            .map(Self)
            .of("temporary folder")
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Removes it, and says if that can't be done.
    pub(crate) fn remove(self) -> Result<(), Failure> {
        let path = self.0.path().to_owned();
        self.0.close().of(path.display())
    }
}

/// The kind of file system that a path is on: a memory disk makes every commit look cheap.
pub(crate) fn file_system(path: &Path) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(mount, _)| path.starts_with(mount))
        .max_by_key(|(mount, _)| mount.len())
        .map(|(_, kind)| kind.to_owned())
}
