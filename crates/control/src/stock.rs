//! Keeps databases ready on each cell, and schemas in its bucket databases, so that a tenant that gets one
//! of its own need not wait for it to be made.
//!
//! Which are there says the cell's own catalogue ([`waangu_tenancy::admin::Recipe`]); here is decided
//! how many there should be, and with which modules' tables: those that tenants of the tier usually have.
//! A dedicated tenant that needs other modules takes a database without tables, if there is one, or waits
//! for its own; a tenant of the schema tier takes a schema for each module of which there is one.
//!
//! Invariants:
//! - a cell that takes no tenants keeps no stock, nor does one without room;
//! - one process at a time looks after a cell, and makes one after another while no tenant waits
//!   there, so that onboarding is never slowed down by what is to speed it up;
//! - what was made by another recipe than today's is thrown away.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;
use waangu_kernel::{CellId, Fault, Tier};
use waangu_registry::{Cell, CellState, Tx};
use waangu_tenancy::admin::{Recipe, StockTurn};
use waangu_tenancy::{CellAdmin, ModulePackage};

use crate::bounds::in_time;
use crate::reconcile::{Reconciler, operator_text};

mod schemas;

use schemas::Shelves;

/// A process that has just started has more urgent things to do.
const CALM: Duration = Duration::from_secs(5);

/// Longest pause between two looks, in case nobody calls.
const ROUND: Duration = Duration::from_secs(15);

/// Longest making or throwing away of one.
const ONE: Duration = Duration::from_mins(1);

/// So long no tenant must have been waiting at a cell.
const QUIET: Duration = Duration::from_millis(300);

/// After so many looks at a cell that is never quiet, one is made nevertheless.
const LOOKS: u32 = 100;

/// What a database in stock takes at most, in bytes, for a cell with a bound.
const SIZE: i64 = 12 << 20;

/// How many each cell keeps ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Most {
    /// Databases.
    pub(crate) databases: u32,
    /// Schemas of each module in a bucket database.
    pub(crate) schemas: u32,
}

/// Keeps so many on each cell, until told to stop.
pub(crate) async fn keep(reconciler: Arc<Reconciler>, most: Most, stop: CancellationToken) {
    let cells = reconciler.cells.values();
    let mut cells: Vec<_> = cells.map(|cell| (cell, Shelves::default())).collect();
    let mut pause = CALM;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = reconciler.stock.notified(), if pause == ROUND => {}
        }
        pause = ROUND;
        let tended = cells.iter_mut().map(async |(cell, shelves)| {
            if !reconciler.circuits.is_closed(cell.id()) {
                return;
            }
            if let Err(failure) = tend(&reconciler, cell, shelves, most).await {
                let why = operator_text(&failure);
                tracing::warn!(cell = %cell.id(), why, "the cell's stock is not as it should be");
            }
        });
        tokio::select! {
            // A database half made is thrown away by the next who looks.
            () = stop.cancelled() => return,
            _done = join_all(tended) => {}
        }
    }
}

/// Brings a cell's stock to what it should be.
async fn tend(
    reconciler: &Reconciler,
    cell: &CellAdmin,
    shelves: &mut Shelves,
    most: Most,
) -> Result<(), Fault> {
    let Some(turn) = cell.stock_turn().await? else {
        return Ok(());
    };
    // What holds one kind up is nothing to the other.
    let schemas = shelves.tend(reconciler, cell, &turn, most.schemas).await;
    databases(reconciler, cell, &turn, most.databases).await?;
    schemas
}

