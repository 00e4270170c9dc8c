//! What moves leave behind: the rows of the old place, after a grace time; and debris of workers that
//! were killed. Part of housekeeping.

use std::time::Duration;

use waangu_kernel::{Fault, fault};
use waangu_registry::{Hold, Registry};
use waangu_relocation::{Error, debris, sweep};
use waangu_tenancy::CellAdmin;

/// Rows removed at a time from shared tables, and the rest after each batch: others work there.
const BATCH: (i64, Duration) = (2_000, Duration::from_millis(20));

/// Removes what has served its grace time at one cell.
pub(crate) async fn empty_places(registry: &Registry, cell: &CellAdmin) -> Result<(), Fault> {
    loop {
        let mut session = registry.session().await?;
        let Some(left) = session.claim_left(cell.id()).await? else {
            return Ok(());
        };
        if !left.back {
            let tx = session.begin().await?;
            let activations = tx.list_activations(left.tenant).await?;
            tx.commit().await?;
            let modules: Vec<_> = activations.into_iter().map(|one| one.module).collect();
            cell.empty_place(left.tenant, &left.place, &modules, BATCH)
                .await?;
            tracing::info!(tenant = %left.tenant, cell = %cell.id(), "old place emptied");
        }
        let tx = session.begin().await?;
        tx.record_cleaned(left.relocation).await?;
        tx.commit().await?;
        session.release_all().await?;
    }
}

/// Removes slots and publications of tenants that are not on their way.
pub(crate) async fn sweep_cell(registry: &Registry, cell: &CellAdmin) -> Result<(), Fault> {
    if debris(cell.config()).await.map_err(unswept)?.is_empty() {
        return Ok(());
    }
    let mut session = registry.session().await?;
    let tx = session.begin().await?;
    // Until the end nobody is put on the way, whose slot could be taken for debris.
    tx.lock_placement(Hold::Exclusive).await?;
    let mut moving = tx.list_moving().await?;
    // Theirs is looked after by `ways`.
    let ways = tx.list_wanted_ways(cell.id()).await?;
    moving.extend(ways.iter().map(|way| way.tenant));
    let swept = sweep(cell.config(), &moving).await.map_err(unswept)?;
    for debris in swept {
        tracing::warn!(cell = %cell.id(), "swept what a move had left: {debris:?}");
    }
    tx.commit().await
}

pub(super) fn unswept(error: Error) -> Fault {
    fault::DATABASE_UNAVAILABLE
        .fault("the cell can't be swept")
        .cause(error)
}
