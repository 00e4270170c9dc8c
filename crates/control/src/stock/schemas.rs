//! Schemas in stock: how many each bucket database of a cell keeps ready, and of which modules.
//!
//! New ones are made where the next tenant of the tier will go: in the first bucket with room. Other
//! buckets with room keep what they have, for tenants that go leave room there; a full one keeps none.
//!
//! Left out: a bucket database that does not exist yet. The first tenant of a bucket waits for it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use waangu_kernel::{Fault, Tier, fault};
use waangu_tenancy::admin::{Recipe, StockTurn, StockedSchema};
use waangu_tenancy::{CellAdmin, ModulePackage};

use super::{ONE, room, usual, wait_for_quiet};
use crate::bounds::in_time;
use crate::reconcile::{Reconciler, operator_text};

/// What a schema in stock takes at most, in bytes, for a cell with a bound: its indexes have a page each.
const SIZE: i64 = 2 << 20;

/// What is known of a cell's buckets from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Shelves {
    /// Buckets without room and without stock: nothing comes in before somebody leaves.
    bare: HashSet<i32>,
    /// Packages that can't be made in advance.
    refused: HashSet<Recipe>,
}

/// What a bucket should have of each module.
#[derive(Debug, PartialEq, Eq)]
struct Shelf {
    bucket: i32,
    /// As many as this may stay.
    keep: usize,
    /// As many as this should be there.
    fill: usize,
}

/// What is wanted on a cell.
struct Demand {
    /// Schemas of each module.
    wanted: usize,
    packages: Vec<Arc<ModulePackage>>,
    /// Tenants that a bucket may have.
    limit: i64,
    /// Tenants that buckets have.
    held: HashMap<i32, i64>,
}

