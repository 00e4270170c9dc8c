//! Stock of a head office and all tenants below it, wherever they live.
//!
//! Each place gives the first page of its own; the first of all these is the page. So whatever is on
//! it is whole: a place that has more to say says it about what comes later.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use waangu_sdk::{
    AuthorizedTree, Fault, Harvest, Json, Partial, Query, Reply, Row, Slug, TreeTx, column,
};

use crate::errors::EXCESSIVE_STOCK;
use crate::fields::invalid;
use crate::page::Limit;
use crate::permissions::ConsolidatedRead;
use crate::stock::{Cursor, Level, read};

const STOCK: &str = include_str!("../sql/consolidated_stock.sql");
const LEVELS: &str = include_str!("../sql/consolidated_levels.sql");

/// A page over several tenants.
#[derive(Debug, Serialize)]
pub(crate) struct Consolidated<T> {
    items: Vec<T>,
    /// Where the next page begins, for `after`; null on the last page.
    next: Option<String>,
    /// How many tenants have answered.
    tenants: usize,
    /// Who has not, and why; null when nobody is missing.
    partial: Option<Partial>,
}

/// What all tenants together have of one product.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Total {
    sku: String,
    name: String,
    unit: String,
    on_hand: i64,
    /// How many tenants count it.
    tenants: i64,
}

/// A level with its tenant.
#[derive(Debug, Serialize)]
pub(crate) struct TenantLevel {
    tenant: Slug,
    #[serde(flatten)]
    level: Level,
}

/// Which page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listing {
    after: Option<String>,
    limit: Option<i64>,
}

/// The last total of a page.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    sku: String,
    unit: String,
}

/// `GET /consolidated/stock`, by SKU and unit.
pub(crate) async fn stock(
    auth: AuthorizedTree<ConsolidatedRead>,
    Query(listing): Query<Listing>,
) -> Reply<Json<Consolidated<Total>>> {
    let limit = Limit::new(listing.limit)?;
    let after: Key = match listing.after.as_deref() {
        Some(text) => text.parse()?,
        None => Key::default(),
    };
    let harvest = auth
        .fan_out(async |mut tx| {
            let rows = limit.rows();
            let found = tx.query(STOCK, &[&after.sku, &after.unit, &rows]).await?;
            let totals: Vec<Total> = found.iter().map(total).collect::<Result<_, _>>()?;
            tx.answer(totals).await
        })
        .await?;
    let mut sums: BTreeMap<Key, Total> = BTreeMap::new();
    for total in harvest.answers.into_iter().flatten() {
        add(&mut sums, total)?;
    }
    let shown = limit.shown();
    let more = sums.len() > shown;
    let items: Vec<Total> = sums.into_values().take(shown).collect();
    let next = items.last().filter(|_| more).map(|total| {
        let (sku, unit) = (total.sku.clone(), total.unit.clone());
        Key { sku, unit }.to_text()
    });
    Ok(Json(Consolidated {
        items,
        next,
        tenants: harvest.tenants,
        partial: harvest.partial,
    }))
}

/// `GET /consolidated/levels`: what `GET /stock` lists, of all tenants.
pub(crate) async fn levels(
    auth: AuthorizedTree<ConsolidatedRead>,
    Query(listing): Query<Listing>,
) -> Reply<Json<Consolidated<TenantLevel>>> {
    let limit = Limit::new(listing.limit)?;
    let after = match listing.after.as_deref() {
        Some(text) => text.parse()?,
        None => Cursor::START,
    };
    let Harvest {
        answers,
        tenants,
        partial,
    } = auth
        .fan_out(async |mut tx| {
            let rows = limit.rows();
            let found = tx
                .query(LEVELS, &[&after.product, &after.place, &rows])
                .await?;
            let levels = found.iter().map(|row| tenant_level(&tx, row));
            let levels: Vec<TenantLevel> = levels.collect::<Result<_, _>>()?;
            tx.answer(levels).await
        })
        .await?;
    let mut items: Vec<TenantLevel> = answers.into_iter().flatten().collect();
    items.sort_unstable_by_key(|item| item.level.cursor());
    let more = items.len() > limit.shown();
    items.truncate(limit.shown());
    let next = items
        .last()
        .filter(|_| more)
        .map(|item| item.level.cursor().to_text());
    Ok(Json(Consolidated {
        items,
        next,
        tenants,
        partial,
    }))
}