async fn databases(
    reconciler: &Reconciler,
    cell: &CellAdmin,
    turn: &StockTurn<'_>,
    most: u32,
) -> Result<(), Fault> {
    let (wanted, packages) = demand(reconciler, cell.id(), most).await?;
    let packages: Vec<&ModulePackage> = packages.iter().map(|package| &**package).collect();
    let recipe = Recipe::new(&packages);
    let there = cell.list_stock().await?;
    let (good, surplus) = sort(&recipe, wanted, &there);
    for database in surplus {
        in_time(ONE, turn.discard(database)).await?;
        tracing::info!(cell = %cell.id(), database, "threw a database in stock away");
    }
    for _missing in good..wanted {
        wait_for_quiet(reconciler, cell.id()).await;
        if !make(turn, &packages).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// How many databases there should be on a cell, and with which modules' tables.
async fn demand(
    reconciler: &Reconciler,
    id: &CellId,
    most: u32,
) -> Result<(usize, Vec<Arc<ModulePackage>>), Fault> {
    let mut session = reconciler.registry.session().await?;
    let tx = session.begin().await?;
    let cells = tx.list_cells().await?;
    let wanted = cells.iter().find(|cell| cell.id == *id);
    let wanted = wanted.map_or(0, |cell| room(cell, most, SIZE));
    Ok((wanted, usual(reconciler, &tx, Tier::Dedicated).await?))
}

/// The newest packages of the modules that tenants of a tier usually have.
async fn usual(
    reconciler: &Reconciler,
    tx: &Tx<'_>,
    tier: Tier,
) -> Result<Vec<Arc<ModulePackage>>, Fault> {
    let mut packages = Vec::new();
    for module in tx.list_usual_modules(tier).await? {
        let hash = tx.get_current_package(&module).await?.hash;
        packages.push(reconciler.packages.get(tx, &module, &hash).await?);
    }
    Ok(packages)
}

/// How many of so many, each of this size, a cell has room for.
fn room(cell: &Cell, most: u32, size: i64) -> usize {
    if cell.state != CellState::Active {
        return 0;
    }
    let places = i64::from(cell.capacity).saturating_sub(cell.tenants);
    let bytes = match (cell.capacity_bytes, &cell.usage) {
        (Some(bound), Some(usage)) => bound.saturating_sub(usage.bytes) / size,
        (Some(_), None) => 0,
        (None, _) => i64::MAX,
    };
    let room = i64::from(most).min(places).min(bytes);
    usize::try_from(room).unwrap_or(0)
}

/// How many of those that are there can be kept, and those that can't.
fn sort<'s>(recipe: &Recipe, wanted: usize, there: &'s [String]) -> (usize, Vec<&'s str>) {
    let names = there.iter().map(String::as_str);
    let (good, mut surplus): (Vec<&str>, Vec<&str>) = names.partition(|name| recipe.made(name));
    surplus.extend(good.iter().skip(wanted));
    (good.len().min(wanted), surplus)
}

async fn make(turn: &StockTurn<'_>, packages: &[&ModulePackage]) -> Result<bool, Fault> {
    in_time(ONE, turn.make(packages)).await
}

async fn wait_for_quiet(reconciler: &Reconciler, cell: &CellId) {
    for _look in 0..LOOKS {
        if reconciler.circuits.is_quiet(cell, QUIET) {
            return;
        }
        tokio::time::sleep(QUIET).await;
    }
}

#[cfg(test)]
mod tests {
    use waangu_kernel::Sla;
    use waangu_registry::CellUsage;

    use super::*;

    fn cell(state: CellState, bytes: Option<i64>, used: Option<i64>) -> Cell {
        Cell {
            id: "sn-1".parse().unwrap(),
            region: "dc".parse().unwrap(),
            environment: "dev".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: 5432,
            state,
            sla: Sla::Standard,
            capacity: 10,
            capacity_bytes: bytes,
            capacity_connections: None,
            bucket_limit: 400,
            tenants: 8,
            usage: used.map(|bytes| CellUsage {
                measured_at: time::OffsetDateTime::UNIX_EPOCH,
                bytes,
                connections: 1,
            }),
        }
    }

    /// A stock that outgrows its cell takes the room of tenants; one on a cell that is being emptied
    /// keeps it from being empty.
    #[test]
    fn a_stock_has_its_place_after_tenants() {
        let cases = [
            (cell(CellState::Active, None, None), 1, 1),
            (cell(CellState::Active, None, None), 4, 2),
            (cell(CellState::Full, None, None), 4, 0),
            (cell(CellState::Draining, None, None), 4, 0),
            (cell(CellState::Down, None, None), 4, 0),
            (cell(CellState::Active, Some(SIZE * 9), None), 4, 0),
            (
                cell(CellState::Active, Some(SIZE * 9), Some(SIZE * 8)),
                4,
                1,
            ),
            (
                cell(CellState::Active, Some(SIZE * 9), Some(SIZE * 99)),
                4,
                0,
            ),
        ];
        for (cell, most, expected) in cases {
            assert_eq!(room(&cell, most, SIZE), expected, "{cell:?}");
        }
    }

    /// What is left of an older version would be there for ever, or be given to a tenant.
    #[test]
    fn what_is_stale_or_too_much_goes() {
        let recipe = Recipe::new(&[]);
        let good = |number| format!("{}{number}", recipe.prefix());
        let there = [
            "waangu_stock_0000000000000000_1".to_owned(),
            good(1),
            good(2),
            good(3),
        ];
        let (kept, surplus) = sort(&recipe, 2, &there);
        assert_eq!(
            (kept, surplus),
            (2, vec![there[0].as_str(), there[3].as_str()])
        );
        assert_eq!(sort(&recipe, 9, &there), (3, vec![there[0].as_str()]));
        assert_eq!(sort(&recipe, 0, &there).1.len(), 4);
    }
}
