//! Are both ends the same at the same point of the log?
//!
//! The caller gives a session at each end, each in one snapshot, and the rows for which these two are not
//! at the same point: those that changed behind the source's. All others are counted and digested on both
//! sides; the sum of the rows' digests does not depend on their order. If the sums differ, the rows are
//! looked for: by 1024 parts of the digests, then by key.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{TryStreamExt as _, future};
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;
use waangu_kernel::TenantId;

use crate::Error;
use crate::fetch::{self, Fetch};
use crate::pace::{Pace, STRETCH};
use crate::place::quoted;
use crate::progress::Teller;
use crate::table::Table;

/// Keys compared with one statement.
const CHUNK: usize = 2000;

/// How old the snapshots of a comparison should not become: hot rows are followed at the target beside it.
/// At 300 s, with 32 rows that changed 250 times a second, what followed came to a stand.
const YOUNG: Duration = Duration::from_secs(40);

/// Rows are summed up in so many parts, by the lowest bits of their digests, so that a difference can be
/// found.
const PARTS: i64 = 1024;

/// Differing rows that are kept as evidence.
const KEPT: usize = 20;

/// For sessions that look rows up by key: parameters are few, whatever the plan thinks.
pub(crate) const LOOKING_UP: &str = "set enable_hashjoin = off; set enable_mergejoin = off; set enable_seqscan = off; set jit = off";

/// Rows, per table, by their keys as text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dirty(HashMap<usize, HashSet<Vec<String>>>);

impl Dirty {
    pub(crate) fn add(&mut self, table: usize, key: Vec<String>) {
        self.0.entry(table).or_default().insert(key);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.values().map(HashSet::len).sum()
    }

    fn of(&self, table: usize) -> Vec<&Vec<String>> {
        self.0.get(&table).into_iter().flatten().collect()
    }

    fn has(&self, table: usize, key: &Vec<String>) -> bool {
        self.0.get(&table).is_some_and(|keys| keys.contains(key))
    }
}

/// A session at each end.
pub(crate) struct Ends<'a> {
    pub(crate) source: &'a Client,
    pub(crate) target: &'a Client,
    pub(crate) tables: &'a Arc<[Table]>,
    pub(crate) tenant: TenantId,
}

/// A row that is not the same at both ends, with its text, if it is there.
#[derive(Debug)]
pub(crate) struct Differing {
    pub(crate) key: Vec<String>,
    pub(crate) source: Option<String>,
    pub(crate) target: Option<String>,
}

/// What a comparison found.
#[derive(Debug)]
pub(crate) enum Verdict {
    Same,
    Differs {
        table: String,
        what: String,
        rows: Vec<Differing>,
    },
}

/// Compares all rows but some.
pub(crate) async fn whole(
    ends: &Ends<'_>,
    except: &Dirty,
    teller: &Teller,
    pace: &Pace,
) -> Result<Verdict, Error> {
    pace.begin(YOUNG);
    let ways = future::try_join(fetch::way(ends.source), fetch::way(ends.target)).await?;
    for (index, table) in ends.tables.iter().enumerate() {
        teller.table(&table.source);
        let but = except.of(index);
        let here = (ends.source, table.source.as_str(), ways.0);
        let there = (ends.target, table.target.as_str(), ways.1);
        let here = sums(here, table, ends.tenant, &but, pace);
        let there = sums(there, table, ends.tenant, &but, pace);
        let (here, there) = future::try_join(here, there).await?;
        let parts = here.differing(&there);
        if parts.is_empty() {
            continue;
        }
        let here_keys = keys_in(ends.source, &table.source, table, ends.tenant, &parts);
        let there_keys = keys_in(ends.target, &table.target, table, ends.tenant, &parts);
        let (mut here_keys, mut there_keys) = future::try_join(here_keys, there_keys).await?;
        here_keys.retain(|key, _| !except.has(index, key));
        there_keys.retain(|key, _| !except.has(index, key));
        let keys = differing(&here_keys, &there_keys);
        let counts = (here.count(), there.count());
        return differs(ends, table, keys, Some(counts)).await;
    }
    Ok(Verdict::Same)
}

