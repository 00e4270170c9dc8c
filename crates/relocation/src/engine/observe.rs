//! What the two databases hold of a move, and what is left behind to be dropped.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;
use waangu_kernel::TenantId;

use super::{OTHERS, PREFIX, Relocation, Request};
use crate::Error;
use crate::place::quoted;
use crate::state::{Copy, Home, Observed};

impl Relocation {
    pub(super) async fn observe(&self) -> Result<Observed, Error> {
        let tenant = self.request.tenant;
        let sql =
            "select snapshot is not null from waangu_relocation.progress where tenant_id = $1";
        let copy = match self.writer.query_opt(sql, &[&tenant.number()]).await? {
            None => Copy::None,
            Some(row) if row.try_get(0)? => Copy::Whole,
            Some(_) => Copy::Begun,
        };
        let sql = "select coalesce(bool_or(slot_name = $1 and wal_status <> 'lost'), false)
                        , count(*) > 0 or exists (select from pg_publication
                                                   where starts_with(pubname, $2)
                                                     and pubname is distinct from $3)
                                       or exists (select from waangu_relocation.fence
                                                   where tenant_id = $4)
                     from pg_replication_slots
                    where starts_with(slot_name, $2) and slot_name is distinct from $3";
        let kept = self.way_back().await?;
        let params: [&(dyn ToSql + Sync); 4] =
            [&self.slot(), &prefix(tenant), &kept, &tenant.number()];
        let row = self.reader.query_one(sql, &params).await?;
        Ok(Observed {
            epoch: self.request.source.placement.epoch,
            source: home(&self.reader, tenant).await?,
            target: home(&self.writer, tenant).await?,
            copy,
            warm: copy == Copy::None && self.is_warm().await?,
            slot: row.try_get(0)?,
            remains: row.try_get(1)?,
        })
    }
}

/// Longest wait for the target's place.
const KEEP: Duration = Duration::from_secs(1);

/// Where the target notes how far it is, and at which position of its log it was opened; and the source,
/// since when it is fenced, how its rows could be brought up to date again, and what was found to differ.
/// Nobody but administrators has rights there.
pub(super) const NOTES: &str = "begin; select pg_advisory_xact_lock(-6, 0);
    create schema if not exists waangu_relocation;
    create table if not exists waangu_relocation.progress (
        tenant_id bigint primary key
      , attempt text not null
      , snapshot text
      , lsn pg_lsn not null
    );
    create table if not exists waangu_relocation.fence (
        tenant_id bigint primary key
      , epoch bigint not null
      , state text not null
      , fenced_at timestamptz not null default clock_timestamp()
    );
    create table if not exists waangu_relocation.opened (
        tenant_id bigint primary key
      , attempt text not null
      , lsn pg_lsn not null
    );
    create table if not exists waangu_relocation.kept (
        tenant_id bigint primary key
      , attempt text not null
      , epoch bigint not null
      , lsn pg_lsn not null
      , tables text not null
    );
    create table if not exists waangu_relocation.evidence (
        tenant_id bigint not null
      , attempt text not null
      , table_name text not null
      , key text[] not null
      , source_row text
      , target_row text
      , found_at timestamptz not null default clock_timestamp()
    );
    delete from waangu_relocation.evidence where found_at < now() - interval '30 days';
    commit";

pub(super) fn prefix(tenant: TenantId) -> String {
    format!("{PREFIX}{}_", tenant.number())
}

/// Whether a move is behind its commit point, of which the answer may have been lost.
///
/// # Errors
/// `Database`.
pub async fn is_fenced(request: &Request) -> Result<bool, Error> {
    let asked = async {
        let session = request.source.session(request.tenant).await?;
        home(&session, request.tenant).await
    };
    let late = |_late| Error::Database("the source does not answer".to_owned());
    let found = timeout(request.options.silence, asked)
        .await
        .map_err(late)??;
    Ok(found == Some((Home::Moved, request.target.placement.epoch)))
}

/// Keeps the removal of what the tenant had left there earlier from the target, as long as `writer`
/// lives. We have the claim: another move's session can only be one that has lost it.
pub(super) async fn keep_place(writer: &Client, tenant: TenantId) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        let sql = "select pg_try_advisory_lock(-5, hashint8($1))";
        if writer
            .query_one(sql, &[&tenant.number()])
            .await?
            .try_get(0)?
        {
            return Ok(());
        }
        if begun.elapsed() > KEEP {
            return Err(Error::Busy);
        }
        let sql = "select pg_terminate_backend(l.pid)
                     from pg_locks l
                     join pg_stat_activity a on a.pid = l.pid
                    where l.locktype = 'advisory' and l.objsubid = 2
                      and l.database = (select oid from pg_database where datname = current_database())
                      and (l.classid, l.objid) = ((-5)::oid, hashint8($1)::oid)
                      and a.application_name = 'waangu-relocation'";
        writer.execute(sql, &[&tenant.number()]).await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) async fn home(client: &Client, tenant: TenantId) -> Result<Option<(Home, i64)>, Error> {
    let sql = "select state, epoch from waangu.home where tenant_id = $1";
    let Some(row) = client.query_opt(sql, &[&tenant.number()]).await? else {
        return Ok(None);
    };
    let state = match row.try_get(0)? {
        "active" => Home::Active,
        "moved" => Home::Moved,
        _ => Home::Suspended,
    };
    Ok(Some((state, row.try_get(1)?)))
}

/// Drops the slots and publications of all attempts, but for those of the way back.
pub(super) async fn drop_remains(
    client: &Client,
    tenant: TenantId,
    kept: Option<&str>,
) -> Result<(), Error> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(1);
    // Whoever reads one still has lost the claim to us, and may not have noticed.
    let sql = "select slot_name::text, active_pid is not null and pg_terminate_backend(active_pid)
                 from pg_replication_slots
                where starts_with(slot_name, $1) and slot_name is distinct from $2";
    loop {
        let rows = client.query(sql, &[&prefix(tenant), &kept]).await?;
        for row in &rows {
            if !row.try_get::<_, bool>(1)? {
                let name: &str = row.try_get(0)?;
                client
                    .execute("select pg_drop_replication_slot($1)", &[&name])
                    .await?;
            }
        }
        if rows.is_empty() {
            break;
        }
        if begun.elapsed() > OTHERS {
            return Err(Error::Database("a slot stays in use".to_owned()));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    let sql = "select pubname::text from pg_publication
                where starts_with(pubname, $1) and pubname is distinct from $2";
    for row in client.query(sql, &[&prefix(tenant), &kept]).await? {
        let name = quoted(row.try_get(0)?);
        client
            .batch_execute(&format!("drop publication if exists {name}"))
            .await?;
    }
    Ok(())
}
