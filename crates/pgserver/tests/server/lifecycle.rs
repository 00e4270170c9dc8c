//! Create, connect, stop, start again, throw away.

use std::{fs, time::Duration};

use tokio::task::JoinSet;
use waangu_pgserver::{Binaries, Cluster, Error, Shutdown, made_by};

use crate::support::{
    Outcome, PASSWORD, Session, durable, keep_a_row, open, open_folder, quiet, row_is_kept, search,
    started, throwaway,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A user of `waangu up` would lose everything with the first Ctrl-C.
#[tokio::test]
async fn data_and_port_survive_a_restart() -> Outcome {
    let folder = open_folder()?;
    assert_eq!(made_by(&folder.path().join("data"))?, None);
    let mut cluster = started(durable(folder.path())).await?;
    let port = cluster.port();
    keep_a_row(&cluster).await?;
    assert_eq!(
        cluster.stop(Shutdown::Fast, PATIENCE).await?,
        Shutdown::Fast
    );
    assert_eq!(cluster.pid(), None);
    cluster.start().await?;
    row_is_kept(&cluster).await?;
    cluster.stop(Shutdown::Immediate, PATIENCE).await?;
    drop(cluster);

    let mut again = started(durable(folder.path())).await?;
    assert_eq!(again.port(), port);
    assert_eq!(
        made_by(again.data_dir())?,
        Some(again.binaries().version().major)
    );
    row_is_kept(&again).await?;
    again.stop(Shutdown::Fast, PATIENCE).await?;
    Ok(())
}

/// The platform relies on these: replication slots, passwords, nothing open to the network.
#[tokio::test]
async fn settings_are_in_force() -> Outcome {
    let folder = open_folder()?;
    let config = throwaway(folder.path())
        .with("max_connections", "33")
        .with("waangu.x", "it's");
    let cluster = started(config).await?;
    let session = Session::new(&cluster).await?;
    for (name, value) in [
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("wal_level", "logical"),
        ("max_connections", "33"),
        ("waangu.x", "it's"),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("fsync", "off"),
        ("jit", "off"),
    ] {
        let sql = format!("select current_setting('{name}')");
        assert_eq!(session.text(&sql).await?, value, "{name}");
    }
    let stranger = Session::with(&cluster.dsn("the admin", "wrong", "postgres")).await;
    assert!(stranger.is_err(), "a wrong password was let in");
    for file in ["postgresql.conf", "waangu.conf", "postgresql.auto.conf"] {
        let text = fs::read_to_string(cluster.data_dir().join(file))?;
        assert!(!text.contains(PASSWORD), "{file}");
    }
    Ok(())
}

/// Two `waangu up` on one state folder would stop each other's server again and again.
#[tokio::test]
async fn one_handle_at_a_time() -> Outcome {
    let folder = open_folder()?;
    let first = open(throwaway(folder.path())).await?;
    let second = open(throwaway(folder.path()))
        .await
        .err()
        .ok_or("it was opened twice")?;
    let expected = format!(
        "is held by process {}; stop that one first",
        std::process::id()
    );
    assert!(second.to_string().ends_with(&expected), "{second}");
    drop(first);
    open(throwaway(folder.path())).await?;
    Ok(())
}

/// Tests that fail would fill the machine with servers and folders.
#[tokio::test]
async fn dropping_a_throwaway_leaves_nothing() -> Outcome {
    let folder = open_folder()?;
    let cluster = started(throwaway(folder.path())).await?;
    let (port, session) = (cluster.port(), Session::new(&cluster).await?);
    session
        .client
        .batch_execute("create table t as select generate_series(1, 9999)")
        .await?;
    drop(cluster);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    let left: Vec<_> = fs::read_dir(folder.path())?.flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

/// A mistaken option would delete a user's data at the end of a test.
#[tokio::test]
async fn data_made_to_last_is_never_thrown_away() -> Outcome {
    let folder = open_folder()?;
    drop(open(durable(folder.path())).await?);
    let refused = open(throwaway(folder.path()))
        .await
        .err()
        .ok_or("it was opened")?;
    assert!(
        refused.to_string().contains("this data was made to last"),
        "{refused}"
    );
    assert!(folder.path().join("data/PG_VERSION").is_file());
    Ok(())
}

/// A user with a bad setting would see "did not start" and have to search for the log.
#[tokio::test]
async fn a_failed_start_gives_its_cause_in_one_line() -> Outcome {
    let folder = open_folder()?;
    let mut cluster = open(throwaway(folder.path()).with("wal_level", "minimal")).await?;
    let error = cluster.start().await.err().ok_or("it started")?;
    assert!(matches!(error, Error::Exited { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("WAL streaming (max_wal_senders > 0) requires wal_level"),
        "{text}"
    );
    assert!(!text.contains('\n'), "{text}");
    assert_eq!(cluster.pid(), None);
    Ok(())
}

/// `waangu up` could not look after several servers at once, each in a task of its own.
#[tokio::test]
async fn a_task_can_look_after_a_server() -> Outcome {
    let folder = open_folder()?;
    let config = throwaway(folder.path());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let cache = std::env::temp_dir();
        let binaries = Binaries::find(&search(&cache), &quiet).await?;
        let mut cluster = Cluster::create_or_open(binaries, config, &quiet).await?;
        cluster.start().await?;
        cluster.stop(Shutdown::Kill, PATIENCE).await
    });
    let stopped = tasks.join_next().await.ok_or("no task")??;
    assert_eq!(stopped?, Shutdown::Kill);
    Ok(())
}
