//! Applying changes to the target: sorted by table, many to a statement, many statements on their way.
//!
//! Changes of different tables don't meet (the target's triggers are off), and neither do changes of
//! different rows of a table whose only unique key is its primary key. So these are put together as they
//! come, until a row comes a second time. Of a row that is changed again and again only the last change is
//! made: it is all one transaction of the target, and while a comparison reads there each version would
//! stay, and be met by whoever looks for the row. A table with another unique key keeps the order of the
//! source: two rows may have swapped their values on the way.
//!
//! Invariant: a statement that does not hit just as many rows as it should is an error. The copy would
//! not be what it is taken for.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use futures_util::poll;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Statement, Transaction};

use super::statements::{Columns, across, delete_sql, insert_sql, update_sql};
use crate::Error;
use crate::pgoutput::Value;
use crate::table::Table;

/// Rows in one statement.
const ROWS: usize = 500;

/// Bytes in one statement, unless one row has more.
const BYTES: usize = 4 << 20;

/// Statements on their way at once, and their bytes.
const DEPTH: (usize, usize) = (64, 16 << 20);

/// Statements remembered as prepared; updates have one for each set of columns.
const PREPARED: usize = 300;

/// Prepared statements of the target's session, by their text.
pub(super) type Prepared = HashMap<String, Statement>;

/// A row's key, in the key's order.
pub(super) type Key = Vec<Bytes>;

/// Values, in the order of their columns.
type Row = Vec<Option<Bytes>>;

/// One change of a row.
#[derive(Debug)]
pub(super) enum Change {
    Insert(Row),
    /// Old key, values of some columns, those columns as places in the relation.
    Update(Key, Row, Vec<usize>),
    Delete(Key),
}

fn size(row: &Row) -> usize {
    row.iter().flatten().map(Bytes::len).sum()
}

impl Change {
    fn bytes(&self) -> usize {
        match self {
            Self::Insert(row) | Self::Update(_, row, _) => size(row),
            Self::Delete(key) => key.iter().map(Bytes::len).sum(),
        }
    }
}

/// Changes of one table that may be made in any order.
#[derive(Debug, Default)]
struct Window {
    keys: HashSet<Key>,
    inserts: Vec<Row>,
    updates: BTreeMap<Vec<usize>, HashMap<Key, Row>>,
    deletes: Vec<Key>,
    bytes: usize,
}

/// A statement that has left, with its bytes.
type Sent<'a> = (
    usize,
    Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>,
);

impl Window {
    /// Puts an update in the place of an earlier one of the same row and columns, if there is one.
    fn supersede(&mut self, keys: &[Key], change: &mut Change) -> bool {
        let Change::Update(key, row, places) = change else {
            return false;
        };
        let earlier = self.updates.get_mut(places);
        let Some(earlier) = earlier.and_then(|rows| rows.get_mut(key)) else {
            return false;
        };
        // The earlier one was of this row: whatever gave its key to another has ended the window.
        if keys.iter().any(|one| one != key) {
            return false;
        }
        let bytes = (self.bytes + size(row)).saturating_sub(size(earlier));
        if bytes >= BYTES {
            return false;
        }
        self.bytes = bytes;
        *earlier = std::mem::take(row);
        true
    }

    fn kind(&self) -> Option<u8> {
        match (
            self.inserts.is_empty(),
            self.updates.is_empty(),
            self.deletes.is_empty(),
        ) {
            (false, ..) => Some(0),
            (_, false, _) => Some(1),
            (.., false) => Some(2),
            _ => None,
        }
    }
}

/// What is on its way to the target, in one transaction.
pub(super) struct Applier<'a> {
    tx: &'a Transaction<'a>,
    tables: &'a [Table],
    prepared: &'a mut Prepared,
    windows: HashMap<usize, (Window, Vec<String>)>,
    pending: VecDeque<Sent<'a>>,
    flying: usize,
}

impl<'a> Applier<'a> {
    pub(super) fn new(
        tx: &'a Transaction<'a>,
        tables: &'a [Table],
        prepared: &'a mut Prepared,
    ) -> Self {
        Self {
            tx,
            tables,
            prepared,
            windows: HashMap::new(),
            pending: VecDeque::new(),
            flying: 0,
        }
    }

    /// Takes a change, with the keys that the row has before and after, and the columns of its table.
    pub(super) async fn take(
        &mut self,
        table: usize,
        columns: &[String],
        keys: Vec<Key>,
        mut change: Change,
    ) -> Result<(), Error> {
        let strict = self.table(table)?.strict;
        let kind = match &change {
            Change::Insert(_) => 0,
            Change::Update(..) => 1,
            Change::Delete(_) => 2,
        };
        let (window, known) = self.windows.entry(table).or_default();
        if !strict && known == columns && window.supersede(&keys, &mut change) {
            return Ok(());
        }
        let other = known != columns
            || keys.iter().any(|key| window.keys.contains(key))
            // An update of a strict table stands alone, and nothing passes it.
            || strict && window.kind().is_some_and(|before| before != kind || kind == 1)
            || window.keys.len() >= ROWS
            || window.bytes >= BYTES;
        if other {
            self.flush(table).await?;
        }
        let (window, known) = self.windows.entry(table).or_default();
        if known != columns {
            *known = columns.to_vec();
        }
        window.keys.extend(keys);
        window.bytes += change.bytes();
        match change {
            Change::Insert(row) => window.inserts.push(row),
            Change::Update(key, row, places) => {
                window.updates.entry(places).or_default().insert(key, row);
            }
            Change::Delete(key) => window.deletes.push(key),
        }
        Ok(())
    }

