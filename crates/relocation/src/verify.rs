//! Are both ends the same? All rows before the freeze; at rest only those touched since, and counts.
//!
//! A row that was equal before, and of which the stream has told nothing since, is equal at rest. A row
//! counts as touched when its change is read, whether or not it was applied well.

use std::collections::{BTreeSet, HashMap};

use futures_util::{StreamExt as _, future, pin_mut};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;
use waangu_kernel::TenantId;

use crate::Error;
use crate::place::quoted;
use crate::table::{Table, list};

/// Rows that may differ while changes are on their way; more of them is no lag any more.
const MOST: usize = 50_000;

/// Keys compared with one statement.
const CHUNK: usize = 2000;

/// Rows to look at again, per table, by their keys as text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dirty(HashMap<usize, BTreeSet<Vec<String>>>);

impl Dirty {
    pub(crate) fn add(&mut self, table: usize, key: Vec<String>) {
        self.0.entry(table).or_default().insert(key);
    }

    pub(crate) fn join(&mut self, other: Self) {
        for (table, keys) in other.0 {
            self.0.entry(table).or_default().extend(keys);
        }
    }
}

/// Compares all rows while both ends change. Holds 16 bytes for each row of the largest table.
pub(crate) async fn compare(
    source: &Client,
    target: &Client,
    tables: &[Table],
    tenant: TenantId,
) -> Result<Dirty, Error> {
    let mut dirty = Dirty::default();
    for (index, table) in tables.iter().enumerate() {
        let here = digests(source, &table.source, table, tenant);
        let there = digests(target, &table.target, table, tenant);
        let (here, mut there) = future::try_join(here, there).await?;
        let mut differ: Vec<i64> = Vec::new();
        for (key, digest) in here {
            if there.remove(&key) != Some(digest) {
                differ.push(key);
            }
        }
        differ.extend(there.into_keys());
        if differ.len() > MOST {
            let what = format!("{} rows, before the freeze", differ.len());
            return Err(mismatch(table, what));
        }
        for (client, name) in [(source, &table.source), (target, &table.target)] {
            for key in keys(client, name, table, tenant, &differ).await? {
                dirty.add(index, key);
            }
        }
    }
    Ok(dirty)
}

/// Compares the rows of `dirty`, and how many there are in all, at the same point of the log.
pub(crate) async fn at_rest(
    source: &Client,
    target: &Client,
    tables: &[Table],
    tenant: TenantId,
    dirty: &Dirty,
) -> Result<(), Error> {
    for (index, table) in tables.iter().enumerate() {
        let here = count(source, &table.source, tenant);
        let there = count(target, &table.target, tenant);
        let (here, there) = future::try_join(here, there).await?;
        if here != there {
            return Err(mismatch(table, format!("{here} rows became {there}")));
        }
        let keys: Vec<&Vec<String>> = dirty.0.get(&index).into_iter().flatten().collect();
        for chunk in keys.chunks(CHUNK) {
            let here = rows(source, &table.source, table, chunk);
            let there = rows(target, &table.target, table, chunk);
            let (here, there) = future::try_join(here, there).await?;
            if here != there {
                let range = (chunk.first(), chunk.last());
                return Err(mismatch(table, format!("keys between {range:?}")));
            }
        }
    }
    Ok(())
}

fn mismatch(table: &Table, what: String) -> Error {
    Error::Mismatch {
        table: table.source.clone(),
        what,
    }
}

fn digest_of(names: &str) -> String {
    format!("hashtextextended(row({names})::text, 0)")
}

async fn digests(
    client: &Client,
    name: &str,
    table: &Table,
    tenant: TenantId,
) -> Result<HashMap<i64, i64>, Error> {
    let sql = format!(
        "select {}, {} from {name} where tenant_id = $1",
        digest_of(&list(table.key.iter())),
        digest_of(&table.column_list()),
    );
    let mut found: HashMap<i64, i64> = HashMap::new();
    let rows = client.query_raw(&sql, [tenant.number()]).await?;
    pin_mut!(rows);
    while let Some(row) = rows.next().await {
        let row = row?;
        let (key, digest): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        // Two keys of one digest are compared as one.
        found
            .entry(key)
            .and_modify(|known| *known = known.wrapping_add(digest))
            .or_insert(digest);
    }
    Ok(found)
}

/// The keys behind digests of keys.
async fn keys(
    client: &Client,
    name: &str,
    table: &Table,
    tenant: TenantId,
    digests: &[i64],
) -> Result<Vec<Vec<String>>, Error> {
    if digests.is_empty() {
        return Ok(Vec::new());
    }
    let parts: Vec<String> = table
        .key
        .iter()
        .map(|part| format!("{}::text", quoted(part)))
        .collect();
    let sql = format!(
        "select array[{}] from {name} where tenant_id = $1 and {} = any ($2)",
        parts.join(", "),
        digest_of(&list(table.key.iter())),
    );
    let rows = client.query(&sql, &[&tenant.number(), &digests]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

async fn count(client: &Client, name: &str, tenant: TenantId) -> Result<i64, Error> {
    let sql = format!("select count(*) from {name} where tenant_id = $1");
    Ok(client
        .query_one(&sql, &[&tenant.number()])
        .await?
        .try_get(0)?)
}

async fn rows(
    client: &Client,
    name: &str,
    table: &Table,
    keys: &[&Vec<String>],
) -> Result<BTreeSet<(i64, i64)>, Error> {
    let (mut arrays, mut joins, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for (index, part) in table.key.iter().enumerate() {
        arrays.push(format!("${}::text[]", index + 1));
        joins.push(format!(
            "t.{} = d.k{index}::{}",
            quoted(part),
            table.type_of(part)
        ));
        let column: Vec<Option<&String>> = keys.iter().map(|key| key.get(index)).collect();
        texts.push(column);
    }
    let names: Vec<String> = (0..table.key.len())
        .map(|index| format!("k{index}"))
        .collect();
    let of = |columns: &mut dyn Iterator<Item = &String>| {
        let all: Vec<String> = columns.map(|name| format!("t.{}", quoted(name))).collect();
        digest_of(&all.join(", "))
    };
    let sql = format!(
        "select {}, {} from unnest({}) as d ({}) join {name} t on {}",
        of(&mut table.key.iter()),
        of(&mut table.columns.iter().map(|(name, _)| name)),
        arrays.join(", "),
        names.join(", "),
        joins.join(" and "),
    );
    let params: Vec<&(dyn ToSql + Sync)> = texts
        .iter()
        .map(|column| -> &(dyn ToSql + Sync) { column })
        .collect();
    let found = client.query(&sql, &params).await?;
    found
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}