/// Adds one place's total to the others'.
fn add(sums: &mut BTreeMap<Key, Total>, total: Total) -> Result<(), Fault> {
    let key = Key {
        sku: total.sku.clone(),
        unit: total.unit.clone(),
    };
    let Some(sum) = sums.get_mut(&key) else {
        sums.insert(key, total);
        return Ok(());
    };
    let on_hand = sum.on_hand.checked_add(total.on_hand);
    sum.on_hand = on_hand.ok_or_else(|| {
        EXCESSIVE_STOCK.fault(format!(
            "there is too much of `{}` to be counted",
            total.sku
        ))
    })?;
    sum.tenants = sum.tenants.saturating_add(total.tenants);
    // The same name, whichever place answers first.
    if total.name < sum.name {
        sum.name = total.name;
    }
    Ok(())
}

fn tenant_level(tx: &TreeTx, row: &Row) -> Result<TenantLevel, Fault> {
    Ok(TenantLevel {
        tenant: tx.slug(column(row, "tenant_id")?)?.clone(),
        level: read(row)?,
    })
}

fn total(row: &Row) -> Result<Total, Fault> {
    Ok(Total {
        sku: column(row, "sku")?,
        name: column(row, "name")?,
        unit: column(row, "unit")?,
        on_hand: column(row, "on_hand")?,
        tenants: column(row, "tenants")?,
    })
}

impl Key {
    /// The unit's length tells where it ends.
    fn to_text(&self) -> String {
        format!("{}.{}{}", self.unit.len(), self.unit, self.sku)
    }
}

impl FromStr for Key {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let parsed = text.split_once('.').and_then(|(length, rest)| {
            let (unit, sku) = rest.split_at_checked(length.parse().ok()?)?;
            let printable = !rest.contains('\0') && rest.len() <= 512;
            printable.then(|| Self {
                sku: sku.to_owned(),
                unit: unit.to_owned(),
            })
        });
        parsed.ok_or_else(|| invalid("after", "must be the `next` of the page before"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cursor that changes on its way would skip products or show them twice.
    #[test]
    fn cursors_survive_a_round_trip() {
        for (sku, unit) in [("TV-43", "piece"), ("", ""), ("9.x", "1.é"), ("é", "kg")] {
            let key = Key {
                sku: sku.to_owned(),
                unit: unit.to_owned(),
            };
            assert_eq!(key.to_text().parse::<Key>().unwrap(), key);
        }
        for text in [
            "",
            "x",
            "9.kg",
            "1.é",
            "99999999999999999999.x",
            "-1.x",
            "1.k\0",
        ] {
            let fault = text.parse::<Key>().unwrap_err();
            assert_eq!(fault.field_name(), Some("after"), "{text}");
        }
    }

    /// Pieces and kilograms add up to nothing; two places' pieces do.
    #[test]
    fn only_what_is_counted_alike_is_added() {
        let total = |unit: &str, on_hand| Total {
            sku: "A".to_owned(),
            name: "Apple".to_owned(),
            unit: unit.to_owned(),
            on_hand,
            tenants: 1,
        };
        let mut sums = BTreeMap::new();
        for (unit, on_hand) in [("kg", 5), ("piece", 7), ("kg", 6)] {
            add(&mut sums, total(unit, on_hand)).unwrap();
        }
        let found: Vec<(&str, i64, i64)> = sums
            .values()
            .map(|sum| (sum.unit.as_str(), sum.on_hand, sum.tenants))
            .collect();
        assert_eq!(found, [("kg", 11, 2), ("piece", 7, 1)]);
        assert!(add(&mut sums, total("kg", i64::MAX)).is_err());
    }
}
