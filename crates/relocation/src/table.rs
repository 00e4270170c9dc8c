//! The tables of a move: what they are called at each end, and whether their changes can be followed.

use futures_util::future;
use tokio_postgres::Client;
use waangu_kernel::{ModuleId, TenantId};

use crate::Error;
use crate::place::{Side, quoted};

/// One table, the same at both ends but for its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// Schema at the source.
    pub(crate) schema: String,
    /// Quoted name with schema, at the source.
    pub(crate) source: String,
    /// The same at the target.
    pub(crate) target: String,
    /// Its own name.
    pub(crate) name: String,
    /// Columns that are written, with their types; generated ones are left out.
    pub(crate) columns: Vec<(String, String)>,
    /// The primary key's columns, in its order.
    pub(crate) key: Vec<String>,
    /// Whether rows may be in each other's way other than by that key.
    pub(crate) strict: bool,
    /// Whether its values mean the same in another database also in binary.
    pub(crate) binary: bool,
}

impl Table {
    /// The columns, as a list in SQL.
    pub(crate) fn column_list(&self) -> String {
        list(self.columns.iter().map(|(name, _)| name))
    }

    /// The type of a column.
    pub(crate) fn type_of(&self, column: &str) -> &str {
        let found = self.columns.iter().find(|(name, _)| name == column);
        found.map_or("text", |(_, kind)| kind)
    }
}

/// Quoted names, separated by commas.
pub(crate) fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names
        .map(|name| quoted(name))
        .collect::<Vec<_>>()
        .join(", ")
}

/// All tables of the modules, or what stands in the way.
pub(crate) async fn tables(
    source: (&Client, &Side),
    target: (&Client, &Side),
    tenant: TenantId,
    modules: &[&ModuleId],
) -> Result<Vec<Table>, Error> {
    let mut tables = Vec::new();
    for module in modules {
        let (from, to) = (
            source.1.schema(tenant, module),
            target.1.schema(tenant, module),
        );
        let (here, there) = future::try_join(read(source.0, &from), read(target.0, &to)).await?;
        if here != there {
            return Err(Error::Refused(format!(
                "the tables of module {module} are not the same at both ends"
            )));
        }
        for found in here {
            if found.key.is_empty() {
                return Err(Error::Refused(format!(
                    "table {} of module {module} has no primary key that is checked at once",
                    found.name
                )));
            }
            tables.push(Table {
                source: format!("{}.{}", quoted(&from), quoted(&found.name)),
                target: format!("{}.{}", quoted(&to), quoted(&found.name)),
                schema: from.clone(),
                name: found.name,
                columns: found.columns,
                key: found.key,
                strict: found.strict,
                binary: found.binary,
            });
        }
    }
    Ok(tables)
}

/// One table of one end.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    name: String,
    columns: Vec<(String, String)>,
    key: Vec<String>,
    strict: bool,
    binary: bool,
}

/// The columns of all tables of a schema. A type of the catalogue has the same number everywhere; a
/// deferrable key is no replica identity, and updates of a published table without one are refused.
const COLUMNS: &str = "
    select c.relname::text
         , c.relkind = 'r' and c.relpersistence = 'p' and c.relreplident = 'd'
           and not c.relispartition
           and not exists (select from pg_inherits h where c.oid in (h.inhrelid, h.inhparent))
         , a.attname::text
         , format_type(a.atttypid, a.atttypmod)
         , a.attgenerated <> ''
         , a.attidentity <> ''
         , array_position(i.indkey::int2[], a.attnum)
         , exists (select from pg_index o
                    where o.indrelid = c.oid and not o.indisprimary
                      and (o.indisunique or o.indisexclusion))
         , a.atttypid < 16384
      from pg_class c
      join pg_namespace n on n.oid = c.relnamespace
      join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      left join pg_index i on i.indrelid = c.oid and i.indisprimary and i.indimmediate
     where n.nspname = $1 and c.relkind in ('r', 'p')
     order by c.relname, a.attname";

/// What a schema holds.
async fn read(client: &Client, schema: &str) -> Result<Vec<Found>, Error> {
    let mut tables: Vec<Found> = Vec::new();
    let mut keys: Vec<Vec<(i32, String)>> = Vec::new();
    for row in client.query(COLUMNS, &[&schema]).await? {
        let table: String = row.try_get(0)?;
        let column: String = row.try_get(2)?;
        let (generated, identity): (bool, bool) = (row.try_get(4)?, row.try_get(5)?);
        let place: Option<i32> = row.try_get(6)?;
        if !row.try_get::<_, bool>(1)? {
            return Err(Error::Refused(format!(
                "table {table} is unlogged, partitioned, inherited, or has another replica identity"
            )));
        }
        if identity || (generated && place.is_some()) {
            return Err(Error::Refused(format!(
                "column {column} of table {table} is an identity, or generated and part of the key"
            )));
        }
        if tables.last().is_none_or(|last| last.name != table) {
            tables.push(Found {
                name: table,
                columns: Vec::new(),
                key: Vec::new(),
                strict: row.try_get(7)?,
                binary: true,
            });
            keys.push(Vec::new());
        }
        let (Some(table), Some(key)) = (tables.last_mut(), keys.last_mut()) else {
            continue;
        };
        if let Some(place) = place {
            key.push((place, column.clone()));
        }
        if !generated {
            table.columns.push((column, row.try_get(3)?));
            table.binary &= row.try_get::<_, bool>(8)?;
        }
    }
    for (table, mut key) in tables.iter_mut().zip(keys) {
        key.sort();
        table.key = key.into_iter().map(|(_, column)| column).collect();
    }
    Ok(tables)
}
