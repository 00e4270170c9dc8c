//! Small file helpers that the other parts share.
//!
//! Invariant: as root we never write through a name that the server user could have pointed
//! elsewhere: files in its folders are created new, handed over by handle and renamed into place.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    error::{Doing, Error},
    user::ServerUser,
};

/// `path` with `suffix` behind its name: `/a/data` and `.lock` make `/a/data.lock`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Sixteen random hexadecimal digits.
pub(crate) fn random_id() -> Result<String, Error> {
    let mut bytes = [0_u8; 8];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(io::Error::other)
        .doing("read random bytes for", "an id")?;
    Ok(format!("{:016x}", u64::from_be_bytes(bytes)))
}

/// Writes a new private file for `user` at `path`; what had that name is replaced in one step.
pub(crate) fn write_private(path: &Path, text: &str, user: ServerUser) -> Result<(), Error> {
    let fresh = beside(path, &format!(".{}", random_id()?));
    let written = create_private(&fresh).and_then(|mut file| {
        user.own_file(&file)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    });
    if written.is_err() {
        best_effort("remove a temporary file", fs::remove_file(&fresh));
    }
    written.doing("write", path)
}

fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Makes an empty file that says something by being there.
pub(crate) fn create_marker(path: &Path) -> Result<(), Error> {
    File::create_new(path).doing("create", path).map(drop)
}

/// Makes a folder with exactly this mode, whatever our umask is.
pub(crate) fn create_folder(path: &Path, mode: u32) -> Result<(), Error> {
    fs::create_dir(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
        .doing("create", path)
}

/// Deletes a folder tree in which a process that is just ending may still create files.
pub(crate) async fn remove_tree(path: &Path) -> io::Result<()> {
    let mut tries = 0_u8;
    loop {
        match tokio::fs::remove_dir_all(path).await {
            Err(err) if err.kind() == io::ErrorKind::DirectoryNotEmpty && tries < 40 => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => return result,
        }
    }
}

/// Notes a failure that nothing can be done about.
pub(crate) fn best_effort(doing: &'static str, result: io::Result<()>) {
    if let Err(error) = result
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(%error, "could not {doing}");
    }
}
