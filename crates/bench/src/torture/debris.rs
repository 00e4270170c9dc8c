//! What moves may not leave behind, asked of PostgreSQL itself and not of the platform's own sweeper.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use waangu_api::types::TenantView;

use crate::failure::{Failure, Of as _};
use crate::platform::Platform;
use crate::shop::{Shop, books};

/// Longest wait until all is swept.
const PATIENCE: Duration = Duration::from_mins(2);

/// Longest wait until everything that was killed is there again.
const RECOVERY: Duration = Duration::from_mins(1);

/// Waits until every cell answers again.
pub(super) async fn wait_until_up(platform: &Platform) -> Result<(), Failure> {
    let end = Instant::now() + RECOVERY;
    for cell in &platform.ready.cells {
        loop {
            let asked = books::with(&platform.ready, &cell.id, "postgres", async |client| {
                client.simple_query("select 1").await.of("select 1")
            });
            match asked.await {
                Ok(_) => break,
                Err(failure) if Instant::now() > end => return Err(failure),
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    }
    Ok(())
}

/// What is left, once there was time enough to sweep.
pub(super) async fn left(platform: &Platform, shops: &[Shop]) -> Result<Vec<String>, Failure> {
    let end = Instant::now() + PATIENCE;
    loop {
        let found = look(platform, shops).await;
        // A database that goes while it is looked into is an error, and what was hoped for.
        let is_clean = found.as_ref().is_ok_and(Vec::is_empty);
        if is_clean || Instant::now() > end {
            return found;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

async fn look(platform: &Platform, shops: &[Shop]) -> Result<Vec<String>, Failure> {
    let mut homes = Vec::new();
    for shop in shops {
        let view: TenantView = shop.admin().get(&format!("/tenants/{}", shop.slug)).await?;
        homes.push((shop, view.placement));
    }
    let mut found = Vec::new();
    for cell in &platform.ready.cells {
        let databases = databases(platform, &cell.id, &mut found).await?;
        for database in &databases {
            let strangers: Vec<&Shop> = homes
                .iter()
                .filter(|(_, at)| at.cell != cell.id || at.database != *database)
                .map(|(shop, _)| *shop)
                .collect();
            look_into(platform, &cell.id, database, &strangers, &mut found).await?;
        }
    }
    Ok(found)
}

/// The cell's databases with tenants; a slot that is left is noted.
async fn databases(
    platform: &Platform,
    cell: &str,
    found: &mut Vec<String>,
) -> Result<Vec<String>, Failure> {
    books::with(&platform.ready, cell, "postgres", async |client| {
        let slots = "select slot_name::text from pg_replication_slots";
        for row in client.query(slots, &[]).await.of(slots)? {
            let name: String = row.try_get(0).of(slots)?;
            found.push(format!("{cell}: slot {name}"));
        }
        let names = "select datname::text from pg_database
                      where datname ~ '^waangu_(shared|schema_[0-9]+|t_[0-9]+)$'";
        let rows = client.query(names, &[]).await.of(names)?;
        rows.iter().map(|row| row.try_get(0).of(names)).collect()
    })
    .await
}

/// Publications, and whatever is here of tenants who live elsewhere.
async fn look_into(
    platform: &Platform,
    cell: &str,
    database: &str,
    strangers: &[&Shop],
    found: &mut Vec<String>,
) -> Result<(), Failure> {
    books::with(&platform.ready, cell, database, async |client| {
        let publications = "select pubname::text from pg_publication";
        for row in client.query(publications, &[]).await.of(publications)? {
            let name: String = row.try_get(0).of(publications)?;
            found.push(format!("{cell}/{database}: publication {name}"));
        }
        for shop in strangers {
            let number = shop.tenant.number();
            let tables = "select format('%I.%I', n.nspname, c.relname)
                            from pg_class c
                            join pg_namespace n on n.oid = c.relnamespace
                           where c.relkind = 'r'
                             and (n.nspname = 'inventory' or n.nspname ~ ('^t_' || $1 || '_'))";
            let number_text = number.to_string();
            for row in client.query(tables, &[&number_text]).await.of(tables)? {
                let table: String = row.try_get(0).of(tables)?;
                let sql = format!("select count(*) from {table} where tenant_id = $1");
                let row = client.query_one(&sql, &[&number]).await.of(&sql)?;
                let rows: i64 = row.try_get(0).of(&sql)?;
                let is_own = table.starts_with("t_");
                if rows > 0 || is_own {
                    let slug = &shop.slug;
                    found.push(format!("{cell}/{database}: {table}, {rows} rows of {slug}"));
                }
            }
            let own = format!("waangu_t_{number}");
            if database == own {
                found.push(format!("{cell}: database {own}"));
            }
        }
        Ok(())
    })
    .await
}
