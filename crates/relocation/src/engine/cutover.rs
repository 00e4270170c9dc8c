//! The second half: compare, freeze, drain, compare what has changed since, fence. The fence is the
//! commit point.
//!
//! What happens while writers wait does not depend on how many rows the tenant has: all rows are compared
//! before, and those that changed meanwhile again, until few are left.
//!
//! Only `lead` holds the lock and writes the fence, in one transaction: if its connection is lost,
//! neither stands. The server itself ends that transaction if we fall silent.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_postgres::Statement;
use tokio_postgres::error::SqlState;

use super::{Relocation, Safety};
use crate::progress::Phase;
use crate::verify::{self, Dirty, Ends};
use crate::{Error, stop};

/// Rows that may be compared while writers wait.
const FEW: usize = 1000;

/// How often the rows that changed meanwhile are compared before a try is given up.
const ROUNDS: usize = 20;

/// Longest rest before a freeze, until a commit costs what it did before the move; and how often one looks.
const REST: Duration = Duration::from_secs(3);
const GLANCE: Duration = Duration::from_millis(50);

/// The state is noted, so that a suspended tenant arrives suspended; the time, so that somebody can see
/// for how long nobody serves it.
const FENCE: &str = "
    with before as (
        select state from waangu.home
         where tenant_id = $1 and epoch = $2 and state in ('active', 'suspended')
           for update
    ), noted as (
        insert into waangu_relocation.fence (tenant_id, epoch, state)
        select $1, $2 + 1, state from before
        on conflict (tenant_id) do update
        set epoch = excluded.epoch
          , state = excluded.state
          , fenced_at = excluded.fenced_at
    )
    update waangu.home h
       set state = 'moved'
         , epoch = h.epoch + 1
      from before
     where h.tenant_id = $1";

impl Relocation {
    /// Up to the freeze. May be dropped at any moment.
    pub(super) async fn approach(&mut self) -> Result<(), Error> {
        let request = &self.request;
        // What can be done before the fence is: behind it nobody serves the tenant.
        self.admin
            .set_lineage(request.tenant, &request.target.placement, &request.lineage)
            .await?;
        self.laps.end("lineage");
        self.teller.phase(Phase::Follow);
        self.catch_up().await?;
        self.laps.end("catch up");
        if self.watch.is_none() {
            self.teller.phase(Phase::Compare);
            self.compare_all().await?;
            self.let_others_catch_up().await?;
            self.laps.end("rest");
        }
        self.narrow().await?;
        self.laps.end("narrow");
        self.teller.phase(Phase::Follow);
        self.rehearse().await?;
        self.laps.end("rehearsal");
        self.catch_up().await?;
        self.laps.end("catch up");
        self.look_for_old_writers().await
    }

    /// What has queued up behind the comparison would wait for the freeze besides. Before the rows that
    /// change meanwhile are compared, since few of them may be left for the freeze.
    async fn let_others_catch_up(&mut self) -> Result<(), Error> {
        let begun = Instant::now();
        while !self.pace.is_calm() && begun.elapsed() < REST {
            self.follow_for(GLANCE).await?;
        }
        Ok(())
    }

    /// A session that meets a table or a statement for the first time reads the catalogue, which writers
    /// would wait for.
    async fn rehearse(&mut self) -> Result<(), Error> {
        self.fencing = Some(self.fencing().await?);
        verify::rehearse(&self.ends()).await
    }

    async fn fencing(&self) -> Result<Statement, Error> {
        match &self.fencing {
            Some(fencing) => Ok(fencing.clone()),
            None => Ok(self.lead.prepare(FENCE).await?),
        }
    }

