//! The folders of this machine that may hold PostgreSQL's programs.
//!
//! Invariant: each real folder once, the well-known ones before those of the search path: among
//! equal versions the first wins, and a search path may lead to wrappers.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use super::first_line;
use crate::user::ServerUser;

/// All folders with a `postgres`, real paths.
pub(super) async fn folders(path: &OsStr, user: ServerUser) -> Vec<PathBuf> {
    let mut folders = well_known();
    if let Some(pg_config) = on_path(path, "pg_config")
        && let Ok(line) = first_line(&pg_config, "--bindir", user).await
    {
        folders.push(PathBuf::from(line));
    }
    folders.extend(std::env::split_paths(path).filter(|folder| folder.is_absolute()));
    let mut seen: Vec<PathBuf> = Vec::new();
    for folder in folders.iter().filter_map(|folder| real(folder)) {
        if !seen.contains(&folder) {
            seen.push(folder);
        }
    }
    seen
}

/// The first program of this name on a search path; never one of the current folder.
pub(super) fn on_path(path: &OsStr, name: &str) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// The folder that a folder's `postgres` is really in, when `initdb` is there, too.
fn real(folder: &Path) -> Option<PathBuf> {
    let folder = fs::canonicalize(folder).ok()?;
    let program = fs::canonicalize(folder.join("postgres")).ok()?;
    let home = program.parent()?;
    if home.join("initdb").is_file() && program.is_file() {
        return Some(home.to_owned());
    }
    // Wrappers, or a half installation: running them will tell.
    folder.join("initdb").exists().then_some(folder)
}

fn well_known() -> Vec<PathBuf> {
    let mut folders = inside("/usr/lib/postgresql", "");
    folders.extend(inside("/usr", "pgsql-"));
    folders.push(PathBuf::from("/usr/local/pgsql"));
    folders.extend(inside("/opt/homebrew/opt", "postgresql"));
    folders.extend(inside("/usr/local/opt", "postgresql"));
    folders
        .into_iter()
        .map(|folder| folder.join("bin"))
        .collect()
}

fn inside(folder: &str, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let named = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(prefix);
    let mut found: Vec<_> = entries
        .flatten()
        .filter(named)
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}
