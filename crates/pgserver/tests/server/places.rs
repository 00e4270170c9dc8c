//! Folders, ports and versions that are not as one would wish.

use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
    time::Duration,
};

use waangu_pgserver::{Binaries, Cluster, Config, Fallback, Search, ServerUser, Shutdown, made_by};

use crate::support::{
    Outcome, binaries, durable, is_root, keep_a_row, open, open_folder, quiet, row_is_kept, search,
    skipped, started, throwaway,
};

/// Root in a container, with its state below /root, would get no server at all.
#[tokio::test]
async fn root_may_keep_its_state_in_a_closed_folder() -> Outcome {
    if !is_root() {
        return Ok(skipped(
            "root_may_keep_its_state_in_a_closed_folder",
            "it needs root",
        )?);
    }
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700))?;
    let said = std::sync::Mutex::new(Vec::new());
    let say = |line: &str| {
        if let Ok(mut said) = said.lock() {
            said.push(line.to_owned());
        }
    };
    let asked = durable(folder.path());
    let mut cluster = Cluster::create_or_open(binaries().await?, asked, &say).await?;
    cluster.start().await?;
    keep_a_row(&cluster).await?;
    let data = cluster.data_dir().to_owned();
    assert!(!data.starts_with(folder.path()), "{}", data.display());
    assert_eq!(fs::metadata(&data)?.uid(), cluster.server_user().uid());
    assert!(
        said.lock()
            .is_ok_and(|said| said.concat().contains("its files are in"))
    );
    cluster
        .stop(Shutdown::Fast, Duration::from_secs(20))
        .await?;
    drop(cluster);

    assert!(made_by(&folder.path().join("data"))?.is_some());
    let mut again = started(durable(folder.path())).await?;
    assert_eq!(again.data_dir(), data);
    row_is_kept(&again).await?;
    again.stop(Shutdown::Fast, Duration::from_secs(20)).await?;
    drop(again);

    let base = data.parent().ok_or("no parent")?;
    assert!(
        base.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("waangu-"))
    );
    fs::remove_dir_all(base)?;
    let lost = open(durable(folder.path()))
        .await
        .err()
        .ok_or("it began anew")?;
    assert!(
        lost.to_string()
            .contains("which is gone; restore it, or delete"),
        "{lost}"
    );
    Ok(())
}

/// Tests run by root in a private temporary folder would leave their data in /var/lib.
#[tokio::test]
async fn a_moved_throwaway_is_deleted_as_well() -> Outcome {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700))?;
    let cluster = started(throwaway(folder.path())).await?;
    let data = cluster.data_dir().to_owned();
    drop(cluster);
    assert!(!data.exists());
    if is_root() {
        assert!(data.parent().is_some_and(|base| !base.exists()));
    }
    assert_eq!(fs::read_dir(folder.path())?.count(), 0);
    Ok(())
}

/// A user with another server on the port would have to guess why nothing starts.
#[tokio::test]
async fn a_taken_port_is_named() -> Outcome {
    let folder = open_folder()?;
    let taken = TcpListener::bind(("127.0.0.1", 0))?;
    let port = taken.local_addr()?.port();
    let mut cluster = open(Config {
        port,
        ..throwaway(folder.path())
    })
    .await?;
    let error = cluster.start().await.err().ok_or("it started")?;
    let expected = format!(
        "port {port} of the server test is in use by another program; stop that one or choose \
         another port"
    );
    assert_eq!(error.to_string(), expected);
    drop(taken);
    cluster.start().await?;
    assert_eq!(cluster.port(), port);
    Ok(())
}

/// Tests that start many servers at once would now and then fail for no reason.
#[tokio::test]
async fn a_port_of_our_own_choice_is_chosen_again() -> Outcome {
    let folder = open_folder()?;
    let mut cluster = open(throwaway(folder.path())).await?;
    let first = cluster.port();
    let _taken = TcpListener::bind(("127.0.0.1", first))?;
    cluster.start().await?;
    assert_ne!(cluster.port(), first);
    row_can_be_kept(&cluster).await
}

async fn row_can_be_kept(cluster: &Cluster) -> Outcome {
    keep_a_row(cluster).await?;
    row_is_kept(cluster).await
}

/// After an upgrade of the system a user would see PostgreSQL's own riddle, or lose the data.
#[tokio::test]
async fn data_of_another_major_version_is_refused_clearly() -> Outcome {
    let folder = open_folder()?;
    let data = folder.path().join("data");
    fs::create_dir(&data)?;
    fs::write(data.join("PG_VERSION"), "11\n")?;
    let user = ServerUser::pick();
    chown(&data, Some(user.uid()), Some(user.gid()))?;
    assert_eq!(made_by(&data)?, Some(11));
    let version = binaries().await?.version();
    let error = open(durable(folder.path()))
        .await
        .err()
        .ok_or("it was opened")?;
    let text = error.to_string();
    let expected =
        format!("was made by PostgreSQL 11, found only {version}; install PostgreSQL 11");
    assert!(text.contains(&expected), "{text}");
    let needs = Search {
        major: Some(11),
        ..search(folder.path())
    };
    let error = Binaries::find(&needs, &quiet)
        .await
        .err()
        .ok_or("there is an 11")?;
    assert!(
        error.to_string().contains("version 11, for this data"),
        "{error}"
    );
    assert!(
        error.to_string().contains("another major version"),
        "{error}"
    );
    Ok(())
}

fn script(folder: &Path, name: &str, text: &str) -> Outcome {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
    fs::set_permissions(path, Permissions::from_mode(0o755))?;
    Ok(())
}

/// A user whose configuration names an old or broken PostgreSQL would not learn what is wrong.
#[tokio::test]
async fn the_version_gate_says_what_it_saw() -> Outcome {
    let folder = open_folder()?;
    let chosen = folder.path();
    let search = Search {
        chosen: Some(chosen),
        fallback: Fallback::Nothing,
        ..search(chosen)
    };
    let refusal = async || -> Result<String, Box<dyn std::error::Error>> {
        Ok(Binaries::find(&search, &quiet)
            .await
            .err()
            .ok_or("it was found")?
            .to_string())
    };
    assert!(
        refusal().await?.contains("postgres does not run"),
        "{}",
        refusal().await?
    );
    script(
        chosen,
        "postgres",
        "echo 'postgres (PostgreSQL) 15.13 (Debian 15.13-1)'",
    )?;
    script(chosen, "initdb", "echo no library >&2; exit 127")?;
    assert!(
        refusal().await?.contains("initdb does not run: no library"),
        "{}",
        refusal().await?
    );
    script(
        chosen,
        "initdb",
        "echo 'initdb (PostgreSQL) 15.13 (Debian 15.13-1)'",
    )?;
    let expected = format!(
        "no usable PostgreSQL (version 15.14 or newer) here: found 15.13 in {} (too old); correct \
         the folder that the configuration names, or name none",
        chosen.display()
    );
    assert_eq!(refusal().await?, expected);
    Ok(())
}
