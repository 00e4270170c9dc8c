//! What may go wrong beside a step while it works: an end that answers nobody any more, and a slot that
//! holds back too much of the source's log.
//!
//! Invariants: it has sessions of its own, so that nothing a step waits for keeps it from looking; a step
//! that it ends is dropped half-way, like one whose worker was killed. So a server behind a network that
//! swallows everything, or one that is stopped, is waited for no longer than [`Options::silence`], whatever
//! TCP makes of it.
//!
//! [`Options::silence`]: super::Options::silence

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Client;
use waangu_kernel::TenantId;

use super::Request;
use super::observe::prefix;
use super::reverse::WARM;
use crate::Error;
use crate::pace::Pace;
use crate::place::{CONNECT, Side};
use crate::progress::{Phase, Teller};

/// Longest time between two looks; the first comes after one.
const LOOK: Duration = Duration::from_secs(1);

/// The most that one of the tenant's slots holds back. A way back that nobody reads has a bound of its own,
/// and no move fails because of it.
const HELD: &str = "
select coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), 0)::bigint
  from pg_replication_slots
 where starts_with(slot_name, $1) and (active or not starts_with(slot_name, $1 || $2))";

/// Looks after both ends of a move.
pub(super) struct Guard {
    tenant: TenantId,
    source: Side,
    target: Side,
    max_held: i64,
    silence: Duration,
    teller: Option<Teller>,
    pace: Pace,
}

impl Guard {
    pub(super) fn of(request: &Request) -> Self {
        Self {
            tenant: request.tenant,
            source: request.source.clone(),
            target: request.target.clone(),
            max_held: i64::MAX,
            silence: request.options.silence,
            teller: None,
            pace: Pace::new(),
        }
    }

    /// The same, which bounds what is held back, tells it while rows are copied, and lets rows go faster
    /// the more it is. Only for what may be given up.
    pub(super) fn bounded(request: &Request, teller: &Teller, pace: &Pace) -> Self {
        Self {
            max_held: request.options.max_held,
            teller: Some(teller.clone()),
            pace: pace.clone(),
            ..Self::of(request)
        }
    }

    /// The outcome of `work`, unless something goes wrong beside it: then `work` is dropped.
    pub(super) async fn over<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            done = work => done,
            wrong = self.look_on(End::Source) => Err(wrong),
            wrong = self.look_on(End::Target) => Err(wrong),
        }
    }

    /// Ends with what is wrong.
    async fn look_on(&self, end: End) -> Error {
        let mut session = None;
        let mut answered = Instant::now();
        // Shorter than a connection's own bound: that it was not made in time is silence, not an answer.
        let patience = (self.silence / 2).min(CONNECT / 2);
        loop {
            sleep(LOOK.min(self.silence / 4)).await;
            match timeout(patience, self.ask(end, &mut session)).await {
                Ok(Err(held @ Error::Held { .. })) => return held,
                Ok(Ok(())) => answered = Instant::now(),
                // It answers, if only to refuse us; the step has sessions of its own to find out more.
                Ok(Err(_refused)) => {
                    session = None;
                    answered = Instant::now();
                }
                Err(_late) => session = None,
            }
            if answered.elapsed() > self.silence {
                let seconds = self.silence.as_secs_f32();
                return Error::Database(format!("{end} has not answered for {seconds} s"));
            }
        }
    }

    async fn ask(&self, end: End, session: &mut Option<Client>) -> Result<(), Error> {
        let side = match end {
            End::Source => &self.source,
            End::Target => &self.target,
        };
        let client = match session.take() {
            Some(client) => client,
            // The tenant's own database may not be there yet.
            None => crate::place::connect(&side.cell, "postgres").await?,
        };
        match end {
            End::Source => {
                let (slots, ways_back) = (prefix(self.tenant), WARM.to_string());
                let row = client.query_one(HELD, &[&slots, &ways_back]).await?;
                self.judge(row.try_get(0)?)?;
            }
            End::Target => client.batch_execute("select 1").await?,
        }
        *session = Some(client);
        Ok(())
    }

    fn judge(&self, held: i64) -> Result<(), Error> {
        if held > self.max_held {
            let bound = self.max_held;
            return Err(Error::Held { held, bound });
        }
        if let Some(teller) = &self.teller {
            self.pace.hurry(megabytes(held) / megabytes(self.max_held));
            teller.tell(|progress| {
                if progress.phase == Phase::Copy {
                    progress.lag = u64::try_from(held).unwrap_or(0);
                }
            });
        }
        Ok(())
    }
}

fn megabytes(bytes: i64) -> f64 {
    f64::from(i32::try_from(bytes >> 20).unwrap_or(i32::MAX)).max(1.0)
}

/// One of the two.
#[derive(Debug, Clone, Copy)]
enum End {
    Source,
    Target,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Source => "the server that the tenant is moved from",
            Self::Target => "the server that the tenant is moved to",
        })
    }
}
