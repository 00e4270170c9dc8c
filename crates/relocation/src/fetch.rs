//! Reading through a cursor in small steps, so that a server works for us in short stretches.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::{Client, RowStream, Statement};

use crate::Error;

/// Rows that are fetched at once, at first and at most.
const FIRST: usize = 200;
const MOST: usize = 32_000;

/// Bytes that should come at once, at most.
const BYTES: usize = 1 << 20;

/// A step is no shorter than so many ways to the server and back, or one would mostly be on the way; and no
/// longer than this.
const WAYS: u32 = 4;
const LONGEST: Duration = Duration::from_millis(200);

/// A cursor that is read, as many rows at a time as take about a stretch: they may be small or large, and
/// the server near or far.
pub(crate) struct Fetch<'a> {
    client: &'a Client,
    cursor: &'static str,
    wanted: usize,
    statement: Statement,
    /// How long a step should take.
    step: Duration,
}

/// How long it takes to the server and back.
pub(crate) async fn way(client: &Client) -> Result<Duration, Error> {
    let mut least = LONGEST;
    for _ in 0..3 {
        let begun = Instant::now();
        client.batch_execute("").await?;
        least = least.min(begun.elapsed());
    }
    Ok(least)
}

impl<'a> Fetch<'a> {
    /// Of a cursor that is open in this session, which is so far away.
    pub(crate) async fn begin(
        client: &'a Client,
        cursor: &'static str,
        way: Duration,
        stretch: Duration,
    ) -> Result<Self, Error> {
        Ok(Self {
            client,
            cursor,
            wanted: FIRST,
            statement: prepare(client, cursor, FIRST).await?,
            step: (way + stretch.max(way * WAYS)).min(LONGEST),
        })
    }

    /// The rows of the next step.
    pub(crate) async fn rows(&self) -> Result<RowStream, Error> {
        let none: [&str; 0] = [];
        Ok(self.client.query_raw(&self.statement, none).await?)
    }

    /// Says whether a step of so many rows was the last; makes the next one fit.
    pub(crate) async fn is_over(
        &mut self,
        rows: usize,
        bytes: usize,
        took: Duration,
    ) -> Result<bool, Error> {
        if rows < self.wanted {
            return Ok(true);
        }
        let wanted = next_size(self.wanted, bytes, took, self.step);
        if wanted != self.wanted {
            self.statement = prepare(self.client, self.cursor, wanted).await?;
            self.wanted = wanted;
        }
        Ok(false)
    }
}

async fn prepare(client: &Client, cursor: &str, rows: usize) -> Result<Statement, Error> {
    let fetch = format!("fetch {rows} from {cursor}");
    Ok(client.prepare(&fetch).await?)
}

/// How many rows to fetch next, when so many took so long.
fn next_size(now: usize, bytes: usize, took: Duration, step: Duration) -> usize {
    if took > step * 2 || bytes > BYTES {
        (now / 2).max(1)
    } else if took < step / 2 && bytes < BYTES / 2 {
        (now * 2).min(MOST)
    } else {
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Others would wait for long steps; short ones would be on the way most of the time; and large rows
    /// would fill the memory.
    #[test]
    fn a_step_takes_about_a_stretch_and_no_more_than_some_bytes() {
        let step = Duration::from_millis(10);
        for (micros, bytes) in [(1, 10), (20, 300), (300, 300), (50_000, 300), (20, 50_000)] {
            let mut size = FIRST;
            let took =
                |size: usize| step.mul_f64(f64::from(u32::try_from(size * micros).unwrap()) / 1e4);
            for _ in 0..20 {
                size = next_size(size, size * bytes, took(size), step);
            }
            assert!(took(size) <= step * 2 || size == 1, "{micros}: {size}");
            assert!(size * bytes <= BYTES, "{bytes}: {size}");
            let small = took(size) < step / 2 && size * bytes < BYTES / 2;
            assert!(!small || size == MOST, "{micros}, {bytes}: {size}");
        }
    }
}