/// Compares some rows, without others.
pub(crate) async fn some(ends: &Ends<'_>, which: &Dirty, except: &Dirty) -> Result<Verdict, Error> {
    // All tables at once: a session answers one after another, and nobody waits in between.
    let found = ends.tables.iter().enumerate().map(async |(index, table)| {
        let mut keys = which.of(index);
        keys.retain(|key| !except.has(index, key));
        for chunk in keys.chunks(CHUNK) {
            let here = rows(ends.source, &table.source, table, chunk);
            let there = rows(ends.target, &table.target, table, chunk);
            let (here, there) = future::try_join(here, there).await?;
            let keys = differing(&here, &there);
            if !keys.is_empty() {
                return Ok(Some((table, keys)));
            }
        }
        Ok::<_, Error>(None)
    });
    let found = future::try_join_all(found).await?;
    match found.into_iter().flatten().next() {
        Some((table, keys)) => differs(ends, table, keys, None).await,
        None => Ok(Verdict::Same),
    }
}

/// Compares no rows of any table, so that both sessions know the tables.
pub(crate) async fn rehearse(ends: &Ends<'_>) -> Result<(), Error> {
    let looks = ends.tables.iter().map(async |table| {
        let here = rows(ends.source, &table.source, table, &[]);
        let there = rows(ends.target, &table.target, table, &[]);
        future::try_join(here, there).await.map(drop)
    });
    future::try_join_all(looks).await.map(drop)
}

async fn differs(
    ends: &Ends<'_>,
    table: &Table,
    keys: Vec<Vec<String>>,
    counts: Option<(i64, i64)>,
) -> Result<Verdict, Error> {
    let mut what = format!(
        "{} rows, with keys from {:?} to {:?}",
        keys.len(),
        keys.first().map_or(&[][..], Vec::as_slice),
        keys.last().map_or(&[][..], Vec::as_slice),
    );
    if let Some((here, there)) = counts
        && here != there
    {
        what = format!("{here} rows became {there}; {what}");
    }
    let kept: Vec<&Vec<String>> = keys.iter().take(KEPT).collect();
    let here = texts(ends.source, &table.source, table, &kept);
    let there = texts(ends.target, &table.target, table, &kept);
    let (mut here, mut there) = future::try_join(here, there).await?;
    let rows = kept.into_iter().map(|key| Differing {
        key: key.clone(),
        source: here.remove(key),
        target: there.remove(key),
    });
    let rows = rows.collect();
    let table = table.source.clone();
    Ok(Verdict::Differs { table, what, rows })
}

/// Keys of two maps whose values are not the same.
fn differing<K: Ord + Clone, V: PartialEq>(
    here: &BTreeMap<K, V>,
    there: &BTreeMap<K, V>,
) -> Vec<K> {
    let mut keys: Vec<K> = Vec::new();
    for (key, value) in here {
        if there.get(key) != Some(value) {
            keys.push(key.clone());
        }
    }
    keys.extend(there.keys().filter(|key| !here.contains_key(key)).cloned());
    keys.sort();
    keys
}

/// A digest of a row of `t`: 64 bits, from the bytes of its values. Numbers that are equal but written
/// differently (`1.0`, `1.00`) are not the same row.
fn digest(table: &Table) -> String {
    let columns = table.columns.iter();
    let columns: Vec<String> = columns
        .map(|(name, kind)| hashed(&format!("t.{}", quoted(name)), kind))
        .collect();
    let record = format!("hash_record_extended(row({}), 0)", columns.join(", "));
    // A record's hash is a sum over its columns, in which two rows that have swapped a value would add up
    // to what they were; hashed once more, it is not.
    format!("hash_record_extended(row(int8send({record})), 0)")
}

/// What is hashed of a column, by its type as `format_type` writes it: of all its bytes. PostgreSQL hashes
/// some types as they are so; a bigint it folds to 32 bits first (`hashint8`), and times with it.
fn hashed(column: &str, kind: &str) -> String {
    match kind {
        "smallint" | "integer" | "boolean" | "uuid" | "bytea" | "date" => column.to_owned(),
        "bigint" => format!("int8send({column})"),
        "timestamp with time zone" => format!("timestamptz_send({column})"),
        "timestamp without time zone" => format!("timestamp_send({column})"),
        // Under another collation, equal texts may have different bytes.
        kind if kind == "text" || kind.starts_with("character varying") && !kind.ends_with(']') => {
            format!("{column} collate \"C\"")
        }
        // As its output function writes it: a cast may be a module's, or lose blanks.
        _ => format!("row({column})::text collate \"C\""),
    }
}

