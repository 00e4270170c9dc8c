//! Creating the data folder, so that it is complete or absent whenever we are killed.
//!
//! `initdb` works in `<data>.partial/<random id>/data`, which is renamed to `<data>` when it is
//! done. The next start clears what a killed one left. A random id per attempt, because an
//! `initdb` that survived its supervisor deletes its own folder when it fails, not ours.
//!
//! Invariant: `<data>.partial` is only deleted when our marker is in it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
};

use crate::{
    Binaries,
    config::{Config, Durability},
    error::{Doing, Error},
    files::{
        beside, best_effort, create_folder, create_marker, random_id, remove_tree, write_private,
    },
    log,
    user::ServerUser,
};

const MARKER: &str = "made-by-waangu";
/// A file in the data folder of a server that was made to be thrown away.
const THROWAWAY: &str = "waangu-throwaway";

/// Creates the data folder of a new server.
pub(crate) async fn create(
    binaries: &Binaries,
    config: &Config,
    user: ServerUser,
    data: &Path,
) -> Result<(), Error> {
    let partial = beside(data, ".partial");
    clear(&partial).await?;
    create_folder(&partial, 0o755)?;
    let marker = partial.join(MARKER);
    create_marker(&marker)?;
    let attempt = partial.join(random_id()?);
    create_folder(&attempt, 0o700)?;
    user.own(&attempt).doing("hand over", &attempt)?;
    let made = initdb(binaries, config, user, &attempt).await;
    let result = made.and_then(|made| {
        if config.durability == Durability::Throwaway {
            create_marker(&made.join(THROWAWAY))?;
        }
        fs::rename(&made, data).doing("rename to", data)?;
        match (config.durability, data.parent()) {
            (Durability::Durable, Some(parent)) => File::open(parent)
                .and_then(|folder| folder.sync_all())
                .doing("sync", parent),
            _ => Ok(()),
        }
    });
    best_effort(
        "remove the folder of the creation",
        remove_tree(&partial).await,
    );
    result
}

/// Refuses to delete data that was made to last, or to keep data that nobody wrote to the disk.
pub(crate) fn check_durability(config: &Config, data: &Path) -> Result<(), Error> {
    let throwaway = data.join(THROWAWAY).exists();
    let reason = match config.durability {
        Durability::Durable if throwaway => "this data was made to be thrown away",
        Durability::Throwaway if !throwaway => "this data was made to last",
        Durability::Durable | Durability::Throwaway => return Ok(()),
    };
    Err(Error::Setting {
        name: "durability".to_owned(),
        reason,
    })
}

/// Deletes what a killed creation left.
pub(crate) async fn clear(partial: &Path) -> Result<(), Error> {
    if fs::symlink_metadata(partial).is_err() {
        return Ok(());
    }
    if partial.join(MARKER).is_file() {
        tracing::info!(path = %partial.display(), "removing a creation that was interrupted");
        return remove_tree(partial).await.doing("remove", partial);
    }
    // Killed before the marker was there, it is empty; otherwise it is not ours.
    let not_ours = |_err| Error::InTheWay {
        path: partial.to_owned(),
    };
    fs::remove_dir(partial).map_err(not_ours)
}

async fn initdb(
    binaries: &Binaries,
    config: &Config,
    user: ServerUser,
    attempt: &Path,
) -> Result<PathBuf, Error> {
    let (data, password) = (attempt.join("data"), attempt.join("password"));
    write_private(&password, &format!("{}\n", config.password), user)?;
    let initdb = binaries.program("initdb");
    let mut command = user.command(&initdb);
    command
        .args(["--auth-host=scram-sha-256", "--auth-local=scram-sha-256"])
        .args([
            "--encoding=UTF8",
            "--locale=C",
            "--data-checksums",
            "--no-instructions",
        ])
        .arg("--username")
        .arg(&config.superuser)
        .arg("--pwfile")
        .arg(&password)
        .arg("--pgdata")
        .arg(&data)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if config.durability == Durability::Throwaway {
        command.arg("--no-sync");
    }
    let output = command.output().await.doing("run", &initdb)?;
    if output.status.success() {
        return Ok(data);
    }
    let text = [output.stdout, output.stderr].concat();
    let reason = log::reason(&String::from_utf8_lossy(&text));
    let reason = reason.unwrap_or_else(|| format!("initdb ended with {}", output.status));
    Err(Error::Create {
        name: config.name.clone(),
        reason,
    })
}
