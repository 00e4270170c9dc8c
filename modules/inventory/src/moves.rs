//! Moves: the journal that stock on hand follows from.
//!
//! Invariants:
//! - a move and its effect on the levels are one transaction; a batch is one, too;
//! - no level goes below zero, however many move at once ([`record`] has the order of locks);
//! - one `Idempotency-Key` moves once.

use serde::{Deserialize, Serialize};
use waangu_sdk::{
    Authorized, Fault, IdempotencyKey, Json, OffsetDateTime, Path, Query, Reply, Row, Uuid, column,
    fault, rfc3339,
};

use crate::created::Created;
use crate::errors::{BATCH_OFF, MOVE_NOT_FOUND};
use crate::fields::{check_text, invalid};
use crate::page::{Limit, Page};
use crate::permissions::{StockMove, StockRead};

use asked::{Asked, MAX_BATCH};
use net::Effect;

mod asked;
mod net;
mod record;

const GET: &str = include_str!("../sql/move_get.sql");
const LIST: &str = include_str!("../sql/move_list.sql");
const LIST_BY_PRODUCT: &str = include_str!("../sql/move_list_by_product.sql");

/// Largest quantity of one move. Five hundred of them stay far below the limits of a level.
const MAX_QUANTITY: i64 = 1_000_000_000_000;

/// A move in the journal, as clients see it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Move {
    id: Uuid,
    product: Uuid,
    /// Null: it came from outside.
    from: Option<Uuid>,
    /// Null: it left.
    to: Option<Uuid>,
    quantity: i64,
    reason: String,
    reference: Option<String>,
    #[serde(with = "rfc3339")]
    moved_at: OffsetDateTime,
    #[serde(with = "rfc3339")]
    recorded_at: OffsetDateTime,
    actor: String,
}

/// What moves stock.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMove {
    product: Uuid,
    from: Option<Uuid>,
    to: Option<Uuid>,
    quantity: i64,
    reason: Reason,
    reference: Option<String>,
    /// When it happened, if that was not just now.
    #[serde(default, with = "rfc3339::option")]
    moved_at: Option<OffsetDateTime>,
}

/// Why something moved.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Reason {
    Receipt,
    Transfer,
    Sale,
    Adjustment,
    Return,
}

/// What a batch answers.
#[derive(Debug, Serialize)]
pub(crate) struct Batch {
    items: Vec<Move>,
}

/// Which moves, and which page of them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listing {
    product: Option<Uuid>,
    after: Option<Uuid>,
    limit: Option<i64>,
}

/// `GET /moves`, the latest first.
pub(crate) async fn list(
    auth: Authorized<StockRead>,
    Query(listing): Query<Listing>,
) -> Reply<Json<Page<Move>>> {
    let limit = Limit::new(listing.limit)?;
    let after = listing.after.unwrap_or(Uuid::max());
    let tx = auth.begin();
    let rows = match &listing.product {
        Some(product) => {
            tx.query_and_commit(LIST_BY_PRODUCT, &[&after, &limit.rows(), product])
                .await?
        }
        None => tx.query_and_commit(LIST, &[&after, &limit.rows()]).await?,
    };
    let page = Page::new(&rows, limit, read, |found| found.id.to_string())?;
    Ok(Json(page))
}

/// `GET /moves/{id}`.
pub(crate) async fn get(auth: Authorized<StockRead>, Path(id): Path<Uuid>) -> Reply<Json<Move>> {
    let rows = auth.begin().query_and_commit(GET, &[&id]).await?;
    let row = rows.into_iter().next();
    let row = row.ok_or_else(|| MOVE_NOT_FOUND.fault(format!("there is no move {id}")))?;
    Ok(Json(read(&row)?))
}

/// `POST /moves`.
pub(crate) async fn create(
    auth: Authorized<StockMove>,
    key: IdempotencyKey,
    Json(new): Json<NewMove>,
) -> Reply<Created<Move>> {
    let asked = Asked::one(new)?;
    let recorded = record::record(&auth, &key, &asked).await?;
    let Some(recorded) = recorded.into_iter().next() else {
        return Err(record::lost().into());
    };
    Ok(Created::at(format!("/moves/{}", recorded.id), recorded))
}

/// `POST /moves/batch`: all or nothing.
pub(crate) async fn create_batch(
    auth: Authorized<StockMove>,
    key: IdempotencyKey,
    Json(new): Json<Vec<NewMove>>,
) -> Reply<Created<Batch>> {
    if !auth.flags().bool("inventory.batch_moves")? {
        return Err(BATCH_OFF
            .fault("batches are not switched on for this tenant")
            .into());
    }
    if !(1..=MAX_BATCH).contains(&new.len()) {
        return Err(fault::INVALID_FIELD
            .fault(format!("a batch has 1 to {MAX_BATCH} moves"))
            .into());
    }
    let asked = Asked::batch(new)?;
    let items = record::record(&auth, &key, &asked).await?;
    Ok(Created::together(Batch { items }))
}

impl NewMove {
    /// Checks it; `field` makes the name of a field of this move.
    fn check(&self, field: impl Fn(&'static str) -> String) -> Result<(), Fault> {
        if self.from.is_none() && self.to.is_none() {
            return Err(invalid(field("to"), "a move needs `from`, `to` or both"));
        }
        if self.from == self.to {
            return Err(invalid(field("to"), "a move needs two different places"));
        }
        if !(1..=MAX_QUANTITY).contains(&self.quantity) {
            return Err(invalid(
                field("quantity"),
                format!("must be 1 to {MAX_QUANTITY}"),
            ));
        }
        if let Some(reference) = &self.reference {
            check_text(field("reference"), reference, 100)?;
        }
        // A year that PostgreSQL or a calendar can't show is a slip of the keyboard.
        if let Some(moved_at) = self.moved_at
            && !(1970..=2999).contains(&moved_at.year())
        {
            return Err(invalid(field("moved_at"), "must be a year of our time"));
        }
        Ok(())
    }

    fn effect(&self) -> Effect {
        Effect {
            product: self.product,
            from: self.from,
            to: self.to,
            quantity: self.quantity,
        }
    }
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Receipt => "receipt",
            Self::Transfer => "transfer",
            Self::Sale => "sale",
            Self::Adjustment => "adjustment",
            Self::Return => "return",
        }
    }
}

fn read(row: &Row) -> Result<Move, Fault> {
    Ok(Move {
        id: column(row, "id")?,
        product: column(row, "product_id")?,
        from: column(row, "from_place")?,
        to: column(row, "to_place")?,
        quantity: column(row, "quantity")?,
        reason: column(row, "reason")?,
        reference: column(row, "reference")?,
        moved_at: column(row, "moved_at")?,
        recorded_at: column(row, "recorded_at")?,
        actor: column(row, "actor")?,
    })
}
