//! The second half: freeze, drain, verify, fence. The fence is the commit point.
//!
//! Only `lead` holds the lock and writes the fence, in one transaction: if its connection is lost,
//! neither stands. The server itself ends that transaction if we fall silent.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_postgres::error::SqlState;

use super::follow::NOTE;
use super::{Relocation, Safety};
use crate::Error;
use crate::verify;

impl Relocation {
    pub(super) async fn cut_over(&mut self) -> Result<(), Error> {
        self.catch_up().await?;
        // From here on every change that is read is noted.
        let dirty = verify::compare(
            &self.reader,
            &self.writer,
            &self.tables,
            self.request.tenant,
        );
        self.dirty = Some(verify::Dirty::default());
        let found = dirty.await?;
        if let Some(dirty) = &mut self.dirty {
            dirty.join(found);
        }
        let mut patience = Duration::from_millis(200);
        let mut left = self.request.options.attempts;
        loop {
            self.catch_up().await?;
            match self.freeze().await {
                Err(Error::Pause(_)) if left > 1 => {
                    left -= 1;
                    sleep(patience).await;
                    patience = (patience * 2).min(Duration::from_secs(30));
                }
                other => return other,
            }
        }
    }

    /// One try. The tenant's writers wait from here until it returns.
    async fn freeze(&mut self) -> Result<(), Error> {
        let options = self.request.options.clone();
        let pause = options.max_pause;
        let deadline = Instant::now() + pause;
        let begin = format!(
            "begin; set local lock_timeout = {}; set local idle_in_transaction_session_timeout = {}",
            (pause / 2).as_millis().max(1),
            (pause * 2 + Duration::from_secs(1)).as_millis(),
        );
        self.lead.batch_execute(&begin).await?;
        let done = self.frozen(deadline).await;
        if done.is_err() {
            // If this fails too, the session is over and the lock with it.
            self.lead.batch_execute("rollback").await?;
        }
        done
    }

    async fn frozen(&mut self, deadline: Instant) -> Result<(), Error> {
        let number = self.request.tenant.number();
        let options = self.request.options.clone();
        let late = || Error::Pause(options.max_pause.as_millis());
        if options.safety != Safety::WithoutLock {
            let sql = "select pg_advisory_xact_lock($1)";
            match self.lead.execute(sql, &[&number]).await {
                Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                    return Err(late());
                }
                other => other?,
            };
        }
        match timeout_at(deadline, self.drain_and_verify()).await {
            Err(_elapsed) => return Err(late()),
            Ok(done) => done?,
        }
        if options.safety == Safety::WithoutFence {
            return Ok(self.lead.batch_execute("commit").await?);
        }
        let sql = "update waangu.home set state = 'moved', epoch = epoch + 1
                    where tenant_id = $1 and state = 'active' and epoch = $2";
        let epoch = self.request.source.placement.epoch;
        if self.lead.execute(sql, &[&number, &epoch]).await? != 1 {
            return Err(Error::Refused("its home row has changed".to_owned()));
        }
        Ok(self.lead.batch_execute("commit").await?)
    }

    /// All that was committed before the lock is in the log before our note.
    async fn drain_and_verify(&mut self) -> Result<(), Error> {
        let text = self.attempt.clone();
        let sql = "select pg_current_wal_insert_lsn()::text";
        let position: String = self.lead.query_one(sql, &[]).await?.try_get(0)?;
        let text = format!("{text} {position}");
        let sql = "select pg_logical_emit_message(true, $1, $2::text)";
        self.reader.execute(sql, &[&NOTE, &text]).await?;
        let note = Bytes::from(text);
        while !self.poll().await?.notes.contains(&note) {}
        let dirty = self.dirty.clone().unwrap_or_default();
        verify::at_rest(
            &self.reader,
            &self.writer,
            &self.tables,
            self.request.tenant,
            &dirty,
        )
        .await
    }
}