    /// Both ends as they are now.
    fn ends(&self) -> Ends<'_> {
        Ends {
            source: &self.reader,
            target: &self.writer,
            tables: &self.tables,
            tenant: self.request.tenant,
        }
    }

    /// Compares what has changed since, until little has.
    async fn narrow(&mut self) -> Result<(), Error> {
        self.teller.phase(Phase::Compare);
        for _round in 0..ROUNDS {
            let touched = self.touched();
            if touched.len() <= FEW {
                return Ok(());
            }
            self.compare(Some(touched)).await?;
        }
        Err(self.late())
    }

    pub(super) fn touched(&self) -> Dirty {
        let touched = self.watch.as_ref().map(|watch| watch.touched.clone());
        touched.unwrap_or_default()
    }

    pub(super) fn late(&self) -> Error {
        Error::Pause(self.request.options.max_pause.as_millis())
    }

    /// Writers would wait for a transaction that has been open for long, and most likely in vain.
    async fn look_for_old_writers(&self) -> Result<(), Error> {
        if self.request.options.safety == Safety::WithoutLock {
            return Ok(());
        }
        let sql = "select coalesce(max(date_part('epoch', clock_timestamp() - a.xact_start)), 0)
                     from pg_locks l
                     join pg_stat_activity a on a.pid = l.pid
                    where l.locktype = 'advisory' and l.granted and l.objsubid = 1
                      and l.database = (select oid from pg_database where datname = current_database())
                      and ((l.classid::bigint << 32) | l.objid::bigint) = $1";
        let number = self.request.tenant.number();
        let oldest: f64 = self.reader.query_one(sql, &[&number]).await?.try_get(0)?;
        if oldest > (self.request.options.max_pause / 4).as_secs_f64() {
            return Err(self.late());
        }
        Ok(())
    }

    /// The commit point, after as many tries as are allowed.
    pub(super) async fn cut_over(&mut self) -> Result<(), Error> {
        let token = self.stop.clone();
        let mut patience = Duration::from_millis(200);
        let mut left = self.request.options.attempts;
        let mut making = self.make_way_back();
        loop {
            let ready = async {
                self.approach().await?;
                if self.await_way_back(&mut making).await? {
                    self.approach().await?;
                }
                Ok(())
            };
            let done = match stop::unless(&token, ready).await {
                // Not to be interrupted: it takes no longer than a pause.
                Ok(()) => self.freeze().await,
                other => other,
            };
            match done {
                Err(Error::Pause(_)) if left > 1 => {
                    left -= 1;
                    self.teller.phase(Phase::Follow);
                    stop::unless(&token, self.follow_for(patience)).await?;
                    patience = (patience * 2).min(Duration::from_secs(30));
                }
                other => return other,
            }
        }
    }

    /// One try. The tenant's writers wait from here until it returns.
    async fn freeze(&mut self) -> Result<(), Error> {
        let pause = self.request.options.max_pause;
        self.laps.end("old writers");
        self.steering = None;
        self.tell_laps("ready to freeze");
        let since = Instant::now();
        self.teller.phase(Phase::Freeze);
        self.teller.tell(|progress| progress.tries += 1);
        let begin = format!(
            "begin; set local lock_timeout = {}; set local idle_in_transaction_session_timeout = {}",
            (pause / 2).as_millis().max(1),
            (pause * 2 + Duration::from_secs(1)).as_millis(),
        );
        self.lead.batch_execute(&begin).await?;
        let done = self.frozen(since + pause).await;
        if done.is_err() {
            // If this fails too, the session is over and the lock with it.
            self.lead.batch_execute("rollback").await?;
        } else {
            self.teller.phase(Phase::Fenced);
        }
        let waited = since.elapsed();
        self.teller
            .tell(|progress| progress.pause = progress.pause.max(waited));
        self.tell_laps("frozen");
        done
    }

    async fn frozen(&mut self, deadline: Instant) -> Result<(), Error> {
        let number = self.request.tenant.number();
        let safety = self.request.options.safety;
        if safety != Safety::WithoutLock {
            let sql = "select pg_advisory_xact_lock($1)";
            match self.lead.execute(sql, &[&number]).await {
                Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                    return Err(self.late());
                }
                other => other?,
            };
        }
        self.laps.end("lock");
        match timeout_at(deadline, self.drain_and_verify()).await {
            Err(_elapsed) => return Err(self.late()),
            Ok(done) => done?,
        }
        if safety == Safety::WithoutFence {
            return Ok(self.lead.batch_execute("commit").await?);
        }
        let epoch = self.request.source.placement.epoch;
        let fencing = self.fencing().await?;
        if self.lead.execute(&fencing, &[&number, &epoch]).await? != 1 {
            return Err(Error::Refused("its home row has changed".to_owned()));
        }
        self.laps.end("fence");
        let committed = self.lead.batch_execute("commit").await;
        self.laps.end("commit");
        Ok(committed?)
    }

    /// All that was committed before the lock is in the log before our note.
    async fn drain_and_verify(&mut self) -> Result<(), Error> {
        self.drain(self.request.options.max_pause).await?;
        self.laps.end("drain");
        let touched = self.touched();
        let verdict = verify::some(&self.ends(), &touched, &Dirty::default()).await?;
        self.laps.end("compare");
        self.judge(verdict).await
    }
}
