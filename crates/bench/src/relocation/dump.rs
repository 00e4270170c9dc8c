//! The tenant's weight, and the peer: `pg_dump | psql` of the same rows, with nobody at work.

use std::fmt::{self, Display};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::Instant;
use waangu_api::types::{PlacementView, TenantView};

use crate::failure::{Failure, Of as _};
use crate::peers::server::Server;
use crate::platform::Platform;
use crate::shop::{Shop, books};

/// Bytes of one product with its share of two indexes, as PostgreSQL stores it (measured).
const ROW: i64 = 375;

/// From which the platform makes a tenant's database: helper schema, no tenant tables.
const TEMPLATE: &str = "waangu_template";

const COPY: &str = "dumped";

/// Rows that nobody touches, by count and digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Digest {
    rows: i64,
    sum: String,
}

impl Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows, digest {}", self.rows, self.sum)
    }
}

/// Fills the catalogue up to about so many megabytes.
pub(super) async fn fill(
    platform: &Platform,
    shop: &Shop,
    megabytes: i64,
) -> Result<Digest, Failure> {
    let at = placement(shop).await?;
    let schema = books::schema(shop.tenant, &at.tier);
    let tenant = shop.tenant.number();
    let rows = megabytes * 1_000_000 / ROW;
    books::with(&platform.ready, &at.cell, &at.database, async |client| {
        let sql = format!(
            "insert into {schema}.product (tenant_id, id, sku, name, unit)
             select {tenant}, gen_random_uuid(), 'F-' || i, repeat(md5(i::text), 6), 'piece'
               from generate_series(1, {rows}) i;
             analyze {schema}.product; checkpoint"
        );
        client.batch_execute(&sql).await.of("fill")
    })
    .await?;
    digest(platform, shop).await
}

/// The digest of what was filled in, wherever it is now.
pub(super) async fn digest(platform: &Platform, shop: &Shop) -> Result<Digest, Failure> {
    let at = placement(shop).await?;
    let schema = books::schema(shop.tenant, &at.tier);
    let sql = format!(
        "select count(*)
              , coalesce(sum(hashtextextended(id::text || sku || name, 0)::numeric), 0)::text
           from {schema}.product where tenant_id = $1 and request_key is null"
    );
    books::with(&platform.ready, &at.cell, &at.database, async |client| {
        let row = client
            .query_one(&sql, &[&shop.tenant.number()])
            .await
            .of("digest")?;
        Ok(Digest {
            rows: row.try_get(0).of("digest")?,
            sum: row.try_get(1).of("digest")?,
        })
    })
    .await
}

/// `pg_dump --schema | psql` into a new database of the same server; how long the pipe takes.
pub(super) async fn dump(
    platform: &Platform,
    server: &Server,
    shop: &Shop,
) -> Result<Duration, Failure> {
    let at = placement(shop).await?;
    let schema = books::schema(shop.tenant, &at.tier);
    let copy = async |sql: &str| {
        books::with(&platform.ready, &at.cell, "postgres", async |client| {
            client.batch_execute(sql).await.of(sql)
        })
        .await
    };
    copy(&format!("create database {COPY} template {TEMPLATE}")).await?;
    let began = Instant::now();
    let mut reader = Command::new(server.program("pg_dump")?)
        .args(["--schema", &schema, &at.database])
        .envs(server.environment())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .of("pg_dump")?;
    let pipe = reader
        .stdout
        .take()
        .ok_or_else(|| Failure::new("pg_dump says nothing"))?;
    let pipe: Stdio = pipe.try_into().of("pg_dump")?;
    let mut writer = Command::new(server.program("psql")?)
        .args([
            "--no-psqlrc",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            "--single-transaction",
        ])
        .args(["--dbname", COPY])
        .envs(server.environment())
        .stdin(pipe)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .of("psql")?;
    let (read, written) = tokio::join!(reader.wait(), writer.wait());
    let took = began.elapsed();
    for (program, status) in [
        ("pg_dump", read.of("pg_dump")?),
        ("psql", written.of("psql")?),
    ] {
        if !status.success() {
            return Err(Failure::new(format!("{program} ended with {status}")));
        }
    }
    copy(&format!("drop database {COPY}")).await?;
    Ok(took)
}

async fn placement(shop: &Shop) -> Result<PlacementView, Failure> {
    let view: TenantView = shop.admin().get(&format!("/tenants/{}", shop.slug)).await?;
    Ok(view.placement)
}
