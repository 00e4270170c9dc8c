//! The load the way people write it: a shared pool, and the tenant as a setting of the session.

use std::panic::resume_unwind;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

use super::ours::after;
use super::{Fate, Load, READ, Request, Tally, WORKERS, gather};
use crate::failure::{Failure, Of as _};
use crate::tenancy::stage::{Stage, TODAY, session_config, shared};

/// Longest wait for a connection.
const WAIT: Duration = Duration::from_secs(30);

/// So many reads over so many connections.
pub(super) async fn measure(
    stage: &Stage,
    connections: usize,
    rows: i64,
    reads: u64,
) -> Result<Tally, Failure> {
    let config = session_config(TODAY, &shared()?, stage.port());
    let recycling_method = RecyclingMethod::Fast;
    let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method });
    let pool = Pool::builder(manager)
        .max_size(connections)
        .wait_timeout(Some(WAIT))
        .create_timeout(Some(WAIT))
        .runtime(Runtime::Tokio1)
        .build()
        .of("pool")?;
    let mut workers = JoinSet::new();
    let share = reads / u64::try_from(WORKERS).of("workers")?;
    for worker in 0..WORKERS {
        let load = Load::new(worker, connections, rows, share)?;
        workers.spawn(work(load, pool.clone()));
    }
    gather(workers).await
}

async fn work(mut load: Load, pool: Pool) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    while let Some(request) = load.next() {
        tally.fate(request.fate);
        let done = match request.fate {
            Fate::Panics => panics(pool.clone(), request).await,
            Fate::Cancelled(polls) => tokio::select! {
                biased;
                () = after(polls) => Ok(()),
                done = serve(&pool, &request, &mut tally) => done,
            },
            Fate::Succeeds | Fate::Fails => serve(&pool, &request, &mut tally).await,
        };
        // Such as a connection on which an abandoned transaction has failed.
        if done.is_err() {
            tally.refused += 1;
        }
    }
    Ok(tally)
}

async fn serve(pool: &Pool, request: &Request, tally: &mut Tally) -> Result<(), Failure> {
    let mut connection = pool.get().await.of("pool")?;
    let transaction = connection.transaction().await.of("begin")?;
    let set = format!("set app.current_tenant = '{}'", request.tenant);
    transaction.batch_execute(&set).await.of("set")?;
    let Some((last, before)) = request.reads.split_last() else {
        return Ok(());
    };
    for first in before {
        let read = transaction.prepare_cached(READ).await.of("prepare")?;
        let rows = transaction.query(&read, &[first]).await.of("read")?;
        tally.count(request.tenant, rows.iter().map(|row| row.try_get(0).ok()));
    }
    if request.fate == Fate::Panics {
        // Unwinds like any panic, without a message on the terminal for each.
        resume_unwind(Box::new("on purpose"));
    }
    if request.fate == Fate::Fails {
        if transaction.batch_execute("select 1 / 0").await.is_ok() {
            tally.refused += 1;
        }
        transaction.rollback().await.of("rollback")?;
        return read(&connection, request.tenant, *last, tally).await;
    }
    let read = transaction.prepare_cached(READ).await.of("prepare")?;
    let rows = transaction.query(&read, &[last]).await.of("read")?;
    tally.count(request.tenant, rows.iter().map(|row| row.try_get(0).ok()));
    transaction.commit().await.of("commit")
}

/// Outside of a transaction: the tenant was set on this connection, was it not?
async fn read(
    connection: &Object,
    tenant: i64,
    first: i64,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let read = connection.prepare_cached(READ).await.of("prepare")?;
    let rows = connection.query(&read, &[&first]).await.of("read")?;
    tally.count(tenant, rows.iter().map(|row| row.try_get(0).ok()));
    Ok(())
}

/// In a task of its own, as in a server.
async fn panics(pool: Pool, request: Request) -> Result<(), Failure> {
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut lost = Tally::default();
        serve(&pool, &request, &mut lost).await
    });
    match task.join_next().await {
        Some(Err(error)) if error.is_panic() => Ok(()),
        _ => Err(Failure::new("a request did not panic as told")),
    }
}
