//! Wrong-tenant reads: many tenants over few connections, with requests that fail, are cancelled and
//! panic; ours, and two ways that people write. A peer that does not leak proves nothing, so each
//! must show its leak.
//!
//! All tenants have rows with the same ids: a read in the wrong tenant finds rows, and its
//! `tenant_id` gives it away.

mod django;
mod ours;
mod session;

use std::time::Duration;

use tokio::task::JoinSet;

use super::Sizes;
use super::plan::Planner;
use super::stage::Stage;
use crate::Context;
use crate::failure::{Failure, Of as _};
use crate::goal::Goal;
use crate::report::{Report, Series};

/// Tenants that take turns.
const TENANTS: i64 = 100;

/// Requests under way at once, more than any pool has connections.
const WORKERS: usize = 8;

/// Connections of the pools, one after the other.
const POOLS: std::ops::RangeInclusive<usize> = 1..=4;

/// A read: three rows of the tenant.
const READ: &str = "select tenant_id, id from item where id between $1 and $1 + 2";

/// Rows of one read.
const ROWS: i64 = 3;

/// Longest time of one part; none comes near it.
const PATIENCE: Duration = Duration::from_mins(5);

const GROUP: &str = "wrong-tenant reads";

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Succeeds,
    /// A statement fails; the request gives up its transaction, then reads once more to answer.
    Fails,
    /// Its future is dropped after it was polled so often in a statement.
    Cancelled(u8),
    Panics,
}

/// One request.
#[derive(Debug, Clone)]
struct Request {
    tenant: i64,
    /// First row of each read.
    reads: Vec<i64>,
    fate: Fate,
}

/// What was seen.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    requests: u64,
    reads: u64,
    /// Reads with a row of another tenant.
    wrong: u64,
    /// Reads that found fewer rows than there are.
    short: u64,
    /// Reads and requests that the database refused.
    refused: u64,
    failed: u64,
    cancelled: u64,
    panicked: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.reads += other.reads;
        self.wrong += other.wrong;
        self.short += other.short;
        self.refused += other.refused;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.panicked += other.panicked;
    }

    /// Counts the tenants of the rows of one read.
    fn count(&mut self, tenant: i64, rows: impl ExactSizeIterator<Item = Option<i64>>) {
        self.reads += 1;
        let found = i64::try_from(rows.len());
        let mut tenants = rows;
        if tenants.any(|found| found != Some(tenant)) {
            self.wrong += 1;
        } else if found != Ok(ROWS) {
            self.short += 1;
        }
    }

    fn fate(&mut self, fate: Fate) {
        self.requests += 1;
        match fate {
            Fate::Succeeds => {}
            Fate::Fails => self.failed += 1,
            Fate::Cancelled(_) => self.cancelled += 1,
            Fate::Panics => self.panicked += 1,
        }
    }
}

/// Draws the requests of one worker.
#[derive(Debug)]
struct Load {
    planner: Planner,
    rows: i64,
    /// Reads still to be given out.
    left: u64,
}

impl Load {
    /// The same worker of the same pool draws the same requests, whoever serves them.
    fn new(worker: usize, connections: usize, rows: i64, reads: u64) -> Result<Self, Failure> {
        let seed = u64::try_from(worker * 10 + connections).of("seed")?;
        Ok(Self {
            planner: Planner::new(TENANTS, rows, seed),
            rows,
            left: reads,
        })
    }

    fn next(&mut self) -> Option<Request> {
        if self.left == 0 {
            return None;
        }
        let count = u64::try_from(self.planner.below(4) + 1).unwrap_or(1);
        let count = count.min(self.left);
        self.left -= count;
        let fate = match self.planner.below(1_000) {
            0..20 => Fate::Fails,
            20..23 => Fate::Cancelled(u8::try_from(self.planner.below(250)).unwrap_or(0)),
            23..25 => Fate::Panics,
            _ => Fate::Succeeds,
        };
        let tenant = self.planner.below(TENANTS) + 1;
        let reads = (0..count)
            .map(|_| self.planner.below(self.rows - ROWS) + 1)
            .collect();
        Some(Request {
            tenant,
            reads,
            fate,
        })
    }
}

