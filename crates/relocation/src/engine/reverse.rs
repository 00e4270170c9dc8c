//! The way back: as long as the old place's rows are kept, a slot at the new place tells what has changed
//! since, so that a move back brings the changes alone.
//!
//! The old place has just the rows of the fence, and nobody can write there. So it lacks what was
//! committed at the new place since that was opened, and nothing else. The opening notes a position of the
//! new place's log in its own transaction: all that the move itself has applied was committed before it, and
//! all that the tenant writes there comes behind it.
//!
//! Invariants:
//! - the slot counts only if it was consistent before that position (`confirmed_flush_lsn`, which nobody
//!   moves): then nothing that lies behind is missing from it;
//! - the note in `kept` stands beside the rows that it vouches for, and goes before they are touched;
//! - no move fails for want of a way back, and no writer waits for one.
//!
//! Left out: reading the slot meanwhile. What it holds back is bounded by whoever looks after the cell
//! ([`crate::ways_back`]); without it a move back copies.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_postgres::Client;
use waangu_kernel::TenantId;
use waangu_tenancy::ModulePackage;

use super::observe::prefix;
use super::{Relocation, Request};
use crate::Error;
use crate::place::{Side, connect, quoted};

/// Longest time for a slot at the new place. To make one waits for all transactions there that write.
const MAKING: Duration = Duration::from_secs(5);

/// Pause between two looks whether it is made.
const LOOK: Duration = Duration::from_millis(10);

/// What attempts that go on from an old place's rows begin with. Others are hexadecimal.
pub(crate) const WARM: char = 'w';

/// A snapshot that has seen nothing: position alone says what the rows have.
const NOTHING_SEEN: &str = "0:0:";

/// A slot on its way.
pub(super) struct Making {
    task: JoinHandle<Result<(), Error>>,
    begun: Instant,
}

impl Drop for Making {
    fn drop(&mut self) {
        // The server ends the statement by its own bound.
        self.task.abort();
    }
}

impl Relocation {
    /// The attempt that a move back goes on with, if this move arrives. Its epoch tells it from this one's.
    fn attempt_back(&self) -> String {
        let after = self.request.target.placement.epoch;
        let own = self.attempt.rsplit('_').next().unwrap_or_default();
        format!("{WARM}{after}_{own}")
    }

    /// Begins to make the slot, beside everything else.
    pub(super) fn make_way_back(&self) -> Option<Making> {
        if !self.request.options.way_back {
            return None;
        }
        let (target, tenant) = (self.request.target.clone(), self.request.tenant);
        let name = format!("{}{}", prefix(tenant), self.attempt_back());
        let tables = self.tables.iter().map(|table| table.target.as_str());
        let publish = publication(&name, tables, tenant);
        let work = async move { make(&target, tenant, &name, &publish).await };
        Some(Making {
            task: Handle::current().spawn(work),
            begun: Instant::now(),
        })
    }

    /// Follows until the slot is made, or will not be. Says whether that took any time.
    pub(super) async fn await_way_back(
        &mut self,
        making: &mut Option<Making>,
    ) -> Result<bool, Error> {
        let mut waited = false;
        while let Some(on_its_way) = making {
            if on_its_way.task.is_finished() {
                if let Ok(Err(error)) = (&mut on_its_way.task).await {
                    tracing::warn!(tenant = %self.request.tenant, "the way back will be a copy: {error}");
                }
                *making = None;
            } else if on_its_way.begun.elapsed() > MAKING * 2 {
                tracing::warn!(tenant = %self.request.tenant, "the way back will be a copy: no slot in time");
                *making = None;
            } else {
                waited = true;
                self.follow_for(LOOK).await?;
            }
        }
        Ok(waited)
    }

    /// Notes at the old place that its rows can be brought up to date, if the new place has what that
    /// takes. Gives the slot and publication that are not to be dropped.
    pub(super) async fn keep_way_back(&self) -> Result<Option<String>, Error> {
        let tenant = self.request.tenant;
        if !self.request.options.way_back || self.attempt.is_empty() {
            return self.way_back().await;
        }
        let attempt = self.attempt_back();
        let name = format!("{}{attempt}", prefix(tenant));
        let sql = "select o.lsn::text
                     from waangu_relocation.opened o
                     join pg_replication_slots s
                       on s.slot_name = $3 and s.wal_status <> 'lost' and s.confirmed_flush_lsn <= o.lsn
                     join pg_publication p on p.pubname = $3
                    where o.tenant_id = $1 and o.attempt = $2";
        let found = self
            .writer
            .query_opt(sql, &[&tenant.number(), &self.attempt, &name])
            .await?;
        let tables = versions(&self.request.packages);
        let standing = standing(&self.reader, &self.request.source, &self.request).await?;
        let Some(found) = found.filter(|_| tables == standing) else {
            return Ok(None);
        };
        let sql = "insert into waangu_relocation.kept (tenant_id, attempt, epoch, lsn, tables)
                   values ($1, $2, $3, $4::text::pg_lsn, $5)
                   on conflict (tenant_id) do update
                   set attempt = excluded.attempt
                     , epoch = excluded.epoch
                     , lsn = excluded.lsn
                     , tables = excluded.tables";
        let (lsn, after) = (
            found.try_get::<_, &str>(0)?,
            self.request.target.placement.epoch,
        );
        self.reader
            .execute(sql, &[&tenant.number(), &attempt, &after, &lsn, &tables])
            .await?;
        Ok(Some(name))
    }

