//! Giving a move up without beginning it again: what it has made is removed, whatever state it is in.
//!
//! Invariant: nothing is touched unless the source serves the tenant, or would, and the target does
//! not; that is looked at under the claim, so that no worker can fence meanwhile.

use tokio_postgres::Client;
use waangu_tenancy::CellAdmin;

use super::Request;
use super::guard::Guard;
use super::observe::{drop_remains, home};
use crate::Error;
use crate::place::connect;
use crate::state::Home;

/// Removes whatever a move has made before its commit point. May be repeated.
///
/// # Errors
/// `Busy`; `Refused` behind the commit point; `Database`, `Cell`.
pub async fn undo(request: &Request) -> Result<(), Error> {
    Box::pin(Guard::of(request).over(take_back(request))).await
}

async fn take_back(request: &Request) -> Result<(), Error> {
    let (tenant, source, target) = (request.tenant, &request.source, &request.target);
    let lead = source.session(tenant).await?;
    let sql = "select pg_try_advisory_lock(-5, hashint8($1))";
    let claimed: bool = lead.query_one(sql, &[&tenant.number()]).await?.try_get(0)?;
    if !claimed {
        return Err(Error::Busy);
    }
    let past = || Err(Error::Refused("it is behind the commit point".to_owned()));
    match home(&lead, tenant).await? {
        Some((Home::Active | Home::Suspended, epoch)) if epoch == source.placement.epoch => {}
        _ => return past(),
    }
    drop_remains(&lead, tenant, None).await?;
    let database = target.placement.database(tenant);
    let server = connect(&target.cell, "postgres").await?;
    let sql = "select exists (select from pg_database where datname = $1)";
    if !server.query_one(sql, &[&database]).await?.try_get(0)? {
        return Ok(());
    }
    let there = target.session(tenant).await?;
    if matches!(home(&there, tenant).await?, Some((Home::Active, _))) {
        return past();
    }
    forget(&there, tenant.number()).await?;
    drop_remains(&there, tenant, None).await?;
    drop(there);
    let admin = CellAdmin::new(target.cell.clone());
    Ok(admin.clear_place(tenant, &target.placement).await?)
}

/// Takes back the notes, without which no worker of an older attempt can apply anything.
async fn forget(there: &Client, number: i64) -> Result<(), Error> {
    for note in ["progress", "kept"] {
        let sql = "select to_regclass('waangu_relocation.' || $1) is not null";
        if there.query_one(sql, &[&note]).await?.try_get(0)? {
            let sql = format!("delete from waangu_relocation.{note} where tenant_id = $1");
            there.execute(&sql, &[&number]).await?;
        }
    }
    Ok(())
}
