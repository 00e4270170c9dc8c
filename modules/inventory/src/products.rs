//! Products: what is counted.
//!
//! Invariant: a product's SKU never changes; it is on labels and in other systems. That also makes it
//! what a repeated `Idempotency-Key` is compared with.

use serde::{Deserialize, Deserializer, Serialize};
use waangu_sdk::{
    Authorized, Fault, IdempotencyKey, Json, OffsetDateTime, Path, Query, Quota, Reply, Row,
    StatusCode, TenantTx, Uuid, column, constraint, fault, new_id, rfc3339,
};

use crate::created::Created;
use crate::errors::{PRODUCT_IN_USE, PRODUCT_NOT_FOUND, SKU_TAKEN};
use crate::fields::{MAX_SAFE, check_text, invalid};
use crate::page::{Limit, Page};
use crate::permissions::{ProductRead, ProductWrite};

const CREATE: &str = include_str!("../sql/product_create.sql");
const DELETE: &str = include_str!("../sql/product_delete.sql");
const GET: &str = include_str!("../sql/product_get.sql");
const GET_BY_KEY: &str = include_str!("../sql/product_get_by_key.sql");
const LIST: &str = include_str!("../sql/product_list.sql");
const UPDATE: &str = include_str!("../sql/product_update.sql");

/// How many products a tenant may have.
const PRODUCTS: Quota<'_> = Quota {
    limit: "inventory.products",
    field: "sku",
    turn: include_str!("../sql/product_turn.sql"),
    count: include_str!("../sql/product_count.sql"),
};

const SKU_LENGTH: usize = 64;

/// A product, as clients see it.
#[derive(Debug, Serialize)]
pub(crate) struct Product {
    id: Uuid,
    sku: String,
    name: String,
    /// What one of it is: `piece`, `kg`.
    unit: String,
    /// The price of one unit in the currency's smallest unit.
    price_minor: Option<i64>,
    /// ISO 4217.
    currency: Option<String>,
    #[serde(with = "rfc3339")]
    created_at: OffsetDateTime,
}

/// What creates a product.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewProduct {
    sku: String,
    name: String,
    #[serde(default = "piece")]
    unit: String,
    price_minor: Option<i64>,
    currency: Option<String>,
}

/// What changes a product: fields that are absent stay as they are, null takes the price away.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::option_option,
    reason = "absent, null and a value are three things"
)]
pub(crate) struct Change {
    name: Option<String>,
    unit: Option<String>,
    #[serde(default, deserialize_with = "present")]
    price_minor: Option<Option<i64>>,
    #[serde(default, deserialize_with = "present")]
    currency: Option<Option<String>>,
}

/// Which page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listing {
    after: Option<String>,
    limit: Option<i64>,
}

/// `GET /products`, by SKU.
pub(crate) async fn list(
    auth: Authorized<ProductRead>,
    Query(listing): Query<Listing>,
) -> Reply<Json<Page<Product>>> {
    let limit = Limit::new(listing.limit)?;
    let after = listing.after.unwrap_or_default();
    if !after.is_empty() {
        check_text("after", &after, SKU_LENGTH)?;
    }
    let rows = auth
        .begin()
        .query_and_commit(LIST, &[&after, &limit.rows()])
        .await?;
    let page = Page::new(&rows, limit, read, |product| product.sku.clone())?;
    Ok(Json(page))
}

/// `POST /products`.
pub(crate) async fn create(
    auth: Authorized<ProductWrite>,
    key: IdempotencyKey,
    Json(new): Json<NewProduct>,
) -> Reply<Created<Product>> {
    new.check()?;
    let mut tx = auth.begin();
    let product = match auth.flags().check_room(&mut tx, &PRODUCTS, &new.sku).await {
        Ok(()) => insert(&mut tx, &key, &new).await?,
        // A repeated request adds nothing.
        Err(full) if full.code() == fault::LIMIT_REACHED.code => {
            earlier(&mut tx, &key, &new).await?.ok_or(full)?
        }
        Err(other) => return Err(other.into()),
    };
    tx.commit().await?;
    Ok(Created::at(format!("/products/{}", product.id), product))
}

/// `GET /products/{id}`.
pub(crate) async fn get(
    auth: Authorized<ProductRead>,
    Path(id): Path<Uuid>,
) -> Reply<Json<Product>> {
    let rows = auth.begin().query_and_commit(GET, &[&id]).await?;
    let row = rows.into_iter().next();
    let row = row.ok_or_else(|| not_found(id))?;
    Ok(Json(read(&row)?))
}

/// `PATCH /products/{id}`.
pub(crate) async fn update(
    auth: Authorized<ProductWrite>,
    Path(id): Path<Uuid>,
    Json(change): Json<Change>,
) -> Reply<Json<Product>> {
    change.check()?;
    let rows = auth
        .begin()
        .query_and_commit(
            UPDATE,
            &[
                &id,
                &change.name,
                &change.unit,
                &change.price_minor.is_some(),
                &change.price_minor.flatten(),
                &change.currency.is_some(),
                &change.currency.flatten(),
            ],
        )
        .await
        .map_err(price_without_currency)?;
    let row = rows.into_iter().next();
    let row = row.ok_or_else(|| not_found(id))?;
    Ok(Json(read(&row)?))
}