/// Measures all three.
pub(super) async fn measure(
    context: &Context,
    stage: &Stage,
    sizes: Sizes,
    report: &mut Report,
) -> Result<(), Failure> {
    let phase = "wrong-tenant reads";
    context.progress.phase(phase, 2 * POOLS.count() + 1);
    let mut ours = Tally::default();
    let mut session = Tally::default();
    let pools = u64::try_from(POOLS.count()).of("pools")?;
    for connections in POOLS {
        let reads = sizes.reads / pools;
        let rows = sizes.rows;
        let part = ours::measure(stage, connections, rows, reads);
        ours.add(tokio::time::timeout(PATIENCE, part).await.of("ours")??);
        context.progress.step();
        let reads = sizes.peer_reads / pools;
        let part = session::measure(stage, connections, rows, reads);
        let part = tokio::time::timeout(PATIENCE, part).await;
        session.add(part.of("session-level SET")??);
        context.progress.step();
    }
    show("ours", ours, report);
    show("session-level SET", session, report);
    report.goals.push(Goal::at_most(
        format!("wrong-tenant reads of ours, of {}", ours.reads),
        "reads",
        number(ours.wrong + ours.short),
        0.0,
    ));
    if session.wrong == 0 {
        let why = "session-level SET did not show its leak: the comparison does not count";
        report.not_measured.push(why.to_owned());
    }
    match django::measure(stage, sizes.django_requests).await {
        Ok(found) => {
            show("django-tenants behind PgBouncer", found.tally, report);
            report.notes.push(found.how);
            if found.tally.wrong == 0 {
                let why = "django-tenants behind PgBouncer did not show its leak: no comparison";
                report.not_measured.push(why.to_owned());
            }
        }
        Err(failure) => {
            let why = format!("django-tenants behind PgBouncer: {failure}");
            report.not_measured.push(why);
        }
    }
    context.progress.step();
    explain(report);
    Ok(())
}

fn show(who: &str, tally: Tally, report: &mut Report) {
    for (what, count) in [
        ("wrong-tenant reads", tally.wrong),
        ("reads", tally.reads),
        ("reads with rows missing", tally.short),
        ("requests", tally.requests),
        ("failed on purpose", tally.failed),
        ("cancelled", tally.cancelled),
        ("panicked", tally.panicked),
        ("refused", tally.refused),
    ] {
        report.series.push(Series {
            group: GROUP,
            name: format!("{who}: {what}"),
            unit: "",
            what: String::new(),
            samples: vec![number(count)],
        });
    }
}

#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "counts of a few millions are exact"
)]
fn number(count: u64) -> f64 {
    count as f64
}

/// Runs the workers to their end and adds up what they saw.
async fn gather(mut workers: JoinSet<Result<Tally, Failure>>) -> Result<Tally, Failure> {
    let mut sum = Tally::default();
    while let Some(done) = workers.join_next().await {
        sum.add(done.of("worker")??);
    }
    Ok(sum)
}

fn explain(report: &mut Report) {
    report.notes.extend(
        [
            "wrong-tenant reads: 8 workers, 100 tenants, pools of 1, 2, 3 and 4 connections (a quarter \
             of the reads each); requests of 1 to 4 reads of 3 rows; 2 % fail in the middle and read \
             once more to answer, 0.3 % are dropped in the middle of a statement, 0.2 % panic with \
             the transaction open (their reads are not counted). A read counts as wrong when one of \
             its rows is another tenant's, and as missing when rows are",
            "session-level SET: deadpool with fast recycling; a request takes a connection, begins, \
             says SET app.current_tenant, reads, commits. What leaks: ROLLBACK takes the SET back to \
             the tenant before, and the read that answers a failed request runs in that one",
        ]
        .map(str::to_owned),
    );
}
