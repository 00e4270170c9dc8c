//! Recording moves: a handful of statements, whether it is one move or five hundred.
//!
//! Invariants, and why there is no deadlock among moves (one with somebody else, such as a migration or
//! a repair by hand, is run again):
//! - a transaction that moves stock locks levels that exist, in the order of their key, before it
//!   changes anything; so all who wait, wait upwards in one order;
//! - levels that do not exist yet are opened beforehand, in a transaction of its own that holds no
//!   lock on any other level and inserts in the same order;
//! - whether the request is a repeat is asked after the locks are there: two requests with one key
//!   change the same levels, so the second sees the first one's moves.

use std::collections::BTreeMap;

use waangu_sdk::{
    Authorized, Fault, IdempotencyKey, OffsetDateTime, TenantTx, Uuid, column, constraint, fault,
    new_id,
};

use super::asked::Asked;
use super::net::{Spot, net};
use super::{Move, NewMove, read};
use crate::errors::{EXCESSIVE_STOCK, INSUFFICIENT_STOCK, PLACE_UNKNOWN, PRODUCT_UNKNOWN};
use crate::fields::MAX_SAFE;
use crate::permissions::StockMove;

const LOCK: &str = include_str!("../../sql/level_lock.sql");
const OPEN: &str = include_str!("../../sql/level_open.sql");
const APPLY: &str = include_str!("../../sql/move_apply.sql");
const LIST_BY_KEY: &str = include_str!("../../sql/move_list_by_key.sql");

/// The unique index that keeps a key from moving twice.
const REQUEST_KEY: &str = "stock_move_request_key";

/// One to open levels, one to lose against another request with the same key, and one to be done.
const ATTEMPTS: usize = 3;

/// How an attempt ended.
enum Attempt {
    Done(Vec<Move>),
    /// These levels have to be opened first.
    Missing(Vec<Spot>),
}

/// A level under lock.
struct Level {
    spot: Spot,
    change: i64,
    /// None: there is no such product.
    sku: Option<String>,
    /// None: there is no such place.
    code: Option<String>,
    /// None: the level does not exist yet.
    on_hand: Option<i64>,
}

/// Records the moves of a request, or finds them recorded.
pub(super) async fn record(
    auth: &Authorized<StockMove>,
    key: &IdempotencyKey,
    asked: &Asked,
) -> Result<Vec<Move>, Fault> {
    for _attempt in 0..ATTEMPTS {
        let recorded = auth.transact(|tx| attempt(auth, key, asked, tx));
        match recorded.await {
            Ok(Attempt::Done(moves)) => return Ok(moves),
            Ok(Attempt::Missing(spots)) => open(auth, &spots).await?,
            // Another request with this key was quicker: the next attempt finds its moves.
            Err(fault) if constraint(&fault) == Some(REQUEST_KEY) => {}
            Err(fault) => return Err(fault),
        }
    }
    Err(lost())
}

/// What can't be: rows that were written are not there.
pub(super) fn lost() -> Fault {
    fault::INTERNAL.fault("the moves could not be recorded")
}

async fn attempt(
    auth: &Authorized<StockMove>,
    key: &IdempotencyKey,
    asked: &Asked,
    mut tx: TenantTx,
) -> Result<Attempt, Fault> {
    let levels = lock(&mut tx, asked).await?;
    check_known(asked, &levels)?;
    if let Some(earlier) = find_earlier(&mut tx, key, asked).await? {
        tx.commit().await?;
        return Ok(Attempt::Done(earlier));
    }
    check_amounts(asked, &levels)?;
    let missing: Vec<Spot> = levels
        .iter()
        .filter(|level| level.on_hand.is_none())
        .map(|level| level.spot)
        .collect();
    if !missing.is_empty() {
        return Ok(Attempt::Missing(missing));
    }
    let actor = auth.actor().to_string();
    let moves = apply(&mut tx, &levels, asked, &actor, key).await?;
    tx.commit().await?;
    Ok(Attempt::Done(moves))
}

/// Locks the levels that the moves change, in the order of their key.
async fn lock(tx: &mut TenantTx, asked: &Asked) -> Result<Vec<Level>, Fault> {
    let changes = net(asked.moves().iter().map(NewMove::effect));
    let (products, places) = keys(changes.keys());
    let rows = tx.query(LOCK, &[&products, &places]).await?;
    rows.iter()
        .map(|row| {
            let spot = Spot {
                product: column(row, "product_id")?,
                place: column(row, "place_id")?,
            };
            Ok(Level {
                spot,
                change: changes.get(&spot).copied().ok_or_else(lost)?,
                sku: column(row, "sku")?,
                code: column(row, "code")?,
                on_hand: column(row, "on_hand")?,
            })
        })
        .collect()
}

/// Opens levels at zero, in a transaction of its own.
async fn open(auth: &Authorized<StockMove>, spots: &[Spot]) -> Result<(), Fault> {
    let (products, places) = &keys(spots);
    auth.transact(|tx| async move { tx.execute_and_commit(OPEN, &[products, places]).await })
        .await
        .map(drop)
}

