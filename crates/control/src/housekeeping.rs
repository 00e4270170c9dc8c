//! What is done from time to time: cells are measured, bucket databases that nobody lives in are
//! dropped, and whatever a crash kept from being dropped, what moves have left behind is removed, modules'
//! transactions that never end are ended, helper schemas that could not be brought up to date at the start
//! are tried again.
//!
//! Invariants: every visit is bounded; a cell that does not answer keeps its last measure, and nobody
//! else waits for it; a bucket is dropped only while nobody can choose it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;
use waangu_kernel::{CellId, Fault};
use waangu_registry::Registry;
use waangu_tenancy::CellAdmin;

use crate::bounds::in_time;
use crate::relocation::clean::{self, Beat};
use crate::relocation::ways;

/// Pause between two rounds.
const ROUND: Duration = Duration::from_secs(15);

/// How old a measure becomes before it is taken again, in seconds. Several control planes share the
/// work: who comes second finds it done.
const MEASURE_SECONDS: i32 = 60;

/// Longest transaction of a module, in seconds: more than any request has time for.
const OVERDUE_SECONDS: i32 = 120;

/// Longest time for one thing at one cell.
const VISIT: Duration = Duration::from_secs(25);

/// Runs until `stop`.
pub(crate) async fn run(
    registry: Registry,
    cells: Vec<Arc<CellAdmin>>,
    max_held: i64,
    stop: CancellationToken,
) {
    // A cell that hangs keeps none of the others waiting: bounds on what slots hold back are kept here.
    let kept = cells.iter().map(|cell| async {
        let mut beat = Beat::default();
        loop {
            keep(&registry, cell, &mut beat, max_held).await;
            if rest(&stop).await.is_none() {
                return;
            }
        }
    });
    let measured = async {
        loop {
            if let Err(fault) = measure(&registry, &cells).await {
                tracing::warn!(cause = fault.operator_cause(), "measuring: {fault}");
            }
            if rest(&stop).await.is_none() {
                return;
            }
        }
    };
    tokio::join!(join_all(kept), measured);
}

/// The pause between two rounds; `None` if there is no other.
async fn rest(stop: &CancellationToken) -> Option<()> {
    stop.run_until_cancelled(tokio::time::sleep(ROUND)).await
}

/// Everything at one cell, each with a bound of its own: a long sweep must not keep old places for ever.
/// What is not done in its time goes on in the next round.
async fn keep(registry: &Registry, cell: &CellAdmin, beat: &mut Beat, max_held: i64) {
    let leave = |stays: &str, done: Result<(), Fault>| {
        if let Err(fault) = done {
            let cause = fault.operator_cause();
            tracing::warn!(cell = %cell.id(), cause, "{stays}: {fault}");
        }
    };
    let finished = in_time(VISIT, cell.finish_drops()).await;
    leave("databases stay half removed", finished.map(drop));
    let retired = in_time(VISIT, retire_buckets(registry, cell)).await;
    leave("empty buckets stay", retired);
    let kept = in_time(VISIT, ways::keep(registry, cell)).await;
    leave("ways back stay", kept);
    let swept = in_time(VISIT, clean::sweep_cell(registry, cell, beat, max_held)).await;
    leave("debris of moves stays", swept);
    let emptied = in_time(VISIT, clean::empty_places(registry, cell)).await;
    leave("what moves have left stays", emptied);
    let ended = in_time(VISIT, end_overdue(cell)).await;
    leave("overdue transactions go on", ended);
    let caught_up = in_time(VISIT, cell.catch_up()).await;
    leave("helper schemas stay as they are", caught_up.map(drop));
}

async fn end_overdue(cell: &CellAdmin) -> Result<(), Fault> {
    let ended = cell.end_overdue(OVERDUE_SECONDS).await?;
    if ended > 0 {
        tracing::warn!(cell = %cell.id(), ended, "ended overdue transactions");
    }
    Ok(())
}

async fn measure(registry: &Registry, cells: &[Arc<CellAdmin>]) -> Result<(), Fault> {
    let mut session = registry.session().await?;
    let tx = session.begin().await?;
    let due: Vec<CellId> = tx.list_unmeasured_cells(MEASURE_SECONDS).await?;
    drop(tx);
    drop(session);
    let due = cells.iter().filter(|cell| due.contains(cell.id()));
    let visits = due.map(|cell| async move { (cell.id(), in_time(VISIT, cell.measure()).await) });
    let visited = join_all(visits).await;
    let mut session = registry.session().await?;
    let tx = session.begin().await?;
    for (id, measured) in visited {
        match measured {
            Ok(usage) => {
                tx.put_cell_usage(id, usage.bytes, usage.connections)
                    .await?;
            }
            Err(fault) => {
                tracing::warn!(cell = %id, cause = fault.operator_cause(), "not measured: {fault}");
            }
        }
    }
    tx.commit_lazily().await
}

/// Drops the bucket databases, beyond the first, that no tenant lives in.
pub(crate) async fn retire_buckets(registry: &Registry, cell: &CellAdmin) -> Result<(), Fault> {
    let there = cell.list_buckets().await?;
    let mut session = registry.session().await?;
    let tx = session.begin().await?;
    // Held until the end: nobody chooses a bucket that is on its way out.
    let lived_in = tx.hold_buckets(cell.id()).await?;
    for bucket in there {
        if bucket > 1 && !lived_in.contains(&bucket) {
            cell.drop_bucket(bucket).await?;
            tracing::info!(cell = %cell.id(), bucket, "dropped an empty bucket database");
        }
    }
    tx.commit().await
}
