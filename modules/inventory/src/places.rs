//! Places: where things are counted. Warehouses and stores.
//!
//! Invariant: a place's code never changes, as a product's SKU never does.

use serde::{Deserialize, Serialize};
use waangu_sdk::{
    Authorized, Fault, IdempotencyKey, Json, OffsetDateTime, Path, Query, Reply, Row, TenantTx,
    Uuid, column, fault, new_id, rfc3339,
};

use crate::created::Created;
use crate::errors::{PLACE_CODE_TAKEN, PLACE_NOT_FOUND};
use crate::fields::check_text;
use crate::page::{Limit, Page};
use crate::permissions::{PlaceRead, PlaceWrite};

const CREATE: &str = include_str!("../sql/place_create.sql");
const GET: &str = include_str!("../sql/place_get.sql");
const GET_BY_KEY: &str = include_str!("../sql/place_get_by_key.sql");
const LIST: &str = include_str!("../sql/place_list.sql");

const CODE_LENGTH: usize = 32;

/// A place, as clients see it.
#[derive(Debug, Serialize)]
pub(crate) struct Place {
    id: Uuid,
    code: String,
    name: String,
    kind: String,
    #[serde(with = "rfc3339")]
    created_at: OffsetDateTime,
}

/// What creates a place.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPlace {
    code: String,
    name: String,
    kind: Kind,
}

/// What kind of place.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Warehouse,
    Store,
}

/// Which page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listing {
    after: Option<String>,
    limit: Option<i64>,
}

/// `GET /places`, by code.
pub(crate) async fn list(
    auth: Authorized<PlaceRead>,
    Query(listing): Query<Listing>,
) -> Reply<Json<Page<Place>>> {
    let limit = Limit::new(listing.limit)?;
    let after = listing.after.unwrap_or_default();
    if !after.is_empty() {
        check_text("after", &after, CODE_LENGTH)?;
    }
    let rows = auth
        .begin()
        .query_and_commit(LIST, &[&after, &limit.rows()])
        .await?;
    let page = Page::new(&rows, limit, read, |place| place.code.clone())?;
    Ok(Json(page))
}

/// `POST /places`.
pub(crate) async fn create(
    auth: Authorized<PlaceWrite>,
    key: IdempotencyKey,
    Json(new): Json<NewPlace>,
) -> Reply<Created<Place>> {
    check_text("code", &new.code, CODE_LENGTH)?;
    check_text("name", &new.name, 200)?;
    let mut tx = auth.begin();
    let place = insert(&mut tx, &key, &new).await?;
    tx.commit().await?;
    Ok(Created::at(format!("/places/{}", place.id), place))
}

/// `GET /places/{id}`.
pub(crate) async fn get(auth: Authorized<PlaceRead>, Path(id): Path<Uuid>) -> Reply<Json<Place>> {
    let rows = auth.begin().query_and_commit(GET, &[&id]).await?;
    let row = rows.into_iter().next();
    let row = row.ok_or_else(|| PLACE_NOT_FOUND.fault(format!("there is no place {id}")))?;
    Ok(Json(read(&row)?))
}

/// Inserts the place, or finds the one that an earlier request with the same key has inserted.
async fn insert(tx: &mut TenantTx, key: &IdempotencyKey, new: &NewPlace) -> Result<Place, Fault> {
    let inserted = tx
        .query_opt(
            CREATE,
            &[
                &new_id(),
                &new.code,
                &new.name,
                &new.kind.as_str(),
                &key.as_deref(),
            ],
        )
        .await?;
    if let Some(row) = inserted {
        return read(&row);
    }
    if let Some(key) = key.as_deref()
        && let Some(row) = tx.query_opt(GET_BY_KEY, &[&key]).await?
    {
        let earlier = read(&row)?;
        if earlier.code == new.code {
            return Ok(earlier);
        }
        return Err(fault::IDEMPOTENCY_KEY_REUSED
            .fault(format!("the key has created place `{}`", earlier.code)));
    }
    Err(PLACE_CODE_TAKEN
        .fault(format!("there is a place `{}` already", new.code))
        .field("code"))
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Warehouse => "warehouse",
            Self::Store => "store",
        }
    }
}

fn read(row: &Row) -> Result<Place, Fault> {
    Ok(Place {
        id: column(row, "id")?,
        code: column(row, "code")?,
        name: column(row, "name")?,
        kind: column(row, "kind")?,
        created_at: column(row, "created_at")?,
    })
}
