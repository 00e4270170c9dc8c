//! The first half: publication, slot, and the rows of a snapshot.
//!
//! The order matters. The publication comes before the slot, or what was decoded in between could not
//! be read; the snapshot comes after every transaction that was running when the slot came has ended:
//! so each transaction is in the snapshot or in the stream, and those in both are known by the snapshot.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_postgres::{Client, Transaction};
use waangu_kernel::placement::Tier;

use self::flow::{Flow, copy_table};
use super::compare::SNAPSHOT;
use super::reverse::publication;
use super::{OTHERS, Relocation, drop_remains};
use crate::Error;
use crate::fetch;
use crate::progress::Phase;
use crate::stop::AtWork;
use crate::table::Table;

mod flow;

/// How old the snapshot of a copy should not become.
const YOUNG: Duration = Duration::from_mins(3);

/// For the transaction of the copy, in a session that else looks rows up. What is made anew takes one
/// processor from others, not several. What it writes is on its way to the disk at once (by the megabyte, where
/// the server's system can): else the first commits behind the freeze would wait for all of it.
const LOADING: &str = "set local session_replication_role = replica;
    set local idle_in_transaction_session_timeout = 0; set local max_parallel_maintenance_workers = 0;
    set local enable_hashjoin = on; set local enable_mergejoin = on; set local enable_seqscan = on;
    select set_config(name, least(max_val::integer, 128)::text, true)
      from pg_settings where name = 'backend_flush_after'";

impl Relocation {
    pub(super) async fn copy(&mut self) -> Result<(), Error> {
        let tenant = self.request.tenant;
        self.teller.phase(Phase::Prepare);
        self.watch = None;
        self.reading = None;
        self.recent.clear();
        self.note_attempt().await?;
        self.laps.end("note");
        self.forget_kept_rows().await?;
        for end in [&self.reader, &self.writer] {
            drop_remains(end, tenant, None).await?;
        }
        // Elsewhere the copy empties the tables in its own transaction.
        if self.request.target.placement.tier == Tier::Shared {
            let clear = self.clear_sql();
            self.writer.batch_execute(&clear).await?;
        }
        self.laps.end("clear");
        self.follow_from_here().await?;
        self.laps.end("older writers");
        let bound = self.request.options.max_copy;
        let copied = timeout(bound, self.copy_snapshot()).await;
        let copied = copied.map_err(|_late| Error::Old(bound.as_secs()))??;
        tracing::info!(%tenant, rows = copied.rows, bytes = copied.bytes, "copied");
        self.tell_laps("copied");
        Ok(())
    }

    async fn copy_snapshot(&mut self) -> Result<Flow, Error> {
        let tenant = self.request.tenant;
        let session = self.request.source.session(tenant).await?;
        let mut at_work = AtWork::new([&session]);
        session.batch_execute(SNAPSHOT).await?;
        let sql = "select pg_current_snapshot()::text";
        let snapshot: String = session.query_one(sql, &[]).await?.try_get(0)?;
        let expected = expected_rows(&session, &self.tables, tenant.number()).await?;
        self.teller.phase(Phase::Copy);
        self.laps.end("snapshot");
        self.teller
            .tell(|progress| progress.rows_expected = expected);
        let tx = self.writer.transaction().await?;
        tx.batch_execute(LOADING).await?;
        // A place that nobody else has may be without keys until its rows are there.
        let own = self.request.target.placement.tier != Tier::Shared;
        let stripped = if own {
            empty_and_strip(&tx, &self.tables).await?
        } else {
            Vec::new()
        };
        self.pace.begin(YOUNG);
        let options = &self.request.options;
        let way = fetch::way(&session).await?;
        let mut flow = Flow::begin(options, way, self.pace.clone(), self.teller.clone());
        for table in self.tables.iter() {
            copy_table(&session, &tx, table, tenant.number(), own, &mut flow).await?;
        }
        // Keys take long, and nobody reads in this snapshot any more.
        drop(session);
        self.laps.end("rows");
        self.laps.add("of these at rest", self.pace.end());
        for statement in &stripped {
            let made = tx.batch_execute(statement).await;
            made.map_err(|error| broken_key(statement, error))?;
        }
        self.laps.end("keys and indexes");
        // Nothing if another worker has begun anew meanwhile.
        let sql = "update waangu_relocation.progress set snapshot = $3, lsn = '0/0'
                    where tenant_id = $1 and attempt = $2";
        let noted = tx
            .execute(sql, &[&tenant.number(), &self.attempt, &snapshot])
            .await?;
        if noted != 1 {
            return Err(Error::Busy);
        }
        tx.commit().await?;
        at_work.is_done();
        self.laps.end("commit");
        Ok(flow)
    }

    /// A new name, before anything else: what stands under another one counts no more.
    async fn note_attempt(&mut self) -> Result<(), Error> {
        let sql = "insert into waangu_relocation.progress (tenant_id, attempt, lsn)
                   values ($1, substr(md5(random()::text || clock_timestamp()::text), 1, 12), '0/0')
                   on conflict (tenant_id) do update
                   set attempt = excluded.attempt
                     , snapshot = null
                     , lsn = '0/0'
                   returning attempt";
        let number = self.request.tenant.number();
        self.attempt = self.writer.query_one(sql, &[&number]).await?.try_get(0)?;
        Ok(())
    }

