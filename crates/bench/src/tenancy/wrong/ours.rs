//! The load through tenants' transactions.

use std::panic::resume_unwind;

use tokio::task::JoinSet;
use tokio::time::Instant;
use waangu_identity::RequestContext;
use waangu_identity::proof::Access;
use waangu_kernel::{Fault, Tier};
use waangu_tenancy::{Pools, TenantTx};

use super::{Fate, Load, Request, Tally, WORKERS, gather};
use crate::failure::{Failure, Of as _};
use crate::tenancy::sides::DEADLINE;
use crate::tenancy::stage::{Stage, Told as _};

const READ: &str = "select tenant_id, id from item where id between $1 and $1 + 2";

/// So many reads over so many connections.
pub(super) async fn measure(
    stage: &Stage,
    connections: usize,
    rows: i64,
    reads: u64,
) -> Result<Tally, Failure> {
    let pools = stage.limited_pools(stage.port(), connections)?;
    let mut workers = JoinSet::new();
    let share = reads / u64::try_from(WORKERS).of("workers")?;
    for worker in 0..WORKERS {
        let load = Load::new(worker, connections, rows, share);
        let (pools, maker) = (pools.clone(), stage.contexts());
        let context = move |tenant| maker.make(tenant, Tier::Shared, Access::Read);
        workers.spawn(work(load, pools, context));
    }
    gather(workers).await
}

async fn work<F>(mut load: Load, pools: Pools, context: F) -> Result<Tally, Failure>
where
    F: Fn(i64) -> Result<RequestContext, Failure>,
{
    let mut tally = Tally::default();
    while let Some(request) = load.next() {
        let context = context(request.tenant)?;
        tally.fate(request.fate);
        match request.fate {
            Fate::Panics => panics(&pools, context, request, &mut tally).await?,
            Fate::Cancelled(polls) => {
                let mut seen = Tally::default();
                tokio::select! {
                    biased;
                    () = after(polls) => {}
                    done = serve(&pools, &context, &request, &mut seen) => done.told("ours")?,
                }
                tally.add(seen);
            }
            Fate::Fails => {
                serve(&pools, &context, &request, &mut tally)
                    .await
                    .told("ours")?;
            }
            Fate::Succeeds => {
                serve(&pools, &context, &request, &mut tally)
                    .await
                    .told("ours")?;
            }
        }
    }
    Ok(tally)
}

/// Ends after so many turns of the other futures.
pub(super) async fn after(polls: u8) {
    for _ in 0..=polls {
        tokio::task::yield_now().await;
    }
}

async fn serve(
    pools: &Pools,
    context: &RequestContext,
    request: &Request,
    tally: &mut Tally,
) -> Result<(), Fault> {
    let mut tx = TenantTx::lazy(pools, context, Instant::now() + DEADLINE);
    let Some((last, before)) = request.reads.split_last() else {
        return Ok(());
    };
    for first in before {
        tally.count(request.tenant, &tx.query(READ, &[first]).await?);
    }
    if request.fate == Fate::Fails {
        if tx.query("select 1 / 0", &[]).await.is_ok() {
            tally.refused += 1;
        }
        drop(tx);
        tx = TenantTx::lazy(pools, context, Instant::now() + DEADLINE);
    }
    tally.count(request.tenant, &tx.query_and_commit(READ, &[last]).await?);
    Ok(())
}

/// In a task of its own, as in a server, with the transaction open.
async fn panics(
    pools: &Pools,
    context: RequestContext,
    request: Request,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let pools = pools.clone();
    let mut task = JoinSet::new();
    let (tell, told) = tokio::sync::oneshot::channel();
    task.spawn(async move {
        let mut seen = Tally::default();
        let mut tx = TenantTx::lazy(&pools, &context, Instant::now() + DEADLINE);
        for first in &request.reads {
            match tx.query(READ, &[first]).await {
                Ok(rows) => seen.count(request.tenant, &rows),
                Err(_) => seen.refused += 1,
            }
        }
        if tell.send(seen).is_ok() {
            // Unwinds like any panic, without a message on the terminal for each.
            resume_unwind(Box::new("on purpose"));
        }
        drop(tx);
    });
    let seen = told.await.of("panicking request")?;
    tally.add(seen);
    match task.join_next().await {
        Some(Err(error)) if error.is_panic() => Ok(()),
        _ => Err(Failure::new("a request did not panic as told")),
    }
}
