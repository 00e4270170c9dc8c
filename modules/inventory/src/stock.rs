//! Stock on hand: one line for each product at each place where it has ever been.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use waangu_sdk::{Authorized, Fault, Json, Query, Reply, Row, Uuid, column};

use crate::fields::invalid;
use crate::page::{Limit, Page};
use crate::permissions::StockRead;

const BY_PRODUCT: &str = include_str!("../sql/stock_by_product.sql");
const BY_PLACE: &str = include_str!("../sql/stock_by_place.sql");

/// A level, as clients see it.
#[derive(Debug, Serialize)]
pub(crate) struct Level {
    product: Uuid,
    sku: String,
    name: String,
    unit: String,
    place: Uuid,
    code: String,
    on_hand: i64,
}

/// Which levels, and which page of them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listing {
    product: Option<Uuid>,
    place: Option<Uuid>,
    after: Option<String>,
    limit: Option<i64>,
}

/// The last level of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    pub(crate) product: Uuid,
    pub(crate) place: Uuid,
}

/// `GET /stock`, in the order in which the products were created.
pub(crate) async fn list(
    auth: Authorized<StockRead>,
    Query(listing): Query<Listing>,
) -> Reply<Json<Page<Level>>> {
    let limit = Limit::new(listing.limit)?;
    let after = match listing.after.as_deref() {
        Some(text) => Some(text.parse()?),
        None => None,
    };
    let (after, last) = range(listing.product, after);
    let rows = limit.rows();
    let tx = auth.begin();
    let found = match &listing.place {
        Some(place) => {
            tx.query_and_commit(
                BY_PLACE,
                &[&after.product, &after.place, &last, &rows, place],
            )
            .await?
        }
        None => {
            tx.query_and_commit(BY_PRODUCT, &[&after.product, &after.place, &last, &rows])
                .await?
        }
    };
    let page = Page::new(&found, limit, read, |level| level.cursor().to_text())?;
    Ok(Json(page))
}

/// After which level to begin, and with which product to end. No id is nil, so that nothing is lost
/// by beginning after it.
fn range(product: Option<Uuid>, after: Option<Cursor>) -> (Cursor, Uuid) {
    let start = Cursor {
        product: product.unwrap_or(Uuid::nil()),
        place: Uuid::nil(),
    };
    // A cursor from before the product that is asked for belongs to another list.
    let after = after.filter(|after| after.product >= start.product);
    (after.unwrap_or(start), product.unwrap_or(Uuid::max()))
}

impl Level {
    /// Its place in lists.
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor {
            product: self.product,
            place: self.place,
        }
    }
}

impl Cursor {
    /// Before all levels: no id is nil.
    pub(crate) const START: Self = Self {
        product: Uuid::nil(),
        place: Uuid::nil(),
    };

    pub(crate) fn to_text(self) -> String {
        format!("{}.{}", self.product.simple(), self.place.simple())
    }
}

impl FromStr for Cursor {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let parsed = text.split_once('.').and_then(|(product, place)| {
            Some(Self {
                product: Uuid::try_parse(product).ok()?,
                place: Uuid::try_parse(place).ok()?,
            })
        });
        parsed.ok_or_else(|| invalid("after", "must be the `next` of the page before"))
    }
}

pub(crate) fn read(row: &Row) -> Result<Level, Fault> {
    Ok(Level {
        product: column(row, "product_id")?,
        sku: column(row, "sku")?,
        name: column(row, "name")?,
        unit: column(row, "unit")?,
        place: column(row, "place_id")?,
        code: column(row, "code")?,
        on_hand: column(row, "on_hand")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cursor that changes on its way would skip levels or show them twice.
    #[test]
    fn cursors_survive_a_round_trip() {
        let cursor = Cursor {
            product: Uuid::from_u128(7),
            place: Uuid::max(),
        };
        assert_eq!(cursor.to_text().parse::<Cursor>().unwrap(), cursor);
        for text in ["", ".", "7.8", "x"] {
            let fault = text.parse::<Cursor>().unwrap_err();
            assert_eq!(fault.field_name(), Some("after"), "{text}");
        }
    }
}