/// The moves that an earlier request with this key has recorded.
async fn find_earlier(
    tx: &mut TenantTx,
    key: &IdempotencyKey,
    asked: &Asked,
) -> Result<Option<Vec<Move>>, Fault> {
    let Some(key) = key.as_deref() else {
        return Ok(None);
    };
    let rows = tx.query(LIST_BY_KEY, &[&key]).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let earlier: Vec<(i32, Move)> = rows
        .iter()
        .map(|row| Ok((column(row, "request_index")?, read(row)?)))
        .collect::<Result<_, Fault>>()?;
    if !asked.is_repeat_of(&earlier) {
        return Err(fault::IDEMPOTENCY_KEY_REUSED.fault("the key has recorded other moves"));
    }
    Ok(Some(earlier.into_iter().map(|(_, found)| found).collect()))
}

/// Changes the levels and writes the journal.
async fn apply(
    tx: &mut TenantTx,
    levels: &[Level],
    asked: &Asked,
    actor: &str,
    key: &IdempotencyKey,
) -> Result<Vec<Move>, Fault> {
    let changed = || levels.iter().filter(|level| level.change != 0);
    let (products, places) = keys(changed().map(|level| &level.spot));
    let amounts: Vec<i64> = changed().map(|level| level.change).collect();
    let moves = asked.moves();
    let ids: Vec<Uuid> = moves.iter().map(|_| new_id()).collect();
    let of_product: Vec<Uuid> = moves.iter().map(|new| new.product).collect();
    let from: Vec<Option<Uuid>> = moves.iter().map(|new| new.from).collect();
    let to: Vec<Option<Uuid>> = moves.iter().map(|new| new.to).collect();
    let quantities: Vec<i64> = moves.iter().map(|new| new.quantity).collect();
    let reasons: Vec<&str> = moves.iter().map(|new| new.reason.as_str()).collect();
    let references: Vec<Option<&str>> = moves.iter().map(|new| new.reference.as_deref()).collect();
    let times: Vec<Option<OffsetDateTime>> = moves.iter().map(|new| new.moved_at).collect();
    let numbers: Vec<i32> = asked.numbers().collect();
    let rows = tx
        .query(
            APPLY,
            &[
                &products,
                &places,
                &amounts,
                &ids,
                &of_product,
                &from,
                &to,
                &quantities,
                &reasons,
                &references,
                &times,
                &actor,
                &key.as_deref(),
                &numbers,
            ],
        )
        .await?;
    let mut written: BTreeMap<Uuid, Move> = rows
        .iter()
        .map(|row| read(row).map(|found| (found.id, found)))
        .collect::<Result<_, _>>()?;
    // PostgreSQL promises no order; the answer has that of the request.
    ids.iter()
        .map(|id| written.remove(id).ok_or_else(lost))
        .collect()
}

/// Refuses moves of products and places that do not exist, naming the field.
fn check_known(asked: &Asked, levels: &[Level]) -> Result<(), Fault> {
    for level in levels {
        let Spot { product, place } = level.spot;
        if level.sku.is_none() {
            let fault = PRODUCT_UNKNOWN.fault(format!("there is no product {product}"));
            return Err(blame(fault, asked, |new| {
                (new.product == product).then_some("product")
            }));
        }
        if level.code.is_none() {
            let fault = PLACE_UNKNOWN.fault(format!("there is no place {place}"));
            return Err(blame(fault, asked, |new| {
                if new.from == Some(place) {
                    Some("from")
                } else {
                    (new.to == Some(place)).then_some("to")
                }
            }));
        }
    }
    Ok(())
}

/// Refuses what a level can't give, or can't hold.
fn check_amounts(asked: &Asked, levels: &[Level]) -> Result<(), Fault> {
    for level in levels {
        let on_hand = level.on_hand.unwrap_or(0);
        let def = match on_hand.saturating_add(level.change) {
            0..=MAX_SAFE => continue,
            i64::MIN..0 => &INSUFFICIENT_STOCK,
            _ => &EXCESSIVE_STOCK,
        };
        let sku = level.sku.as_deref().unwrap_or_default();
        let code = level.code.as_deref().unwrap_or_default();
        let asked_for = level.change.unsigned_abs();
        let detail = if level.change < 0 {
            format!("product `{sku}` at place `{code}`: {on_hand} on hand, {asked_for} asked for")
        } else {
            format!("product `{sku}` at place `{code}`: {on_hand} on hand, {asked_for} more")
        };
        return Err(blame(def.fault(detail), asked, |new| {
            let effect = new.effect();
            let spot = if level.change < 0 {
                effect.source()
            } else {
                effect.target()
            };
            (spot == Some(level.spot)).then_some("quantity")
        }));
    }
    Ok(())
}

/// Names the field of the first move that is to blame.
fn blame(fault: Fault, asked: &Asked, field: impl Fn(&NewMove) -> Option<&'static str>) -> Fault {
    let found = asked
        .moves()
        .iter()
        .enumerate()
        .find_map(|(at, new)| field(new).map(|name| asked.field(at, name)));
    match found {
        Some(name) => fault.field(name),
        None => fault,
    }
}

/// Keys as PostgreSQL takes them: an array for each column.
fn keys<'a>(spots: impl IntoIterator<Item = &'a Spot>) -> (Vec<Uuid>, Vec<Uuid>) {
    spots
        .into_iter()
        .map(|spot| (spot.product, spot.place))
        .unzip()
}