impl Shelves {
    /// Brings the schemas in stock of a cell to what they should be.
    pub(super) async fn tend(
        &mut self,
        reconciler: &Reconciler,
        cell: &CellAdmin,
        turn: &StockTurn<'_>,
        most: u32,
    ) -> Result<(), Fault> {
        let mut demand = demand(reconciler, cell, most).await?;
        demand.packages.retain(|package| self.can_be_made(package));
        for shelf in shelves(&demand, cell.list_buckets().await?) {
            if shelf.keep > 0 {
                self.bare.remove(&shelf.bucket);
            } else if self.bare.contains(&shelf.bucket) {
                continue;
            }
            let there = cell.list_schema_stock(shelf.bucket).await?;
            for schema in surplus(&demand.packages, shelf.keep, &there) {
                in_time(ONE, turn.discard_schema(shelf.bucket, schema)).await?;
                let (bucket, name) = (shelf.bucket, &schema.name);
                tracing::info!(cell = %cell.id(), bucket, name, "threw a schema in stock away");
            }
            if shelf.keep == 0 {
                self.bare.insert(shelf.bucket);
            }
            for package in &demand.packages {
                for _missing in good(package, &there)..shelf.fill {
                    wait_for_quiet(reconciler, cell.id()).await;
                    let made = in_time(ONE, turn.make_schema(shelf.bucket, package)).await;
                    if !self.made(package, made)? {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn can_be_made(&self, package: &ModulePackage) -> bool {
        !package.migrations.is_empty() && !self.refused.contains(&Recipe::new(&[package]))
    }

    /// Says whether one was made; what can't be made in advance is not tried again.
    fn made(&mut self, package: &ModulePackage, made: Result<(), Fault>) -> Result<bool, Fault> {
        match made {
            Err(failure) if failure.code() == fault::MODULE_MANIFEST_INVALID.code => {
                let why = operator_text(&failure);
                tracing::warn!(module = %package.id(), why, "no stock of this module's schema");
                self.refused.insert(Recipe::new(&[package]));
                Ok(false)
            }
            made => made.map(|()| true),
        }
    }
}

async fn demand(reconciler: &Reconciler, cell: &CellAdmin, most: u32) -> Result<Demand, Fault> {
    let mut session = reconciler.registry.session().await?;
    let tx = session.begin().await?;
    let cells = tx.list_cells().await?;
    let own = cells.iter().find(|own| own.id == *cell.id());
    Ok(Demand {
        wanted: own.map_or(0, |own| room(own, most, SIZE)),
        limit: own.map_or(0, |own| i64::from(own.bucket_limit)),
        packages: usual(reconciler, &tx, Tier::Schema).await?,
        held: tx
            .count_bucket_tenants(cell.id())
            .await?
            .into_iter()
            .collect(),
    })
}

/// What each bucket database that exists should have.
fn shelves(demand: &Demand, mut there: Vec<i32>) -> Vec<Shelf> {
    there.sort_unstable();
    let held = |bucket: i32| demand.held.get(&bucket).copied().unwrap_or(0);
    // No more of them are full than are lived in; a cell that is not declared has no room in any.
    let mut some = (1..=i32::MAX).take(demand.held.len() + 1);
    let next = some.find(|bucket| held(*bucket) < demand.limit);
    let shelf = |bucket: i32| {
        // A bucket that nobody lives in is dropped, but for the first.
        let lived_in = bucket == 1 || held(bucket) > 0;
        let free = if lived_in {
            demand.limit.saturating_sub(held(bucket))
        } else {
            0
        };
        let keep = demand.wanted.min(usize::try_from(free).unwrap_or(0));
        let fill = if Some(bucket) == next { keep } else { 0 };
        Shelf { bucket, keep, fill }
    };
    there.into_iter().map(shelf).collect()
}

/// How many of these were made of a package.
fn good(package: &ModulePackage, there: &[StockedSchema]) -> usize {
    let recipe = Recipe::new(&[package]);
    let made = there.iter().filter(|schema| recipe.made_schema(schema));
    made.count()
}

/// Those that are of no package any more, or too many of it.
fn surplus<'s>(
    packages: &[Arc<ModulePackage>],
    keep: usize,
    there: &'s [StockedSchema],
) -> Vec<&'s StockedSchema> {
    let mut surplus: Vec<&StockedSchema> = there.iter().collect();
    for package in packages {
        let recipe = Recipe::new(&[package]);
        let mut kept = 0;
        surplus.retain(|schema| {
            let stays = recipe.made_schema(schema) && kept < keep;
            kept += usize::from(stays);
            !stays
        });
    }
    surplus
}

#[cfg(test)]
mod tests {
    use waangu_kernel::manifest::Manifest;
    use waangu_tenancy::admin::Migration;

    use super::*;

    fn package(id: &str) -> Arc<ModulePackage> {
        let manifest = format!(
            "id = '{id}'\nversion = '0.1.0'\ntitle = {{ en = 'Test' }}\nroutes = []\n\
             [permissions]\n[roles]\n"
        );
        Arc::new(ModulePackage {
            manifest: Manifest::parse(&manifest).unwrap(),
            migrations: vec![Migration {
                name: "step".to_owned(),
                sql: "select 1".to_owned(),
            }],
        })
    }

    fn demand(wanted: usize, limit: i64, held: &[(i32, i64)]) -> Demand {
        Demand {
            wanted,
            packages: Vec::new(),
            limit,
            held: held.iter().copied().collect(),
        }
    }

    /// A stock where no tenant comes is a stock that nobody takes; one in a database that is on its way
    /// out holds it up.
    #[test]
    fn a_stock_stands_where_the_next_tenant_goes() {
        let cases = [
            (demand(4, 400, &[(1, 7)]), vec![1], vec![(1, 4, 4)]),
            (demand(4, 9, &[(1, 7)]), vec![1], vec![(1, 2, 2)]),
            (
                demand(4, 9, &[(1, 9), (2, 3), (3, 3)]),
                vec![3, 2, 1],
                vec![(1, 0, 0), (2, 4, 4), (3, 4, 0)],
            ),
            // The next bucket is not there yet, and one is on its way out.
            (demand(4, 9, &[(1, 9)]), vec![1], vec![(1, 0, 0)]),
            (demand(4, 9, &[]), vec![1, 2], vec![(1, 4, 4), (2, 0, 0)]),
            (demand(0, 9, &[(1, 2)]), vec![1], vec![(1, 0, 0)]),
            // A cell that is not declared any more: found at once, not after two thousand million looks.
            (demand(0, 0, &[]), vec![1], vec![(1, 0, 0)]),
        ];
        for (demand, there, expected) in cases {
            let found = shelves(&demand, there);
            let found: Vec<_> = found
                .iter()
                .map(|shelf| (shelf.bucket, shelf.keep, shelf.fill))
                .collect();
            assert_eq!(found, expected);
        }
    }

    /// What is left of an older version would be there for ever.
    #[test]
    fn what_is_stale_or_too_much_goes() {
        let (crm, stock) = (package("crm"), package("stock"));
        let schema = |name: &str, module: &str| StockedSchema {
            name: name.to_owned(),
            module: module.to_owned(),
        };
        let mut there = vec![schema("stock_0000000000000000_1_crm", "crm")];
        let recipe = Recipe::new(&[&crm]);
        let names = recipe.schema_names(crm.id());
        there.extend(names.take(3).map(|name| schema(&name, "crm")));
        let packages = [crm, stock];
        assert_eq!(good(&packages[0], &there), 3);
        assert_eq!(good(&packages[1], &there), 0);
        let gone = surplus(&packages, 2, &there);
        assert_eq!(gone, [&there[0], &there[3]]);
        assert_eq!(surplus(&packages, 0, &there).len(), 4);
        assert_eq!(surplus(&packages[1..], 9, &there).len(), 4);
    }
}
