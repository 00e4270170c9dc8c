//! Comparing both ends before the freeze, while changes are followed.
//!
//! The source's snapshot says of each transaction whether it was seen. Once the target has all that were
//! (a note that was written behind the snapshot has come through), both ends differ by those alone that
//! were not: and whatever these touch is noted, before and after, until the fence.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Client;

use super::batch::Watch;
use super::{OTHERS, Relocation};
use crate::Error;
use crate::snapshot::Snapshot;
use crate::stop::AtWork;
use crate::table::Table;
use crate::verify::{self, Dirty, Ends, Verdict};

/// One snapshot for as long as it takes, to be read to the end.
pub(super) const SNAPSHOT: &str = "begin isolation level repeatable read read only;
    set local idle_in_transaction_session_timeout = 0; set local jit = off;
    set local cursor_tuple_fraction = 1";

/// How long changes gather while a comparison is on its way: many in one transaction cost the target
/// little more than one, and nobody waits for them.
const GATHER: Duration = Duration::from_millis(20);

/// Rows that may change during a comparison; more can't be remembered.
const MOST: usize = 2_000_000;

impl Relocation {
    /// Compares all rows at a point of the log, within the time that a copy has, too.
    pub(super) async fn compare_all(&mut self) -> Result<(), Error> {
        let most = self.request.options.max_copy;
        let compared = timeout(most, self.compare(None)).await;
        self.laps.end("compare");
        self.laps.add("of this at rest", self.pace.end());
        compared.map_err(|_late| Error::Old(most.as_secs()))?
    }

    /// Compares all rows, or some, at a point of the log; notes from there on what changes.
    pub(super) async fn compare(&mut self, some: Option<Dirty>) -> Result<(), Error> {
        let source = self.snapshot_of_source().await?;
        self.drain(OTHERS).await?;
        let target = self.request.target.session(self.request.tenant).await?;
        target.batch_execute(SNAPSHOT).await?;
        target.batch_execute("select 1").await?;
        let except = self.touched();
        let analyst = match some {
            Some(_) => None,
            None => Some(self.analyst().await?),
        };
        let begun = Instant::now();
        let mut comparing = self.spawn(source, target, analyst, some, except);
        let verdict = loop {
            if let Ok(verdict) = timeout(GATHER, &mut comparing.task).await {
                break verdict;
            }
            self.follow(Duration::ZERO).await?;
            let touched = self.watch.as_ref().map_or(0, |watch| watch.touched.len());
            self.teller
                .tell(|progress| progress.touched = u64::try_from(touched).unwrap_or(u64::MAX));
            let most = self.request.options.max_copy;
            self.pace.hurry(begun.elapsed().div_duration_f64(most));
            self.pace.hurry(share(touched, MOST));
            if touched > MOST {
                return Err(Error::Stream(
                    "more rows change than can be remembered".to_owned(),
                ));
            }
        };
        self.judge(verdict.map_err(|error| Error::Database(error.to_string()))??)
            .await
    }

    /// A session in a snapshot that has seen all that was applied; the watch begins with it.
    async fn snapshot_of_source(&mut self) -> Result<Client, Error> {
        let begun = Instant::now();
        let session = self.request.source.session(self.request.tenant).await?;
        loop {
            session.batch_execute(SNAPSHOT).await?;
            let sql = "select pg_current_snapshot()::text";
            let row = session.query_one(sql, &[]).await?;
            let snapshot = Snapshot::parse(row.try_get(0)?)?;
            self.recent.retain(|xid| !snapshot.sees(*xid));
            if self.recent.is_empty() {
                let touched = Dirty::default();
                self.watch = Some(Watch { snapshot, touched });
                return Ok(session);
            }
            // Its commit is in the log, and not yet visible: it waits for a replica, or for a moment.
            if begun.elapsed() > OTHERS {
                return Err(Error::Database("a commit stays invisible".to_owned()));
            }
            session.batch_execute("rollback").await?;
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// A session that looks what is in the tables now: the first requests there must not be planned in the
    /// dark, nor as for the few rows that others had there. Beside the comparison, which has to read the
    /// tenant's rows too; a look takes a sample, however many rows a table has.
    async fn analyst(&self) -> Result<Client, Error> {
        self.request.target.session(self.request.tenant).await
    }

    fn spawn(
        &self,
        source: Client,
        target: Client,
        analyst: Option<Client>,
        some: Option<Dirty>,
        except: Dirty,
    ) -> Comparing {
        let sessions = [Some(&source), Some(&target), analyst.as_ref()];
        let at_work = AtWork::new(sessions.into_iter().flatten());
        let (tables, tenant) = (Arc::clone(&self.tables), self.request.tenant);
        let (teller, pace) = (self.teller.clone(), self.pace.clone());
        let task = async move {
            let ends = Ends {
                source: &source,
                target: &target,
                tables: &tables,
                tenant,
            };
            if let Some(which) = some {
                for end in [&source, &target] {
                    end.batch_execute(verify::LOOKING_UP).await?;
                }
                return verify::some(&ends, &which, &except).await;
            }
            let comparison = verify::whole(&ends, &except, &teller, &pace);
            let analysis = analyse(analyst.as_ref(), &tables);
            Ok(future::try_join(comparison, analysis).await?.0)
        };
        Comparing {
            task: Handle::current().spawn(task),
            at_work,
        }
    }

    /// Keeps the evidence of a difference at the source, which an abort leaves as it is.
    pub(super) async fn judge(&self, verdict: Verdict) -> Result<(), Error> {
        let Verdict::Differs { table, what, rows } = verdict else {
            return Ok(());
        };
        let number = self.request.tenant.number();
        let sql = "insert into waangu_relocation.evidence
                       (tenant_id, attempt, table_name, key, source_row, target_row)
                   values ($1, $2, $3, $4, $5, $6)";
        for row in rows {
            let (source, target) = (&row.source, &row.target);
            self.reader
                .execute(
                    sql,
                    &[&number, &self.attempt, &table, &row.key, source, target],
                )
                .await?;
        }
        Err(Error::Mismatch { table, what })
    }
}

/// A part of a whole.
fn share(part: usize, whole: usize) -> f64 {
    let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    number(part) / number(whole)
}

async fn analyse(analyst: Option<&Client>, tables: &[Table]) -> Result<(), Error> {
    let Some(analyst) = analyst else {
        return Ok(());
    };
    for table in tables {
        // A table that is being vacuumed is looked at by whoever does that.
        let analyze = format!("analyze (skip_locked) {}", table.target);
        analyst.batch_execute(&analyze).await?;
    }
    Ok(())
}

/// A comparison on its way. Its queries end with it.
struct Comparing {
    task: JoinHandle<Result<Verdict, Error>>,
    at_work: AtWork,
}

impl Drop for Comparing {
    fn drop(&mut self) {
        if self.task.is_finished() {
            self.at_work.is_done();
        }
        self.task.abort();
    }
}