    /// The slot and publication, at the new place, that the old one can be brought up to date with.
    ///
    /// # Errors
    /// `Database`.
    pub async fn way_back(&self) -> Result<Option<String>, Error> {
        let tenant = self.request.tenant;
        let sql = "select attempt from waangu_relocation.kept where tenant_id = $1 and epoch = $2";
        let after = self.request.target.placement.epoch;
        let row = self
            .reader
            .query_opt(sql, &[&tenant.number(), &after])
            .await?;
        row.map(|row| Ok(format!("{}{}", prefix(tenant), row.try_get::<_, &str>(0)?)))
            .transpose()
    }

    /// Whether the target is an old place whose rows can be brought up to date.
    pub(super) async fn is_warm(&self) -> Result<bool, Error> {
        let tenant = self.request.tenant;
        let sql = "select attempt, lsn::text from waangu_relocation.kept
                    where tenant_id = $1 and epoch = $2";
        let epoch = self.request.source.placement.epoch;
        let Some(row) = self
            .writer
            .query_opt(sql, &[&tenant.number(), &epoch])
            .await?
        else {
            return Ok(false);
        };
        let (attempt, lsn): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        let name = format!("{}{attempt}", prefix(tenant));
        let sql = "select exists (select from pg_replication_slots
                                   where slot_name = $1
                                     and wal_status <> 'lost'
                                     and confirmed_flush_lsn <= $2::text::pg_lsn)
                      and exists (select from pg_publication where pubname = $1)";
        Ok(self
            .reader
            .query_one(sql, &[&name, &lsn])
            .await?
            .try_get(0)?)
    }

    /// Takes the kept rows for the copy of a move that has followed so far.
    pub(super) async fn adopt(&mut self) -> Result<(), Error> {
        let sql = "with kept as (
                       delete from waangu_relocation.kept
                        where tenant_id = $1 and epoch = $2
                       returning tenant_id, attempt, lsn
                   )
                   insert into waangu_relocation.progress (tenant_id, attempt, snapshot, lsn)
                   select tenant_id, attempt, $3, lsn from kept
                   returning attempt";
        let tenant = self.request.tenant;
        let epoch = self.request.source.placement.epoch;
        let row = self
            .writer
            .query_opt(sql, &[&tenant.number(), &epoch, &NOTHING_SEEN])
            .await?;
        self.attempt = row.ok_or(Error::Busy)?.try_get(0)?;
        tracing::info!(%tenant, "the old place's rows are brought up to date");
        Ok(())
    }

    /// Whether this attempt goes on from an old place's rows.
    pub(super) fn is_from_kept_rows(&self) -> bool {
        self.attempt.starts_with(WARM)
    }

    /// After a failure that another try with these rows would meet again: the next step is a copy.
    pub(super) async fn give_up_kept_rows(&mut self, failure: Error) -> Error {
        if !matches!(
            failure,
            Error::Stream(_) | Error::Mismatch { .. } | Error::Held { .. }
        ) {
            return failure;
        }
        self.reading = None;
        let sql = "delete from waangu_relocation.progress where tenant_id = $1 and attempt = $2";
        let number = self.request.tenant.number();
        match self.writer.execute(sql, &[&number, &self.attempt]).await {
            Ok(_) => {
                self.attempt.clear();
                Error::Cold(failure.to_string())
            }
            Err(error) => error.into(),
        }
    }

    /// Nothing is known of the target's rows any more: they are about to change.
    pub(super) async fn forget_kept_rows(&self) -> Result<(), Error> {
        let sql = "delete from waangu_relocation.kept where tenant_id = $1";
        let number = self.request.tenant.number();
        self.writer.execute(sql, &[&number]).await?;
        Ok(())
    }
}

/// Publication and slot, unless an earlier worker has made them.
async fn make(side: &Side, tenant: TenantId, name: &str, publish: &str) -> Result<(), Error> {
    let session = side.session(tenant).await?;
    let bound = MAKING.as_millis();
    let bounds = format!("set statement_timeout = {bound}; set lock_timeout = {bound}");
    session.batch_execute(&bounds).await?;
    let sql = "select exists (select from pg_replication_slots where slot_name = $1)
                    , exists (select from pg_publication where pubname = $1)
                    , (select count(*) from pg_replication_slots) * 2
                      < current_setting('max_replication_slots')::bigint";
    let row = session.query_one(sql, &[&name]).await?;
    let (slot, published, free): (bool, bool, bool) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    if slot {
        return Ok(());
    }
    if !free {
        // The other half is for moves themselves.
        return Err(Error::Database(
            "half of the server's replication slots are taken".to_owned(),
        ));
    }
    if !published {
        session.batch_execute(publish).await?;
    }
    let sql = "select pg_create_logical_replication_slot($1, 'pgoutput')";
    session.execute(sql, &[&name]).await?;
    Ok(())
}