/// A row of `t` as text.
fn text(table: &Table) -> String {
    let columns = table.columns.iter();
    let columns: Vec<String> = columns
        .map(|(name, _)| format!("t.{}", quoted(name)))
        .collect();
    format!("row({})::text", columns.join(", "))
}

/// The key as text, as the stream gives it.
fn key_texts(table: &Table) -> String {
    let parts = table.key.iter();
    let parts: Vec<String> = parts
        .map(|part| format!("t.{}::text", quoted(part)))
        .collect();
    format!("array[{}]", parts.join(", "))
}

/// How many rows have a digest in each part, and the sum of these digests.
#[derive(Debug, PartialEq, Eq)]
struct Sums(Vec<(i64, i128)>);

impl Sums {
    fn new() -> Self {
        Self((0..PARTS).map(|_part| (0, 0)).collect())
    }

    fn add(&mut self, digest: i64) {
        let part = usize::try_from(digest & (PARTS - 1)).unwrap_or(0);
        if let Some((count, sum)) = self.0.get_mut(part) {
            *count += 1;
            *sum += i128::from(digest);
        }
    }

    fn count(&self) -> i64 {
        self.0.iter().map(|(count, _)| count).sum()
    }

    /// Parts that are not the same.
    fn differing(&self, other: &Self) -> Vec<i64> {
        let both = (0_i64..).zip(self.0.iter().zip(&other.0));
        both.filter(|(_, (here, there))| here != there)
            .map(|(part, _)| part)
            .collect()
    }
}

/// Sums up the digests of all rows but some, a few rows at a time, as fast as the pace allows.
async fn sums(
    (client, name, way): (&Client, &str, Duration),
    table: &Table,
    tenant: TenantId,
    but: &[&Vec<String>],
    pace: &Pace,
) -> Result<Sums, Error> {
    let keys = Keys::new(table, but);
    let (except, params) = if but.is_empty() {
        (String::new(), Vec::new())
    } else {
        let except = format!(
            "and not exists (select from {} where {})",
            keys.from, keys.matching
        );
        (except, keys.params())
    };
    let digest = digest(table);
    let number = tenant.number();
    let sql = format!(
        "declare digests no scroll cursor for
         select {digest} from {name} t where t.tenant_id = {number} {except}"
    );
    client.execute(&sql, &params).await?;
    let mut stream = pace.stream(STRETCH);
    let mut sums = Sums::new();
    let mut fetch = Fetch::begin(client, "digests", way, STRETCH).await?;
    loop {
        let begun = Instant::now();
        let (mut rows, mut count) = (pin!(fetch.rows().await?), 0);
        while let Some(row) = rows.try_next().await? {
            sums.add(row.try_get(0)?);
            count += 1;
        }
        if fetch.is_over(count, 0, begun.elapsed()).await? {
            break;
        }
        stream.pass(None).await;
    }
    client.batch_execute("close digests").await?;
    Ok(sums)
}

