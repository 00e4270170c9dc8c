//! Applying the changes: peek at the slot, apply with the position in one transaction, advance.
//!
//! Killed in between, the same changes are seen again and left out by their position. A change that
//! does not hit exactly one row is an error: the copy would not be what it is taken for.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, pin_mut};
use tokio::time::Instant;
use tokio_postgres::types::{Format, IsNull, ToSql, Type};
use tokio_postgres::{Statement, Transaction};

use super::Relocation;
use crate::Error;
use crate::pgoutput::{Message, Relation, Value, decode};
use crate::place::quoted;
use crate::snapshot::Snapshot;
use crate::table::Table;
use crate::verify::Dirty;

/// Changes asked for at once; a transaction is never split.
const CHANGES: i32 = 4000;

/// Bytes of the log that may be read again at each look.
const RE_READ: i64 = 4 << 20;

/// Longest time given to catching up before a try to freeze.
const CATCH_UP: Duration = Duration::from_mins(10);

/// The prefix of our own notes in the log.
pub(super) const NOTE: &str = "waangu-relocation";

/// What one look at the slot brought.
#[derive(Debug, Default)]
pub(super) struct Polled {
    pub(super) changes: usize,
    pub(super) notes: Vec<Bytes>,
    end: Option<(u64, u64)>,
}

impl Relocation {
    /// Follows until little is left.
    pub(super) async fn catch_up(&mut self) -> Result<(), Error> {
        let begun = Instant::now();
        loop {
            let looked = Instant::now();
            self.poll().await?;
            if self.check_held().await? > RE_READ {
                self.shorten().await?;
            }
            let near = self.request.options.max_pause / 4;
            if looked.elapsed() < near {
                return Ok(());
            }
            if begun.elapsed() > CATCH_UP {
                return Err(Error::Pause(self.request.options.max_pause.as_millis()));
            }
        }
    }

    async fn check_held(&self) -> Result<i64, Error> {
        let sql = "select wal_status <> 'lost'
                        , pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint
                     from pg_replication_slots where slot_name = $1";
        let row = self.reader.query_one(sql, &[&self.slot()]).await?;
        let held: Option<i64> = row.try_get(1)?;
        match held {
            Some(held) if held <= self.request.options.max_held && row.try_get(0)? => Ok(held),
            held => Err(Error::Held(held.unwrap_or(i64::MAX))),
        }
    }

    /// Each look reads the log again from where the slot could restart, which moves only behind a
    /// record that PostgreSQL writes every 15 seconds, or for a new slot.
    async fn shorten(&self) -> Result<(), Error> {
        self.reader
            .batch_execute("set statement_timeout = '300ms'")
            .await?;
        let name = format!("{}_t", self.slot());
        let sql = "select pg_drop_replication_slot(slot_name)
                     from pg_create_logical_replication_slot($1, 'pgoutput', true)";
        // Late because of somebody's long transaction: another look will do.
        let made = self.reader.execute(sql, &[&name]).await;
        self.reader
            .batch_execute("set statement_timeout = 0")
            .await?;
        if let Err(error) = made {
            tracing::debug!("not shortened: {error}");
        }
        Ok(())
    }