/// The statement that publishes a tenant's rows of some tables.
pub(super) fn publication<'a>(
    name: &str,
    tables: impl Iterator<Item = &'a str>,
    tenant: TenantId,
) -> String {
    let number = tenant.number();
    let list: Vec<String> = tables
        .map(|table| format!("{table} where (tenant_id = {number})"))
        .collect();
    let what = if list.is_empty() {
        String::new()
    } else {
        format!(
            "for table {} with (publish = 'insert, update, delete, truncate')",
            list.join(", ")
        )
    };
    format!("create publication {} {what}", quoted(name))
}

/// The rows of an old place are worth nothing if the tables at either end have had another migration
/// since. The target's may have been brought to the source's already: then these are not what was noted.
pub(super) async fn forget_outdated(writer: &Client, request: &Request) -> Result<(), Error> {
    let number = request.tenant.number();
    let sql = "select epoch, tables from waangu_relocation.kept where tenant_id = $1";
    let Some(row) = writer.query_opt(sql, &[&number]).await? else {
        return Ok(());
    };
    let (epoch, tables): (i64, &str) = (row.try_get(0)?, row.try_get(1)?);
    if epoch == request.source.placement.epoch
        && tables == versions(&request.packages)
        && tables == standing(writer, &request.target, request).await?
    {
        return Ok(());
    }
    let sql = "delete from waangu_relocation.kept where tenant_id = $1";
    writer.execute(sql, &[&number]).await?;
    Ok(())
}

/// What a move to a place that the tenant has left would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outlook {
    /// One without a copy: so many bytes of the source's log would be read.
    Warm(i64),
    /// One with a copy, and why.
    Copy(&'static str),
}

/// Looks whether a move would find its rows at its target. Changes nothing.
///
/// # Errors
/// `Database`.
pub async fn look_back(request: &Request) -> Result<Outlook, Error> {
    let (tenant, target) = (request.tenant, &request.target);
    let server = connect(&target.cell, "postgres").await?;
    let sql = "select exists (select from pg_database where datname = $1)";
    let database = target.placement.database(tenant);
    if !server.query_one(sql, &[&database]).await?.try_get(0)? {
        return Ok(Outlook::Copy("nothing is kept there"));
    }
    let there = target.session(tenant).await?;
    let sql = "select to_regclass('waangu_relocation.kept') is not null";
    if !there.query_one(sql, &[]).await?.try_get(0)? {
        return Ok(Outlook::Copy("nothing is kept there"));
    }
    let sql = "select attempt, tables from waangu_relocation.kept
                where tenant_id = $1 and epoch = $2";
    let epoch = request.source.placement.epoch;
    let Some(kept) = there.query_opt(sql, &[&tenant.number(), &epoch]).await? else {
        return Ok(Outlook::Copy(
            "no slot was to be had when the tenant left it",
        ));
    };
    let (attempt, tables): (&str, &str) = (kept.try_get(0)?, kept.try_get(1)?);
    if tables != versions(&request.packages) || tables != standing(&there, target, request).await? {
        return Ok(Outlook::Copy("a module's tables were upgraded since"));
    }
    let here = request.source.session(tenant).await?;
    let sql = "select pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint
                 from pg_replication_slots
                where slot_name = $1 and wal_status <> 'lost'
                  and exists (select from pg_publication where pubname = $1)";
    let name = format!("{}{attempt}", prefix(tenant));
    match here.query_opt(sql, &[&name]).await? {
        Some(row) => Ok(Outlook::Warm(row.try_get(0)?)),
        None => Ok(Outlook::Copy(
            "its slot has gone: it held back too much, or somebody dropped it",
        )),
    }
}

/// How many migrations the packages have, in an order of its own.
fn versions(packages: &[ModulePackage]) -> String {
    let counts = packages
        .iter()
        .map(|package| (package.id().to_string(), package.migrations.len()));
    line(counts.collect())
}

/// How many migrations the tables of those modules have had at one end.
async fn standing(client: &Client, side: &Side, request: &Request) -> Result<String, Error> {
    let mut counts = Vec::new();
    for package in &request.packages {
        let schema = side.schema(request.tenant, package.id());
        let sql = "select count(*) from waangu.migration where schema_name = $1 and module = $2";
        let module = package.id().as_str();
        let row = client.query_one(sql, &[&schema, &module]).await?;
        let count = usize::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0);
        counts.push((module.to_owned(), count));
    }
    Ok(line(counts))
}

fn line(mut counts: Vec<(String, usize)>) -> String {
    counts.sort();
    let words: Vec<String> = counts
        .into_iter()
        .map(|(module, count)| format!("{module}={count}"))
        .collect();
    words.join(" ")
}
