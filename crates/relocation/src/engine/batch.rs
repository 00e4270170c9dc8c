//! What the stream says, up to the end of a transaction of the source, taken into one of the target.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::apply::{Applier, Change, Key, inserted, updated};
use crate::Error;
use crate::pgoutput::{Message, Relation, Value};
use crate::place::SILENCE;
use crate::snapshot::Snapshot;
use crate::stream::{Item, Stream};
use crate::table::Table;
use crate::verify::Dirty;

/// Changes after which a transaction of the target ends. One of the source is never split.
const CHANGES: u64 = 5000;

/// The prefix of our own notes in the log.
pub(super) const NOTE: &str = "waangu-relocation";

/// What one batch brought.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub(super) changes: u64,
    pub(super) notes: Vec<Bytes>,
    /// Commit, and the position behind it, of the last transaction.
    pub(super) end: Option<(u64, u64)>,
    /// The position up to which the server says that there is nothing more.
    pub(super) idle: u64,
}

/// What a stream has told of the tables.
pub(super) type Relations = HashMap<u32, (usize, Arc<Relation>)>;

/// A stream, and what has come and waits.
pub(super) struct Feed {
    pub(super) stream: Stream,
    pub(super) waiting: VecDeque<Item>,
}

/// Rows that a comparison can't speak for: those that change behind its snapshot.
pub(super) struct Watch {
    pub(super) snapshot: Snapshot,
    pub(super) touched: Dirty,
}

impl Feed {
    /// Whether something has come, or comes in time.
    pub(super) async fn fill(&mut self, wait: Duration) -> Result<bool, Error> {
        if self.waiting.is_empty()
            && let Ok(chunk) = timeout(wait, self.stream.next()).await
        {
            self.waiting.extend(chunk?);
        }
        Ok(!self.waiting.is_empty())
    }
}

/// The last position, if nothing else waits.
pub(super) fn only_positions(waiting: &mut VecDeque<Item>) -> Option<u64> {
    let mut last = None;
    for item in waiting.iter() {
        let Item::Position(position) = item else {
            return None;
        };
        last = Some(*position);
    }
    waiting.clear();
    last
}

/// What is taken into one transaction of the target.
pub(super) struct Batch<'a> {
    pub(super) applier: Applier<'a>,
    pub(super) tables: &'a [Table],
    pub(super) relations: &'a mut Relations,
    pub(super) watch: Option<&'a mut Watch>,
    /// Transactions applied since a snapshot was last known to see all of them.
    pub(super) recent: &'a mut Vec<u32>,
    pub(super) done: u64,
    pub(super) snapshot: Snapshot,
    /// In the middle of a transaction of the source.
    pub(super) inside: bool,
    pub(super) skip: bool,
    pub(super) touch: bool,
    pub(super) applied: Applied,
}

impl Batch<'_> {
    /// Takes what has come, up to the end of a transaction, and waits until it is applied.
    pub(super) async fn take_all(mut self, feed: &mut Feed) -> Result<Applied, Error> {
        if let Err(error) = self.take_rest(feed).await {
            return Err(self.applier.first_failure(error).await);
        }
        self.applier.finish().await?;
        Ok(self.applied)
    }

    async fn take_rest(&mut self, feed: &mut Feed) -> Result<(), Error> {
        loop {
            while !self.full()
                && let Some(item) = feed.waiting.pop_front()
            {
                self.take(item).await?;
            }
            if self.full() {
                return Ok(());
            }
            if self.inside {
                // A transaction comes whole: the server sends it when it has committed.
                if !feed.fill(SILENCE).await? {
                    return Err(Error::Database("the stream has fallen silent".to_owned()));
                }
            } else if let Some(chunk) = feed.stream.ready()? {
                feed.waiting.extend(chunk);
            } else {
                return Ok(());
            }
        }
    }

    fn full(&self) -> bool {
        !self.inside && (self.applied.changes >= CHANGES || !self.applied.notes.is_empty())
    }

    async fn take(&mut self, item: Item) -> Result<(), Error> {
        let message = match item {
            Item::Message(message) => message,
            Item::Position(position) => {
                if !self.inside {
                    self.applied.idle = position;
                }
                return Ok(());
            }
        };
        match message {
            Message::Begin { commit, xid } => {
                self.inside = true;
                self.skip = commit <= self.done || self.snapshot.sees(xid);
                // Also what another worker has applied: the comparison may not have seen it.
                let watch = self.watch.as_ref();
                self.touch = watch.is_some_and(|watch| !watch.snapshot.sees(xid));
                if !self.skip {
                    self.recent.push(xid);
                }
            }
            Message::Commit { commit, end } => {
                self.inside = false;
                self.applied.end = Some((commit, end));
            }
            Message::Relation(id, relation) => {
                let known = self.tables.iter().position(|table| {
                    table.schema == relation.schema && table.name == relation.table
                });
                let table = known.ok_or_else(|| {
                    Error::Stream(format!("table {} is not part of the move", relation.table))
                })?;
                self.relations.insert(id, (table, Arc::new(relation)));
            }
            Message::Note(prefix, text) if prefix == NOTE => self.applied.notes.push(text),
            Message::Truncate => {
                return Err(Error::Stream("tables were truncated".to_owned()));
            }
            Message::Note(..) | Message::Other => {}
            _ if self.skip && !self.touch => {}
            Message::Insert(id, new) => {
                let (table, relation) = self.relation(id)?;
                let keys = vec![self.key(table, &relation, &new)?];
                self.change(table, &relation, keys, inserted(new)?).await?;
            }
            Message::Update(id, old, new) => {
                let (table, relation) = self.relation(id)?;
                let after = self.key(table, &relation, &new)?;
                let before = match &old {
                    Some(old) => self.key(table, &relation, old)?,
                    None => after.clone(),
                };
                let keys = vec![before.clone(), after];
                self.change(table, &relation, keys, updated(before, new))
                    .await?;
            }
            Message::Delete(id, old) => {
                let (table, relation) = self.relation(id)?;
                let key = self.key(table, &relation, &old)?;
                let keys = vec![key.clone()];
                self.change(table, &relation, keys, Change::Delete(key))
                    .await?;
            }
        }
        Ok(())
    }

    async fn change(
        &mut self,
        table: usize,
        relation: &Relation,
        keys: Vec<Key>,
        change: Change,
    ) -> Result<(), Error> {
        if self.touch
            && let Some(watch) = &mut self.watch
        {
            for key in &keys {
                let parts = key.iter().map(|part| String::from_utf8_lossy(part));
                watch.touched.add(table, parts.map(Into::into).collect());
            }
        }
        if self.skip {
            return Ok(());
        }
        self.applied.changes += 1;
        self.applier
            .take(table, &relation.columns, keys, change)
            .await
    }

    fn relation(&self, id: u32) -> Result<(usize, Arc<Relation>), Error> {
        let found = self.relations.get(&id).cloned();
        found.ok_or_else(|| Error::Stream("a row of an unknown table".to_owned()))
    }

    /// A row's key, in the key's order.
    fn key(&self, table: usize, relation: &Relation, row: &[Value]) -> Result<Key, Error> {
        let missing = || Error::Stream(format!("a row of {} without its key", relation.table));
        let table = self.tables.get(table).ok_or_else(missing)?;
        let part = |column: &String| {
            let place = relation.columns.iter().position(|name| name == column);
            match place.and_then(|place| row.get(place)) {
                Some(Value::Text(text)) => Ok(text.clone()),
                _ => Err(missing()),
            }
        };
        table.key.iter().map(part).collect()
    }
}
