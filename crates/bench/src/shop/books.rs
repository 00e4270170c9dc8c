//! The clerks' notes against the tenant's rows, read past the platform with the administrator's login.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::{Client, Config, NoTls};
use waangu_api::Ready;
use waangu_api::types::{PlacementView, TenantView};
use waangu_kernel::TenantId;

use super::clerk::STOCK;
use super::{Clerk, Shop};
use crate::failure::{Failure, Of as _};

/// What is not as it was acknowledged; empty if all is well.
pub(crate) async fn compare(ready: &Ready, clerks: &[Clerk<'_>]) -> Result<Vec<String>, Failure> {
    let Some(shop) = clerks.first().map(|clerk| clerk.shop) else {
        return Ok(Vec::new());
    };
    let view: TenantView = shop.admin().get(&format!("/tenants/{}", shop.slug)).await?;
    let at = &view.placement;
    let mut wrong = Vec::new();
    let schema = schema(shop.tenant, &at.tier);
    with(ready, &at.cell, &at.database, async |client| {
        compare_moves(client, &schema, shop, clerks, &mut wrong).await?;
        compare_products(client, &schema, shop, clerks, &mut wrong).await?;
        compare_sums(client, &schema, shop, clerks.len(), &mut wrong).await
    })
    .await?;
    let place = place(at);
    Ok(wrong
        .into_iter()
        .map(|text| format!("{} at {place}: {text}", shop.slug))
        .collect())
}

/// Where a tenant is, for people.
pub(crate) fn place(at: &PlacementView) -> String {
    format!("{}/{} epoch {}", at.cell, at.tier, at.epoch)
}

/// The schema of the tenant's inventory.
pub(crate) fn schema(tenant: TenantId, tier: &str) -> String {
    match tier {
        "schema" => format!("t_{}_inventory", tenant.number()),
        _ => "inventory".to_owned(),
    }
}

async fn compare_moves(
    client: &Client,
    schema: &str,
    shop: &Shop,
    clerks: &[Clerk<'_>],
    wrong: &mut Vec<String>,
) -> Result<(), Failure> {
    let sql = format!(
        "select request_key from {schema}.stock_move
          where tenant_id = $1 and request_key is not null"
    );
    let rows = client
        .query(&sql, &[&shop.tenant.number()])
        .await
        .of(&sql)?;
    let mut found = BTreeSet::new();
    for row in &rows {
        let key: String = row.try_get(0).of("request_key")?;
        if let Some(twice) = found.replace(key) {
            wrong.push(format!("move {twice} is there twice"));
        }
    }
    let noted: BTreeSet<&String> = clerks.iter().flat_map(|clerk| &clerk.moves).collect();
    for lost in noted.iter().filter(|key| !found.contains(**key)) {
        wrong.push(format!("move {lost} was acknowledged and is lost"));
    }
    for strange in found.iter().filter(|key| !noted.contains(key)) {
        wrong.push(format!(
            "move {strange} is there and was never acknowledged"
        ));
    }
    Ok(())
}

async fn compare_products(
    client: &Client,
    schema: &str,
    shop: &Shop,
    clerks: &[Clerk<'_>],
    wrong: &mut Vec<String>,
) -> Result<(), Failure> {
    // What a bench has filled in has no key.
    let sql = format!(
        "select sku, name from {schema}.product
          where tenant_id = $1 and request_key is not null"
    );
    let mut found = BTreeMap::new();
    for row in client
        .query(&sql, &[&shop.tenant.number()])
        .await
        .of(&sql)?
    {
        let (sku, name): (String, String) = (row.try_get(0).of("sku")?, row.try_get(1).of("name")?);
        found.insert(sku, name);
    }
    let noted: BTreeMap<&String, &String> =
        clerks.iter().flat_map(|clerk| &clerk.products).collect();
    for (sku, name) in &noted {
        match found.get(*sku) {
            None => wrong.push(format!("product {sku} is lost")),
            Some(other) if other != *name => {
                wrong.push(format!("product {sku} is named `{other}`, not `{name}`"));
            }
            Some(_) => {}
        }
    }
    for sku in found.keys().filter(|sku| !noted.contains_key(sku)) {
        wrong.push(format!("product {sku} was deleted and is there"));
    }
    Ok(())
}

/// What is on hand is what came in, and at each place what the journal says.
async fn compare_sums(
    client: &Client,
    schema: &str,
    shop: &Shop,
    clerks: usize,
    wrong: &mut Vec<String>,
) -> Result<(), Failure> {
    let tenant = shop.tenant.number();
    let sql = format!(
        "select coalesce(sum(on_hand), 0)::bigint from {schema}.stock_level where tenant_id = $1"
    );
    let sum: i64 = client
        .query_one(&sql, &[&tenant])
        .await
        .of(&sql)?
        .try_get(0)
        .of("sum")?;
    let came_in = 2 * STOCK * i64::try_from(clerks).unwrap_or(0);
    if sum != came_in {
        wrong.push(format!("{sum} on hand, {came_in} came in"));
    }
    let sql = format!(
        "select count(*)
           from (select product_id, place_id, sum(amount) as amount
                   from (select product_id, to_place as place_id, quantity as amount
                           from {schema}.stock_move where tenant_id = $1 and to_place is not null
                         union all
                         select product_id, from_place, -quantity
                           from {schema}.stock_move where tenant_id = $1 and from_place is not null) m
                  group by 1, 2) b
           full join (select * from {schema}.stock_level where tenant_id = $1) l
                using (product_id, place_id)
          where coalesce(b.amount, 0) <> coalesce(l.on_hand, 0)"
    );
    let off: i64 = client
        .query_one(&sql, &[&tenant])
        .await
        .of("sums")?
        .try_get(0)
        .of("sums")?;
    if off != 0 {
        wrong.push(format!("{off} levels differ from the journal"));
    }
    Ok(())
}

/// Does something in a database of a cell, as its administrator.
pub(crate) async fn with<T>(
    ready: &Ready,
    cell: &str,
    database: &str,
    act: impl AsyncFnOnce(&Client) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let known = ready.cells.iter().find(|known| known.id == cell);
    let known = known.ok_or_else(|| Failure::new(format!("there is no cell {cell}")))?;
    let mut config: Config = known.superuser_dsn.parse().of(cell)?;
    let connecting = config.dbname(database).connect(NoTls).await;
    let (client, connection) = connecting.map_err(|error| said(cell, &error))?;
    let acted = act(&client);
    tokio::select! {
        done = acted => done,
        ended = connection => Err(Failure::new(format!("{cell}: {ended:?}"))),
    }
}

/// What the server said; the driver's own words for that are "db error".
fn said(subject: &str, error: &tokio_postgres::Error) -> Failure {
    match error.as_db_error() {
        Some(told) => Failure::new(format!("{subject}: {told}")),
        None => Failure::new(format!("{subject}: {error}")),
    }
}