    /// Applies what is there.
    pub(super) async fn poll(&mut self) -> Result<Polled, Error> {
        let (number, slot) = (self.request.tenant.number(), self.slot());
        let tx = self.writer.transaction().await?;
        tx.batch_execute("set local session_replication_role = replica")
            .await?;
        let sql = "select (lsn - '0/0')::text, snapshot from waangu_relocation.progress
                    where tenant_id = $1 and attempt = $2 and snapshot is not null
                      for update";
        let row = tx.query_opt(sql, &[&number, &self.attempt]).await?;
        let row = row.ok_or(Error::Busy)?;
        let done = row.try_get::<_, &str>(0)?.parse::<u64>();
        let mut applier = Applier {
            tx: &tx,
            tables: &self.tables,
            statements: &mut self.statements,
            dirty: self.dirty.as_mut(),
            relations: HashMap::new(),
            done: done.map_err(|error| Error::Stream(error.to_string()))?,
            snapshot: Snapshot::parse(row.try_get(1)?)?,
            skip: false,
            polled: Polled::default(),
        };
        let sql = "select data from pg_logical_slot_peek_binary_changes($1, null, $2
                        , 'proto_version', '1', 'publication_names', $3, 'messages', 'true')";
        let params: [&(dyn ToSql + Sync); 3] = [&slot, &CHANGES, &slot];
        let rows = self.reader.query_raw(sql, params).await?;
        pin_mut!(rows);
        while let Some(row) = rows.next().await {
            let data: &[u8] = &row?.try_get::<_, Vec<u8>>(0)?;
            applier.take(decode(Bytes::copy_from_slice(data))?).await?;
        }
        let polled = applier.polled;
        let Some((commit, end)) = polled.end else {
            tx.rollback().await?;
            return Ok(polled);
        };
        let sql = "update waangu_relocation.progress set lsn = '0/0'::pg_lsn + $2::text::numeric
                    where tenant_id = $1";
        tx.execute(sql, &[&number, &commit.to_string()]).await?;
        tx.commit().await?;
        let sql = "select pg_replication_slot_advance($1, '0/0'::pg_lsn + $2::text::numeric)";
        self.reader.execute(sql, &[&slot, &end.to_string()]).await?;
        Ok(polled)
    }
}

/// Applies one look's messages in the target's transaction.
struct Applier<'a> {
    tx: &'a Transaction<'a>,
    tables: &'a [Table],
    statements: &'a mut HashMap<String, Statement>,
    dirty: Option<&'a mut Dirty>,
    relations: HashMap<u32, (usize, Relation)>,
    done: u64,
    snapshot: Snapshot,
    skip: bool,
    polled: Polled,
}

