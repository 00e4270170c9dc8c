//! The load through tenants' transactions.

use std::panic::resume_unwind;

use tokio::task::JoinSet;
use tokio::time::Instant;
use waangu_identity::RequestContext;
use waangu_identity::proof::Access;
use waangu_kernel::{Fault, Tier};
use waangu_tenancy::{Limits, Pools, TenantTx};

use super::{Fate, Load, READ, Request, Tally, WORKERS, gather};
use crate::failure::{Failure, Of as _};
use crate::tenancy::sides::DEADLINE;
use crate::tenancy::stage::{Gateway, Stage, Told as _};

/// So many reads over so many connections.
pub(super) async fn measure(
    stage: &Stage,
    connections: usize,
    rows: i64,
    reads: u64,
) -> Result<Tally, Failure> {
    let limits = Limits {
        per_cell: connections,
        ..Limits::default()
    };
    let pools = stage.limited_pools(stage.port(), limits)?;
    let mut workers = JoinSet::new();
    let share = reads / u64::try_from(WORKERS).of("workers")?;
    for worker in 0..WORKERS {
        let load = Load::new(worker, connections, rows, share)?;
        workers.spawn(work(load, pools.clone(), stage.gateway.clone()));
    }
    gather(workers).await
}

async fn work(mut load: Load, pools: Pools, gateway: Gateway) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    while let Some(request) = load.next() {
        let context = gateway.context(request.tenant, Tier::Shared, Access::Read)?;
        tally.fate(request.fate);
        match request.fate {
            Fate::Panics => panics(pools.clone(), context, request).await?,
            Fate::Cancelled(turns) => {
                tokio::select! {
                    biased;
                    () = after(turns) => {}
                    done = serve(&pools, &context, &request, &mut tally) => done.told("ours")?,
                }
            }
            Fate::Fails | Fate::Succeeds => {
                serve(&pools, &context, &request, &mut tally)
                    .await
                    .told("ours")?;
            }
        }
    }
    Ok(tally)
}

/// Ends after so many turns of the other futures.
pub(super) async fn after(turns: u8) {
    for _ in 0..=turns {
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
        let rows = tx.query(READ, &[first]).await?;
        tally.count(request.tenant, rows.iter().map(|row| row.try_get(0).ok()));
    }
    if request.fate == Fate::Panics {
        // Unwinds like any panic, without a message on the terminal for each.
        resume_unwind(Box::new("on purpose"));
    }
    if request.fate == Fate::Fails {
        if tx.query("select 1 / 0", &[]).await.is_ok() {
            tally.refused += 1;
        }
        drop(tx);
        tx = TenantTx::lazy(pools, context, Instant::now() + DEADLINE);
    }
    let rows = tx.query_and_commit(READ, &[last]).await?;
    tally.count(request.tenant, rows.iter().map(|row| row.try_get(0).ok()));
    Ok(())
}

/// In a task of its own, as in a server.
async fn panics(pools: Pools, context: RequestContext, request: Request) -> Result<(), Failure> {
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut lost = Tally::default();
        serve(&pools, &context, &request, &mut lost).await
    });
    match task.join_next().await {
        Some(Err(error)) if error.is_panic() => Ok(()),
        _ => Err(Failure::new("a request did not panic as told")),
    }
}
