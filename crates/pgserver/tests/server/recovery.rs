//! What happens after things were killed.

use std::{fs, path::Path, time::Duration};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use waangu_pgserver::{Cluster, Shutdown};

use crate::support::{
    Outcome, Session, Supervisor, durable, keep_a_row, open, open_folder, row_is_kept, started,
    throwaway, until,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn to_pid(id: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(id).ok()?)
}

async fn kill(cluster: &mut Cluster) -> Outcome {
    let pid = cluster.pid().and_then(to_pid).ok_or("it does not run")?;
    kill_process(pid, Signal::KILL)?;
    let exit = cluster.wait().await?;
    assert!(!exit.status.success());
    assert_eq!(exit.reason, None, "it had no time to say anything");
    assert_eq!(cluster.pid(), None);
    Ok(())
}

/// The out-of-memory killer would end a demonstration for good.
#[tokio::test]
async fn a_killed_server_is_noticed_and_recovers() -> Outcome {
    let folder = open_folder()?;
    let mut cluster = started(durable(folder.path())).await?;
    keep_a_row(&cluster).await?;
    kill(&mut cluster).await?;
    assert!(
        cluster.wait().await.is_err(),
        "there is nothing to wait for"
    );
    cluster.start().await?;
    row_is_kept(&cluster).await?;
    cluster.stop(Shutdown::Fast, PATIENCE).await?;
    Ok(())
}

/// A query that computes for an hour would block the restart after a crash for an hour.
#[tokio::test]
async fn a_busy_backend_does_not_block_the_restart() -> Outcome {
    let folder = open_folder()?;
    let mut cluster = started(throwaway(folder.path())).await?;
    let session = Session::new(&cluster).await?;
    let number = session.text("select pg_backend_pid()::text").await?;
    let backend = Pid::from_raw(number.parse()?).ok_or("no process")?;
    let busy = "do $$ begin loop end loop; end $$";
    let query = session.client.batch_execute(busy);
    let restart = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        kill(&mut cluster).await?;
        assert!(
            test_kill_process(backend).is_ok(),
            "the backend noticed, so this shows nothing"
        );
        cluster.start().await?;
        Outcome::Ok(())
    };
    let (query, restart) = tokio::join!(query, restart);
    restart?;
    assert!(query.is_err());
    assert_eq!(
        Session::new(&cluster).await?.text("select 'up'").await?,
        "up"
    );
    Ok(())
}

/// After `kill -9` of `waangu up` the next one would fail because of its own old server.
#[tokio::test]
async fn the_server_of_a_dead_supervisor_is_taken_over() -> Outcome {
    let folder = open_folder()?;
    let supervisor = Supervisor::new(folder.path())?;
    let marker = folder.path().join("started");
    let old: u32 = until(|| fs::read_to_string(&marker).ok()?.parse().ok()).await?;
    let held = open(durable(folder.path()))
        .await
        .err()
        .ok_or("it was opened twice")?;
    assert!(held.to_string().contains("is held by process"), "{held}");
    supervisor.kill()?;
    let old = to_pid(old).ok_or("no process")?;
    assert!(
        test_kill_process(old).is_ok(),
        "the old server is gone, so this shows nothing"
    );

    let mut cluster = open(durable(folder.path())).await?;
    // The port is the same, so this goes to the old server.
    keep_a_row(&cluster).await?;
    cluster.start().await?;
    row_is_kept(&cluster).await?;
    assert_ne!(cluster.pid().and_then(to_pid), Some(old));
    let log = fs::read_to_string(cluster.log_path())?;
    assert!(log.contains("received fast shutdown request"), "{log}");
    cluster.stop(Shutdown::Fast, PATIENCE).await?;
    Ok(())
}

/// After a restart of the machine another program has the old number: it must not be hurt, and
/// must not be in the way.
#[tokio::test]
async fn a_stale_lock_file_of_another_process_is_no_obstacle() -> Outcome {
    let folder = open_folder()?;
    let mut cluster = open(throwaway(folder.path())).await?;
    let mut other = tokio::process::Command::new("sleep")
        .arg("60")
        .kill_on_drop(true)
        .spawn()?;
    let pid = other.id().ok_or("no process")?;
    let data = cluster.data_dir().display();
    let text = format!("{pid}\n{data}\n1\n5432\n\n127.0.0.1\n1 1\nready\n");
    fs::write(cluster.data_dir().join("postmaster.pid"), text)?;
    cluster.start().await?;
    assert!(other.try_wait()?.is_none(), "the other process was ended");
    other.kill().await?;
    Ok(())
}

/// Ctrl-C in the first seconds of the first start would spoil the folder for ever.
#[tokio::test]
async fn an_interrupted_creation_is_made_again() -> Outcome {
    let folder = open_folder()?;
    let supervisor = Supervisor::new(folder.path())?;
    let partial = folder.path().join("data.partial");
    until(|| has_begun(&partial).then_some(())).await?;
    supervisor.kill()?;
    assert!(
        !folder.path().join("data").exists(),
        "it was done, so this shows nothing"
    );
    assert!(partial.is_dir());

    let mut cluster = started(durable(folder.path())).await?;
    keep_a_row(&cluster).await?;
    row_is_kept(&cluster).await?;
    assert!(!partial.exists());
    cluster.stop(Shutdown::Fast, PATIENCE).await?;
    Ok(())
}

fn has_begun(partial: &Path) -> bool {
    let Ok(entries) = fs::read_dir(partial) else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| entry.path().join("data/PG_VERSION").exists())
}

/// A folder that happens to have the name of ours would be deleted.
#[tokio::test]
async fn a_strangers_folder_is_left_alone() -> Outcome {
    let folder = open_folder()?;
    let precious = folder.path().join("data.partial/precious");
    fs::create_dir(folder.path().join("data.partial"))?;
    fs::write(&precious, "mine")?;
    let error = open(durable(folder.path()))
        .await
        .err()
        .ok_or("it was created")?;
    assert!(
        error
            .to_string()
            .contains("is in the way and was not made by us"),
        "{error}"
    );
    fs::rename(
        folder.path().join("data.partial"),
        folder.path().join("data"),
    )?;
    let error = open(durable(folder.path()))
        .await
        .err()
        .ok_or("it was created")?;
    assert!(
        error.to_string().contains("not a PostgreSQL data folder"),
        "{error}"
    );
    assert_eq!(
        fs::read_to_string(folder.path().join("data/precious"))?,
        "mine"
    );
    Ok(())
}