    async fn follow_from_here(&mut self) -> Result<(), Error> {
        let name = self.slot();
        let tables = self.tables.iter().map(|table| table.source.as_str());
        let publish = publication(&name, tables, self.request.tenant);
        self.reader.batch_execute(&publish).await?;
        self.laps.end("publication");
        // Waits for transactions of all databases that write, by locks of theirs.
        let bound = OTHERS.as_millis();
        self.reader
            .batch_execute(&format!(
                "set statement_timeout = {bound}; set lock_timeout = {bound}"
            ))
            .await?;
        let sql = "select pg_create_logical_replication_slot($1, 'pgoutput')";
        let made = self.reader.execute(sql, &[&name]).await;
        self.reader
            .batch_execute("set statement_timeout = 0; set lock_timeout = '10s'")
            .await?;
        made?;
        self.laps.end("slot");
        // One that had written its commit before the slot came may still be unseen by a snapshot.
        let sql = "select pg_snapshot_xmax(pg_current_snapshot())::text";
        let newest: String = self.reader.query_one(sql, &[]).await?.try_get(0)?;
        let sql = "select pg_snapshot_xmin(pg_current_snapshot()) >= $1::text::xid8";
        let begun = Instant::now();
        while !self
            .reader
            .query_one(sql, &[&newest])
            .await?
            .try_get::<_, bool>(0)?
        {
            if begun.elapsed() > OTHERS {
                return Err(Error::Database(
                    "a transaction has been open too long".to_owned(),
                ));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

/// The planner's guess, because counting would read everything twice.
async fn expected_rows(client: &Client, tables: &[Table], number: i64) -> Result<u64, Error> {
    let mut all: u64 = 0;
    for table in tables {
        let sql = format!(
            "explain select from {} where tenant_id = {number}",
            table.source
        );
        // The first line tells of the whole plan: `… (cost=… rows=… width=…)`.
        let plan = client.query(&sql, &[]).await?;
        let line = plan.first().map_or(Ok(""), |row| row.try_get(0))?;
        let rows = line.split("rows=").nth(1).and_then(|rest| {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u64>().ok()
        });
        all = all.saturating_add(rows.unwrap_or(0));
    }
    Ok(all)
}

/// What is taken off a table before its rows come and put back behind them, in this order: rows that come
/// one by one into an index in no order of its own take it twice as long. What others depend on (a foreign key
/// that stays, too), what the replica identity or a clustering names, what somebody has commented, and what
/// its definition does not tell whole, stays.
const STRIPPED: &str = "
    with index as (
        select i.indexrelid, i.indrelid, c.oid as con
          from pg_index i
          join pg_class x on x.oid = i.indexrelid
          left join pg_constraint c on c.conindid = i.indexrelid and c.contype in ('p', 'u', 'x')
         where i.indrelid = any ($1::text[]::regclass[])
           and not i.indisclustered and not i.indisreplident
           and x.reltablespace = 0 and (c.oid is null or x.reloptions is null)
           and not exists (select from pg_attribute a
                            where a.attrelid = x.oid and coalesce(a.attstattarget, -1) <> -1)
           and not exists (select from pg_description d where d.objoid in (i.indexrelid, c.oid))
           and not exists (select from pg_depend d
                             left join pg_constraint f
                               on d.classid = 'pg_constraint'::regclass and f.oid = d.objid and f.contype = 'f'
                              and f.conrelid = any ($1::text[]::regclass[])
                              and not exists (select from pg_description e where e.objoid = f.oid)
                            where d.deptype = 'n' and f.oid is null
                              and (d.refclassid = 'pg_class'::regclass and d.refobjid = i.indexrelid
                                   or d.refclassid = 'pg_constraint'::regclass and d.refobjid = c.oid))
    )
    select format('alter table %s drop constraint %I', c.conrelid::regclass, c.conname)
         , format('alter table %s add constraint %I %s', c.conrelid::regclass, c.conname
                , pg_get_constraintdef(c.oid))
         , 3 as rank
      from pg_constraint c
     where c.conrelid = any ($1::text[]::regclass[]) and c.contype = 'f'
       and not exists (select from pg_description d where d.objoid = c.oid)
    union all
    select format('alter table %s drop constraint %I', c.conrelid::regclass, c.conname)
         , format('alter table %s add constraint %I %s', c.conrelid::regclass, c.conname
                , pg_get_constraintdef(c.oid))
         , 1
      from index i
      join pg_constraint c on c.oid = i.con
    union all
    select format('drop index %s', i.indexrelid::regclass), pg_get_indexdef(i.indexrelid), 2
      from index i
     where i.con is null
     order by rank desc";

/// Empties the tables, so that their new rows need no second look, and takes away their keys and indexes;
/// gives the statements that make them again. All in the transaction of the copy: the tables have them
/// all, or all of it is undone.
async fn empty_and_strip(tx: &Transaction<'_>, tables: &[Table]) -> Result<Vec<String>, Error> {
    let names: Vec<&str> = tables.iter().map(|table| table.target.as_str()).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    tx.batch_execute(&format!("truncate {}", names.join(", ")))
        .await?;
    let mut again = Vec::new();
    for row in tx.query(STRIPPED, &[&names]).await? {
        tx.batch_execute(row.try_get(0)?).await?;
        again.push(row.try_get(1)?);
    }
    again.reverse();
    Ok(again)
}

/// Rows that break a key of their own do so at every try.
fn broken_key(statement: &str, error: tokio_postgres::Error) -> Error {
    match Error::from(error) {
        Error::Stream(what) => Error::Mismatch {
            table: statement.to_owned(),
            what,
        },
        other => other,
    }
}