/// `DELETE /products/{id}`: one that was never moved. A mistake is taken back so; what has a history
/// keeps its name.
pub(crate) async fn delete(
    auth: Authorized<ProductWrite>,
    Path(id): Path<Uuid>,
) -> Reply<StatusCode> {
    let deleted = auth.begin().execute_and_commit(DELETE, &[&id]).await;
    match deleted.map_err(in_use)? {
        0 => Err(not_found(id).into()),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

/// Inserts the product, or finds the one that an earlier request with the same key has inserted.
async fn insert(
    tx: &mut TenantTx,
    key: &IdempotencyKey,
    new: &NewProduct,
) -> Result<Product, Fault> {
    let inserted = tx
        .query_opt(
            CREATE,
            &[
                &new_id(),
                &new.sku,
                &new.name,
                &new.unit,
                &new.price_minor,
                &new.currency,
                &key.as_deref(),
            ],
        )
        .await?;
    if let Some(row) = inserted {
        return read(&row);
    }
    earlier(tx, key, new).await?.ok_or_else(|| {
        SKU_TAKEN
            .fault(format!("there is a product `{}` already", new.sku))
            .field("sku")
    })
}

/// What an earlier request with the same key has inserted.
async fn earlier(
    tx: &mut TenantTx,
    key: &IdempotencyKey,
    new: &NewProduct,
) -> Result<Option<Product>, Fault> {
    let Some(key) = key.as_deref() else {
        return Ok(None);
    };
    let Some(row) = tx.query_opt(GET_BY_KEY, &[&key]).await? else {
        return Ok(None);
    };
    let earlier = read(&row)?;
    if earlier.sku == new.sku {
        return Ok(Some(earlier));
    }
    Err(fault::IDEMPOTENCY_KEY_REUSED
        .fault(format!("the key has created product `{}`", earlier.sku)))
}

impl NewProduct {
    fn check(&self) -> Result<(), Fault> {
        check_text("sku", &self.sku, SKU_LENGTH)?;
        check_name(&self.name)?;
        check_unit(&self.unit)?;
        check_price(self.price_minor)?;
        check_currency(self.currency.as_deref())?;
        if self.price_minor.is_some() != self.currency.is_some() {
            return Err(incomplete_price());
        }
        Ok(())
    }
}

impl Change {
    fn check(&self) -> Result<(), Fault> {
        self.name.as_deref().map_or(Ok(()), check_name)?;
        self.unit.as_deref().map_or(Ok(()), check_unit)?;
        check_price(self.price_minor.flatten())?;
        check_currency(self.currency.as_ref().and_then(|value| value.as_deref()))
    }
}

fn check_name(name: &str) -> Result<(), Fault> {
    check_text("name", name, 200)
}

fn check_unit(unit: &str) -> Result<(), Fault> {
    check_text("unit", unit, 16)
}

fn check_price(price: Option<i64>) -> Result<(), Fault> {
    match price {
        None | Some(0..=MAX_SAFE) => Ok(()),
        Some(_) => Err(invalid("price_minor", format!("must be 0 to {MAX_SAFE}"))),
    }
}

fn check_currency(currency: Option<&str>) -> Result<(), Fault> {
    let fine = currency
        .is_none_or(|code| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase()));
    if fine {
        Ok(())
    } else {
        Err(invalid(
            "currency",
            "must be an ISO 4217 code, such as `XOF`",
        ))
    }
}

/// After a change, whether a price and its currency are both there is known to the row alone.
fn price_without_currency(fault: Fault) -> Fault {
    if constraint(&fault) == Some("product_price_currency_check") {
        return incomplete_price();
    }
    fault
}

fn in_use(fault: Fault) -> Fault {
    if constraint(&fault) == Some("stock_level_product_fkey") {
        return PRODUCT_IN_USE.fault("stock of the product was moved");
    }
    fault
}

fn incomplete_price() -> Fault {
    invalid(
        "currency",
        "a price needs a currency, and a currency a price",
    )
}

fn not_found(id: Uuid) -> Fault {
    PRODUCT_NOT_FOUND.fault(format!("there is no product {id}"))
}

fn read(row: &Row) -> Result<Product, Fault> {
    Ok(Product {
        id: column(row, "id")?,
        sku: column(row, "sku")?,
        name: column(row, "name")?,
        unit: column(row, "unit")?,
        price_minor: column(row, "price_minor")?,
        currency: column(row, "currency")?,
        created_at: column(row, "created_at")?,
    })
}

fn piece() -> String {
    "piece".to_owned()
}

/// Tells a field that is null from one that is absent.
#[expect(
    clippy::option_option,
    reason = "absent, null and a value are three things"
)]
fn present<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Deserialize::deserialize(deserializer).map(Some)
}