/// Keys and digests of the rows in some parts.
async fn keys_in(
    client: &Client,
    name: &str,
    table: &Table,
    tenant: TenantId,
    parts: &[i64],
) -> Result<BTreeMap<Vec<String>, i64>, Error> {
    let digest = digest(table);
    let sql = format!(
        "select {}, {digest} from {name} t where t.tenant_id = $1 and {digest} & {} = any ($2)",
        key_texts(table),
        PARTS - 1,
    );
    // One part is enough to name rows of a small difference; a large one need not be told whole.
    let parts = parts.get(..parts.len().min(KEPT)).unwrap_or(parts);
    let found = client.query(&sql, &[&tenant.number(), &parts]).await?;
    found
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

/// Digests of the rows with some keys.
async fn rows(
    client: &Client,
    name: &str,
    table: &Table,
    keys: &[&Vec<String>],
) -> Result<BTreeMap<Vec<String>, i64>, Error> {
    let what = digest(table);
    look_up(client, name, table, keys, &what).await
}

/// The rows with some keys, as text.
async fn texts(
    client: &Client,
    name: &str,
    table: &Table,
    keys: &[&Vec<String>],
) -> Result<BTreeMap<Vec<String>, String>, Error> {
    let what = text(table);
    look_up(client, name, table, keys, &what).await
}

async fn look_up<T: for<'a> tokio_postgres::types::FromSql<'a>>(
    client: &Client,
    name: &str,
    table: &Table,
    keys: &[&Vec<String>],
    what: &str,
) -> Result<BTreeMap<Vec<String>, T>, Error> {
    let keys = Keys::new(table, keys);
    let sql = format!(
        "select {}, {what} from {} join {name} t on {}",
        key_texts(table),
        keys.from,
        keys.matching,
    );
    let found = client.query(&sql, &keys.params()).await?;
    found
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

/// Keys as parameters, and as a table `u` that `t` can be joined with.
struct Keys<'a> {
    from: String,
    matching: String,
    columns: Vec<Vec<Option<&'a String>>>,
}

impl<'a> Keys<'a> {
    fn new(table: &Table, keys: &[&'a Vec<String>]) -> Self {
        let (mut params, mut names, mut matching, mut columns) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (index, part) in table.key.iter().enumerate() {
            params.push(format!("${}::text[]", index + 1));
            names.push(format!("c{index}"));
            let kind = table.type_of(part);
            matching.push(format!("t.{} = u.c{index}::{kind}", quoted(part)));
            columns.push(keys.iter().map(|key| key.get(index)).collect());
        }
        Self {
            from: format!("unnest({}) as u ({})", params.join(", "), names.join(", ")),
            matching: matching.join(" and "),
            columns,
        }
    }

    fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        let params = self.columns.iter();
        params
            .map(|column| -> &(dyn ToSql + Sync) { column })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use waangu_testkit::{Tier, private_cell};

    use super::*;
    use crate::place::Side;

    /// Values of one type that PostgreSQL may take for equal, or hash alike.
    const NEARLY: [(&str, &str, &str); 14] = [
        ("bigint", "1", "4294967296"),
        ("bigint", "-1", "4294967295"),
        ("integer", "1", "-2"),
        (
            "timestamp with time zone",
            "'2024-03-01 12:00:00+00'",
            "'2024-03-01 13:11:34.967297+00'",
        ),
        (
            "timestamp without time zone",
            "'2024-03-01 12:00:00'",
            "'2024-03-01 13:11:34.967297'",
        ),
        ("numeric", "1.0", "1.00"),
        ("double precision", "0", "'-0'"),
        ("bpchar", "'ab'", "'ab  '"),
        ("character varying(5)", "'ab'", "'ab '"),
        ("integer[]", "'{1,2}'", "'[0:1]={1,2}'"),
        ("jsonb", "'1.0'", "'1.00'"),
        ("interval", "'1 month'", "'30 days'"),
        ("text", "''", "null"),
        ("boolean", "false", "null"),
    ];

    fn table(kinds: &[&str]) -> Table {
        let columns = (0..).zip(kinds);
        Table {
            schema: String::new(),
            source: String::new(),
            target: String::new(),
            name: String::new(),
            columns: columns
                .map(|(n, kind): (u8, _)| (format!("c{n}"), (*kind).to_owned()))
                .collect(),
            key: Vec::new(),
            strict: false,
            binary: true,
        }
    }

    /// A move would serve rows that are not the tenant's.
    #[tokio::test]
    async fn what_is_written_differently_has_another_digest() {
        let cell = private_cell().await;
        let (tenant, placement) = cell.tenant(Tier::Shared);
        let side = Side {
            cell: cell.admin_config(),
            placement,
        };
        let client = side.session(tenant).await.unwrap();
        for (kind, one, other) in NEARLY {
            let digest = digest(&table(&[kind]));
            let sql = format!(
                "select count(distinct {digest}), count(distinct {digest} & 4294967295)
                   from (values ({one}::{kind}), ({other}::{kind})) as t (c0)"
            );
            let row = client.query_one(&sql, &[]).await.unwrap();
            let counts: (i64, i64) = (row.get(0), row.get(1));
            assert_eq!(counts, (2, 2), "{kind}: {one} and {other}");
        }
        // Two rows that have swapped a value.
        let digest = digest(&table(&["integer", "text"]));
        let sql = format!(
            "select sum({digest}) filter (where c0 + length(c1) in (2, 4))
                  = sum({digest}) filter (where c0 + length(c1) = 3)
               from (values (1, 'a'), (2, 'bb'), (1, 'bb'), (2, 'a')) as t (c0, c1)"
        );
        let alike: bool = client.query_one(&sql, &[]).await.unwrap().get(0);
        assert!(!alike);
    }
}