    /// Sends what is left and waits for all of it.
    pub(super) async fn finish(mut self) -> Result<(), Error> {
        let tables: Vec<usize> = self.windows.keys().copied().collect();
        for table in tables {
            if let Err(error) = self.flush(table).await {
                return Err(self.first_failure(error).await);
            }
        }
        for (_, sent) in self.pending {
            sent.await?;
        }
        Ok(())
    }

    /// What made a transaction fail: later statements only say that it has.
    pub(super) async fn first_failure(self, last: Error) -> Error {
        for (_, sent) in self.pending {
            if let Err(first) = sent.await {
                return first;
            }
        }
        last
    }

    fn table(&self, index: usize) -> Result<&'a Table, Error> {
        let missing = || Error::Stream("a row of an unknown table".to_owned());
        self.tables.get(index).ok_or_else(missing)
    }

    async fn flush(&mut self, index: usize) -> Result<(), Error> {
        let Some((window, columns)) = self.windows.get_mut(&index) else {
            return Ok(());
        };
        let (window, columns) = (std::mem::take(window), columns.clone());
        let table = self.table(index)?;
        if !window.deletes.is_empty() {
            let sql = delete_sql(table);
            let width = table.key.len();
            self.send(table, sql, across(window.deletes, width, Some))
                .await?;
        }
        for (places, rows) in window.updates {
            let sql = update_sql(table, &columns, &places)?;
            let width = table.key.len() + places.len();
            let rows = rows.into_iter().map(|(key, row)| {
                let mut all: Row = key.into_iter().map(Some).collect();
                all.extend(row);
                all
            });
            self.send(table, sql, across(rows, width, |value| value))
                .await?;
        }
        if !window.inserts.is_empty() {
            let sql = insert_sql(table, &columns);
            let width = columns.len();
            self.send(table, sql, across(window.inserts, width, |value| value))
                .await?;
        }
        Ok(())
    }

    /// Sends one statement for all rows; its answer is looked at later.
    async fn send(&mut self, table: &'a Table, sql: String, rows: Columns) -> Result<(), Error> {
        let statement = if let Some(known) = self.prepared.get(&sql) {
            known.clone()
        } else {
            let types = vec![Type::TEXT_ARRAY; rows.texts.len()];
            let made = self.tx.prepare_typed(&sql, &types).await?;
            if self.prepared.len() >= PREPARED {
                self.prepared.clear();
            }
            self.prepared.insert(sql, made.clone());
            made
        };
        let (tx, bytes) = (self.tx, rows.bytes);
        let mut sent = Box::pin(async move {
            let params: Vec<&(dyn ToSql + Sync)> = rows
                .texts
                .iter()
                .map(|column| -> &(dyn ToSql + Sync) { column })
                .collect();
            let hit = tx.execute(&statement, &params).await?;
            if usize::try_from(hit).ok() == Some(rows.count) {
                return Ok(());
            }
            let (source, count) = (&table.source, rows.count);
            Err(Error::Stream(format!(
                "{count} changes of {source} hit {hit} rows"
            )))
        });
        // The first look sends it: statements leave in the order in which they are made.
        if let Poll::Ready(done) = poll!(&mut sent) {
            return done;
        }
        self.flying += bytes;
        self.pending.push_back((bytes, sent));
        while self.pending.len() > DEPTH.0 || self.flying > DEPTH.1 {
            let Some((bytes, oldest)) = self.pending.pop_front() else {
                break;
            };
            oldest.await?;
            self.flying -= bytes;
        }
        Ok(())
    }
}

/// What a new row is made of.
pub(super) fn inserted(row: Vec<Value>) -> Result<Change, Error> {
    let whole = row.into_iter().map(|value| match value {
        Value::Null => Ok(None),
        Value::Text(text) => Ok(Some(text)),
        Value::Unchanged => Err(Error::Stream("a new row is not whole".to_owned())),
    });
    Ok(Change::Insert(whole.collect::<Result<_, _>>()?))
}

/// What a changed row gets; what is large and unchanged is left as it is.
pub(super) fn updated(before: Key, row: Vec<Value>) -> Change {
    let (mut values, mut places) = (Vec::new(), Vec::new());
    for (place, value) in row.into_iter().enumerate() {
        match value {
            Value::Unchanged => continue,
            Value::Null => values.push(None),
            Value::Text(text) => values.push(Some(text)),
        }
        places.push(place);
    }
    Change::Update(before, values, places)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many small rows that become large ones would leave as one statement that no server takes.
    #[test]
    fn a_window_stays_small_whatever_its_rows_become() {
        let key = |text: &'static str| vec![Bytes::from_static(text.as_bytes())];
        let update = |length: usize| {
            let row = vec![Some(Bytes::from(vec![b'x'; length]))];
            Change::Update(key("1"), row, vec![0])
        };
        let mut window = Window::default();
        assert!(!window.supersede(&[key("1"), key("1")], &mut update(1)));
        let first = HashMap::from([(key("1"), vec![Some(Bytes::from_static(b"x"))])]);
        window.updates.insert(vec![0], first);
        window.bytes = 1;
        assert!(window.supersede(&[key("1"), key("1")], &mut update(1000)));
        assert_eq!(window.bytes, 1000);
        assert!(!window.supersede(&[key("1"), key("1")], &mut update(BYTES)));
        assert!(!window.supersede(&[key("1"), key("2")], &mut update(1)));
    }
}
