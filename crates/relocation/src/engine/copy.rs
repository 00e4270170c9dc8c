//! The first half: publication, slot, and the rows of a snapshot.
//!
//! The order matters. The publication comes before the slot, or what was decoded in between could not
//! be read; the snapshot comes after every transaction that was running when the slot came has ended:
//! so each transaction is in the snapshot or in the stream, and those in both are known by the snapshot.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, pin_mut};
use tokio::time::Instant;
use tokio_postgres::{Client, Transaction};

use super::{OTHERS, Relocation, drop_remains};
use crate::Error;
use crate::place::quoted;
use crate::table::Table;

impl Relocation {
    pub(super) async fn copy(&mut self) -> Result<(), Error> {
        let tenant = self.request.tenant;
        self.dirty = None;
        self.note_attempt().await?;
        drop_remains(&self.reader, tenant).await?;
        let clear = self.clear_sql();
        self.writer.batch_execute(&clear).await?;
        self.follow_from_here().await?;
        let session = self.request.source.session(tenant).await?;
        session
            .batch_execute("begin isolation level repeatable read read only; set local idle_in_transaction_session_timeout = 0")
            .await?;
        let sql = "select pg_current_snapshot()::text";
        let snapshot: String = session.query_one(sql, &[]).await?.try_get(0)?;
        let tx = self.writer.transaction().await?;
        tx.batch_execute("set local session_replication_role = replica; set local idle_in_transaction_session_timeout = 0").await?;
        let mut flow = Flow::new(self.request.options.rate);
        for table in &self.tables {
            copy_table(&session, &tx, table, tenant.number(), &mut flow).await?;
        }
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
        tracing::info!(%tenant, bytes = flow.bytes, "copied");
        Ok(())
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

    async fn follow_from_here(&self) -> Result<(), Error> {
        let (name, number) = (self.slot(), self.request.tenant.number());
        let filtered = |table: &Table| format!("{} where (tenant_id = {number})", table.source);
        let list: Vec<String> = self.tables.iter().map(filtered).collect();
        let what = if list.is_empty() {
            String::new()
        } else {
            format!(
                "for table {} with (publish = 'insert, update, delete, truncate')",
                list.join(", ")
            )
        };
        let publish = format!("create publication {} {what}", quoted(&name));
        self.reader.batch_execute(&publish).await?;
        // Waits for transactions of all databases that write.
        let bound = OTHERS.as_millis();
        self.reader
            .batch_execute(&format!("set statement_timeout = {bound}"))
            .await?;
        let sql = "select pg_create_logical_replication_slot($1, 'pgoutput')";
        let made = self.reader.execute(sql, &[&name]).await;
        self.reader
            .batch_execute("set statement_timeout = 0")
            .await?;
        made?;
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

/// How much has flowed, and how fast it may.
struct Flow {
    begun: Instant,
    bytes: u64,
    rate: Option<u64>,
}

impl Flow {
    fn new(rate: Option<u64>) -> Self {
        Self {
            begun: Instant::now(),
            bytes: 0,
            rate,
        }
    }

    async fn pass(&mut self, chunk: &Bytes) {
        self.bytes += u64::try_from(chunk.len()).unwrap_or(0);
        let Some(rate) = self.rate else { return };
        let due = Duration::from_millis(self.bytes.saturating_mul(1000) / rate.max(1));
        tokio::time::sleep(due.saturating_sub(self.begun.elapsed())).await;
    }
}

/// As text, because binary arrays hold numbers of types, which differ from database to database.
async fn copy_table(
    from: &Client,
    to: &Transaction<'_>,
    table: &Table,
    number: i64,
    flow: &mut Flow,
) -> Result<(), Error> {
    let columns = table.column_list();
    let out = format!(
        "copy (select {columns} from {} where tenant_id = {number}) to stdout",
        table.source
    );
    let rows = from.copy_out(&out).await?;
    let sink = to
        .copy_in(&format!("copy {} ({columns}) from stdin", table.target))
        .await?;
    pin_mut!(rows, sink);
    while let Some(chunk) = rows.next().await {
        let chunk = chunk?;
        flow.pass(&chunk).await;
        sink.send(chunk).await?;
    }
    sink.finish().await?;
    Ok(())
}