impl Applier<'_> {
    async fn take(&mut self, message: Message) -> Result<(), Error> {
        match message {
            Message::Begin { commit, xid } => {
                self.skip = commit <= self.done || self.snapshot.sees(xid);
            }
            Message::Commit { commit, end } => self.polled.end = Some((commit, end)),
            Message::Relation(id, relation) => {
                let known = self.tables.iter().position(|table| {
                    table.schema == relation.schema && table.name == relation.table
                });
                let table = known.ok_or_else(|| {
                    Error::Stream(format!("table {} is not part of the move", relation.table))
                })?;
                self.relations.insert(id, (table, relation));
            }
            Message::Note(prefix, text) if prefix == NOTE => self.polled.notes.push(text),
            Message::Truncate => {
                return Err(Error::Stream("tables were truncated".to_owned()));
            }
            Message::Note(..) | Message::Other => {}
            _ if self.skip => {}
            change => self.change(change).await?,
        }
        Ok(())
    }

    async fn change(&mut self, change: Message) -> Result<(), Error> {
        let id = match &change {
            Message::Insert(id, _) | Message::Update(id, ..) | Message::Delete(id, _) => *id,
            _ => return Ok(()),
        };
        let found = self.relations.get(&id);
        let (index, relation) = found
            .cloned()
            .ok_or_else(|| Error::Stream("a row of an unknown table".to_owned()))?;
        let table = self
            .tables
            .get(index)
            .ok_or_else(|| Error::Stream("a row of an unknown table".to_owned()))?;
        self.polled.changes += 1;
        let columns = &relation.columns;
        match change {
            Message::Insert(_, new) => {
                self.touch(index, &key(table, columns, &new)?);
                self.insert(table, columns, new).await
            }
            Message::Update(_, old, new) => {
                let after = key(table, columns, &new)?;
                let before = match &old {
                    Some(old) => key(table, columns, old)?,
                    None => after.clone(),
                };
                self.touch(index, &before);
                self.touch(index, &after);
                self.update(table, columns, new, before).await
            }
            Message::Delete(_, old) => {
                let old = key(table, columns, &old)?;
                self.touch(index, &old);
                let sql = format!("delete from {} where {}", table.target, matching(table, 0));
                self.run(table, sql, old.into_iter().map(Some)).await
            }
            _ => Ok(()),
        }
    }

    async fn insert(
        &mut self,
        table: &Table,
        columns: &[String],
        new: Vec<Value>,
    ) -> Result<(), Error> {
        let places: Vec<String> = (1..=new.len()).map(|place| format!("${place}")).collect();
        let names = crate::table::list(columns.iter());
        let sql = format!(
            "insert into {} ({names}) values ({})",
            table.target,
            places.join(", ")
        );
        let mut values = Vec::new();
        for value in new {
            values.push(match value {
                Value::Null => None,
                Value::Text(text) => Some(text),
                Value::Unchanged => return Err(Error::Stream("a new row is not whole".to_owned())),
            });
        }
        self.run(table, sql, values.into_iter()).await
    }

    async fn update(
        &mut self,
        table: &Table,
        columns: &[String],
        new: Vec<Value>,
        before: Vec<Bytes>,
    ) -> Result<(), Error> {
        let (mut sets, mut values) = (Vec::new(), Vec::new());
        for (column, value) in columns.iter().zip(new) {
            match value {
                Value::Unchanged => continue,
                Value::Null => values.push(None),
                Value::Text(text) => values.push(Some(text)),
            }
            sets.push(format!("{} = ${}", quoted(column), values.len()));
        }
        let matching = matching(table, values.len());
        let sql = format!(
            "update {} set {} where {matching}",
            table.target,
            sets.join(", ")
        );
        values.extend(before.into_iter().map(Some));
        self.run(table, sql, values.into_iter()).await
    }

    async fn run(
        &mut self,
        table: &Table,
        sql: String,
        values: impl Iterator<Item = Option<Bytes>>,
    ) -> Result<(), Error> {
        let known = self.statements.get(&sql).cloned();
        let statement = if let Some(known) = known {
            known
        } else {
            let made = self.tx.prepare(&sql).await?;
            self.statements.insert(sql, made.clone());
            made
        };
        let values: Vec<Raw> = values.map(Raw).collect();
        let params: Vec<&(dyn ToSql + Sync)> = values
            .iter()
            .map(|value| -> &(dyn ToSql + Sync) { value })
            .collect();
        match self.tx.execute(&statement, &params).await? {
            1 => Ok(()),
            rows => Err(Error::Stream(format!(
                "a change of {} hit {rows} rows",
                table.source
            ))),
        }
    }

    fn touch(&mut self, table: usize, key: &[Bytes]) {
        if let Some(dirty) = &mut self.dirty {
            dirty.add(
                table,
                key.iter()
                    .map(|part| String::from_utf8_lossy(part).into_owned())
                    .collect(),
            );
        }
    }
}

/// `key = $n and …`, counted from behind `used`.
fn matching(table: &Table, used: usize) -> String {
    let parts = table.key.iter().enumerate();
    let parts: Vec<String> = parts
        .map(|(index, column)| format!("{} = ${}", quoted(column), used + index + 1))
        .collect();
    parts.join(" and ")
}

/// A row's key, in the key's order.
fn key(table: &Table, columns: &[String], row: &[Value]) -> Result<Vec<Bytes>, Error> {
    let part = |column: &String| {
        let place = columns.iter().position(|name| name == column);
        match place.and_then(|place| row.get(place)) {
            Some(Value::Text(text)) => Ok(text.clone()),
            _ => Err(Error::Stream(format!(
                "a row of {} without its key",
                table.source
            ))),
        }
    };
    table.key.iter().map(part).collect()
}

/// A value as its type's output function wrote it, for the same type's input function.
#[derive(Debug)]
struct Raw(Option<Bytes>);

impl ToSql for Raw {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        let Some(text) = &self.0 else {
            return Ok(IsNull::Yes);
        };
        out.extend_from_slice(text);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}
