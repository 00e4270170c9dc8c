//! Following the changes: what has come is applied together, with the position, in one transaction.
//!
//! Killed in between, the same changes come again and are left out by their position. One transaction of
//! the target takes as many of the source as have come meanwhile: so the target is caught up with the
//! faster the further it is behind.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::apply::Applier;
use super::batch::{Applied, Batch, Feed, NOTE, Relations, only_positions};
use super::{OTHERS, Relocation};
use crate::Error;
use crate::snapshot::Snapshot;
use crate::stream::Stream;

/// How often the source is asked what the move holds back.
const LOOK: Duration = Duration::from_millis(500);

/// Longest time given to catching up before a try to freeze.
const CATCH_UP: Duration = Duration::from_mins(10);

/// Writes a note into the log that no other is like: the position is the log's own, so that a note of an
/// earlier worker, which comes again with the log, is not taken for ours.
const WRITE_NOTE: &str = "
    with note as materialized (
        select $2 || ' ' || pg_current_wal_insert_lsn()::text as text
    )
    select text, pg_logical_emit_message(true, $1::text, text) from note";

/// For the target's transaction that applies: parameters are few rows, wherever the plan thinks that
/// they are many, and a table of many tenants must not be read whole for them.
const APPLYING: &str = "set local session_replication_role = replica; set constraints all deferred;
    set local enable_hashjoin = off; set local enable_mergejoin = off; set local enable_seqscan = off;
    set local jit = off";

/// A stream that is being read.
pub(super) struct Reading {
    feed: Feed,
    relations: Relations,
    position: u64,
}

impl Relocation {
    /// Follows until a note that is written now has come through quickly.
    pub(super) async fn catch_up(&mut self) -> Result<(), Error> {
        let begun = Instant::now();
        let near = self.request.options.max_pause / 4;
        while self.drain(CATCH_UP).await? > near {
            if begun.elapsed() > CATCH_UP {
                return Err(Error::Pause(self.request.options.max_pause.as_millis()));
            }
        }
        Ok(())
    }

    /// Follows for a while.
    pub(super) async fn follow_for(&mut self, time: Duration) -> Result<(), Error> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.follow(left).await?;
        }
    }

    /// Applies all that was committed before now; says how long that took.
    pub(super) async fn drain(&mut self, most: Duration) -> Result<Duration, Error> {
        let begun = Instant::now();
        let noting = match &self.noting {
            Some(noting) => noting.clone(),
            None => self.reader.prepare(WRITE_NOTE).await?,
        };
        let row = self
            .reader
            .query_one(&noting, &[&NOTE, &self.attempt])
            .await?;
        let note = Bytes::from(row.try_get::<_, String>(0)?);
        self.noting = Some(noting);
        while !self.follow(LOOK).await?.notes.contains(&note) {
            if begun.elapsed() > most {
                return Err(Error::Database("the log was not read in time".to_owned()));
            }
        }
        Ok(begun.elapsed())
    }

    /// Applies what has come; waits a while if there is nothing. If this is dropped half-way, the next
    /// call reads again from where the target stands.
    pub(super) async fn follow(&mut self, wait: Duration) -> Result<Applied, Error> {
        let mut reading = match self.reading.take() {
            Some(reading) => reading,
            None => self.read().await?,
        };
        let mut applied = Applied::default();
        if reading.feed.fill(wait).await? {
            applied = self.apply_batch(&mut reading).await?;
            let (_, end) = applied.end.unwrap_or_default();
            reading.position = reading.position.max(end).max(applied.idle);
            reading.feed.stream.confirm(reading.position);
        }
        if self.looked.is_none_or(|looked| looked.elapsed() > LOOK) {
            self.check_held(reading.position).await?;
            self.looked = Some(Instant::now());
        }
        self.reading = Some(reading);
        Ok(applied)
    }

    /// Opens the stream. Whoever reads it still has lost the claim to us.
    async fn read(&self) -> Result<Reading, Error> {
        let begun = Instant::now();
        let slot = self.slot();
        let side = &self.request.source;
        let database = side.placement.database(self.request.tenant);
        loop {
            match Stream::open(&side.cell, &database, &slot).await {
                Err(Error::Busy) if begun.elapsed() < OTHERS => {
                    let sql = "select pg_terminate_backend(active_pid) from pg_replication_slots
                                where slot_name = $1 and active_pid is not null";
                    self.reader.execute(sql, &[&slot]).await?;
                    sleep(Duration::from_millis(20)).await;
                }
                opened => {
                    let feed = Feed {
                        stream: opened?,
                        waiting: VecDeque::new(),
                    };
                    return Ok(Reading {
                        feed,
                        relations: Relations::new(),
                        position: 0,
                    });
                }
            }
        }
    }

    /// Asks what the move holds back, and how far it is behind.
    async fn check_held(&self, position: u64) -> Result<(), Error> {
        let sql = "select wal_status <> 'lost'
                        , pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint
                        , greatest(pg_current_wal_lsn() - ('0/0'::pg_lsn + $2::text::numeric), 0)::bigint
                     from pg_replication_slots where slot_name = $1";
        let row = self
            .reader
            .query_opt(sql, &[&self.slot(), &position.to_string()])
            .await?;
        let Some(row) = row else {
            return Err(Error::Database("the slot has gone".to_owned()));
        };
        let bound = self.request.options.max_held;
        match row.try_get(1)? {
            Some(held) if held > bound => return Err(Error::Held { held, bound }),
            Some(_) if row.try_get(0)? => {}
            _ => {
                return Err(Error::Database(
                    "the server has given up the slot".to_owned(),
                ));
            }
        }
        if position > 0 {
            let lag = u64::try_from(row.try_get::<_, i64>(2)?).unwrap_or(0);
            self.teller.tell(|progress| progress.lag = lag);
        }
        Ok(())
    }

    async fn apply_batch(&mut self, reading: &mut Reading) -> Result<Applied, Error> {
        let feed = &mut reading.feed;
        if let Some(idle) = only_positions(&mut feed.waiting) {
            return Ok(Applied {
                idle,
                ..Applied::default()
            });
        }
        let number = self.request.tenant.number();
        let tx = self.writer.transaction().await?;
        tx.batch_execute(APPLYING).await?;
        let sql = "select (lsn - '0/0')::text, snapshot from waangu_relocation.progress
                    where tenant_id = $1 and attempt = $2 and snapshot is not null
                      for update";
        let row = tx.query_opt(sql, &[&number, &self.attempt]).await?;
        let row = row.ok_or(Error::Busy)?;
        let done = row.try_get::<_, &str>(0)?.parse::<u64>();
        let done = done.map_err(|error| Error::Stream(error.to_string()))?;
        let batch = Batch {
            applier: Applier::new(&tx, &self.tables, &mut self.prepared),
            tables: &self.tables,
            relations: &mut reading.relations,
            watch: self.watch.as_mut(),
            recent: &mut self.recent,
            done,
            snapshot: Snapshot::parse(row.try_get(1)?)?,
            inside: false,
            skip: false,
            touch: false,
            applied: Applied::default(),
        };
        let applied = batch.take_all(feed).await?;
        // A source that was killed sends again what it had been told to forget: the position stays.
        if let Some((commit, _)) = applied.end
            && commit > done
        {
            let sql =
                "update waangu_relocation.progress set lsn = '0/0'::pg_lsn + $2::text::numeric
                        where tenant_id = $1";
            tx.execute(sql, &[&number, &commit.to_string()]).await?;
        }
        tx.commit().await?;
        self.teller
            .tell(|progress| progress.changes += applied.changes);
        Ok(applied)
    }
}
