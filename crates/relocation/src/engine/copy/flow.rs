//! Rows on their way from a snapshot of the source into the target's tables, no faster than they may.

use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _};
use tokio::time::Instant;
use tokio_postgres::{Client, CopyInSink, Transaction};

use super::super::Options;
use crate::fetch::Fetch;
use crate::pace::{self, Pace, STRETCH};
use crate::progress::Teller;
use crate::table::Table;
use crate::{Error, binary};

/// Bytes sent on at once.
const CHUNK: usize = 128 << 10;

/// How long rows flow at a stretch that come as the server writes them: it goes on meanwhile as far as what
/// lies between us takes, some megabytes.
const POURED: Duration = Duration::from_millis(200);

/// How much has flowed, and how fast it may.
pub(super) struct Flow {
    begun: Instant,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// Bytes in a second that the operator allows.
    rate: Option<u64>,
    most: Duration,
    pace: Pace,
    stream: pace::Stream,
    /// To the source and back.
    way: Duration,
    teller: Teller,
}

impl Flow {
    /// Begins, with nothing; it takes so long to the source and back.
    pub(super) fn begin(options: &Options, way: Duration, pace: Pace, teller: Teller) -> Self {
        Self {
            begun: Instant::now(),
            rows: 0,
            bytes: 0,
            rate: options.rate,
            most: options.max_copy,
            stream: pace.stream(STRETCH),
            pace,
            way,
            teller,
        }
    }

    /// Sends on what the chunk holds, so many rows, as soon as it may; says for how long it rested before.
    async fn send(
        &mut self,
        sink: &mut Pin<&mut CopyInSink<Bytes>>,
        chunk: &mut BytesMut,
        rows: usize,
    ) -> Result<Duration, Error> {
        let chunk = chunk.split().freeze();
        self.rows += u64::try_from(rows).unwrap_or(0);
        self.bytes += u64::try_from(chunk.len()).unwrap_or(0);
        self.teller.copied(self.rows, self.bytes);
        self.pace
            .hurry(self.begun.elapsed().div_duration_f64(self.most));
        let due = self.rate.map(|rate| {
            self.begun + Duration::from_millis(self.bytes.saturating_mul(1000) / rate.max(1))
        });
        let rested = self.stream.pass(due).await;
        sink.send(chunk).await?;
        Ok(rested)
    }
}

/// In binary if that means the same there: arrays of a module's own types hold their numbers, which
/// differ from database to database. Frozen rows are for a table that was emptied in this transaction.
pub(super) async fn copy_table(
    from: &Client,
    to: &Transaction<'_>,
    table: &Table,
    number: i64,
    frozen: bool,
    flow: &mut Flow,
) -> Result<(), Error> {
    flow.teller.table(&table.source);
    let columns = table.column_list();
    let rows = format!(
        "select {columns} from {} where tenant_id = {number}",
        table.source
    );
    let format = if table.binary { "binary" } else { "text" };
    let into = format!(
        "copy {} ({columns}) from stdin (format {format}, freeze {frozen})",
        table.target
    );
    let mut sink = pin!(to.copy_in(&into).await?);
    if table.binary {
        fetch_rows(from, &rows, sink.as_mut(), flow).await?;
    } else {
        pour_rows(from, &rows, sink.as_mut(), flow).await?;
    }
    sink.finish().await?;
    Ok(())
}

/// As many rows at a time as the source finds in about a stretch. The target has them soon after, and both
/// have little to do until the pace allows more.
async fn fetch_rows(
    from: &Client,
    rows: &str,
    mut sink: Pin<&mut CopyInSink<Bytes>>,
    flow: &mut Flow,
) -> Result<(), Error> {
    let declare = format!("close all; declare rows no scroll cursor for {rows}");
    from.batch_execute(&declare).await?;
    let mut fetch = Fetch::begin(from, "rows", flow.way, STRETCH).await?;
    flow.stream = flow.pace.stream(STRETCH);
    let mut chunk = BytesMut::new();
    binary::begin(&mut chunk);
    let mut is_over = false;
    while !is_over {
        let (begun, mut rested) = (Instant::now(), Duration::ZERO);
        let (mut count, mut bytes, mut passed) = (0, 0, 0);
        let mut step = pin!(fetch.rows().await?);
        while let Some(row) = step.try_next().await? {
            binary::add(&mut chunk, &row)?;
            count += 1;
            if chunk.len() >= CHUNK {
                bytes += chunk.len();
                rested += flow.send(&mut sink, &mut chunk, count - passed).await?;
                passed = count;
            }
        }
        bytes += chunk.len();
        let took = begun.elapsed().saturating_sub(rested);
        is_over = fetch.is_over(count, bytes, took).await?;
        if is_over {
            binary::end(&mut chunk);
        }
        flow.send(&mut sink, &mut chunk, count - passed).await?;
    }
    Ok(())
}

/// As the server writes them, with what lies between us and it.
async fn pour_rows(
    from: &Client,
    rows: &str,
    mut sink: Pin<&mut CopyInSink<Bytes>>,
    flow: &mut Flow,
) -> Result<(), Error> {
    let rows = from.copy_out(&format!("copy ({rows}) to stdout")).await?;
    flow.stream = flow.pace.stream(POURED);
    let mut rows = pin!(rows);
    let (mut chunk, mut count) = (BytesMut::with_capacity(CHUNK), 0);
    while let Some(row) = rows.next().await {
        chunk.extend_from_slice(&row?);
        count += 1;
        if chunk.len() >= CHUNK {
            flow.send(&mut sink, &mut chunk, count).await?;
            count = 0;
            chunk.reserve(CHUNK);
        }
    }
    flow.send(&mut sink, &mut chunk, count).await?;
    Ok(())
}
