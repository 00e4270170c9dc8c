//! The fleet's: workers onboard, suspend, resume, delete, switch modules and deploy newer packages, while
//! two control processes and all PostgreSQL servers are killed at random. Then everything has to settle,
//! and every tenant has to be what was last acknowledged, once.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_postgres::NoTls;
use waangu_api::fleet::{FleetView, RepairView};
use waangu_api::types::TenantView;
use waangu_api::{Client, ClientError};

use super::kills::{self, Kind, Second};
use super::model::{Act, Fate, Ledger};
use super::{Chance, Ordeal, Outcome};
use crate::failure::{Failure, Of as _};
use crate::platform::Platform;
use crate::progress::talk;
use crate::scratch::Scratch;

/// Clients at once.
const WORKERS: u64 = 3;

/// Longest wait until everything has settled after the last kill.
const SETTLE: Duration = Duration::from_mins(3);

/// Longest time that one act may be asked for again and again.
const PATIENCE: Duration = Duration::from_mins(2);

/// Acts of one worker from one deployment to the next.
const DEPLOY_EVERY: u64 = 40;

/// What all share.
struct Arena {
    client: Client,
    packages: PathBuf,
    operations: AtomicU64,
    kills: AtomicU64,
    /// Answers that nobody expects.
    odd: Mutex<Vec<String>>,
    deployed: AtomicU64,
}

pub(super) async fn run(ordeal: Ordeal, programs: &Path) -> Result<Outcome, Failure> {
    let scratch = Scratch::new()?;
    let arguments = ["--http-port", "0", "--name-grace", "0"];
    let (platform, _start) = Platform::start(programs, &scratch, &arguments).await?;
    let arena = Arena {
        client: platform.admin()?,
        packages: scratch.path("state").join("packages/inventory.json"),
        operations: AtomicU64::new(0),
        kills: AtomicU64::new(0),
        odd: Mutex::default(),
        deployed: AtomicU64::new(0),
    };
    let mut second = Second::new(programs, &scratch, kills::control_file(&scratch));
    second.start()?;
    let end = Instant::now() + ordeal.length;
    let workers = (0..WORKERS).map(|number| work(&arena, number, ordeal.seed, end));
    let (ledgers, killed) = tokio::join!(
        futures_util::future::join_all(workers),
        kill(&arena, &platform, &mut second, ordeal.seed, end),
    );
    killed?;
    talk("waiting until everything has settled");
    // Whoever died last is followed by somebody.
    second.kill();
    second.start()?;
    let mut losses = arena.odd.lock().map(|odd| odd.clone()).unwrap_or_default();
    if let Some(why) = settle(&arena).await {
        losses.push(why);
    }
    for ledger in &ledgers {
        check_tenants(&arena, ledger, &mut losses).await;
    }
    check_cells(&arena, &platform, &ledgers, &mut losses).await?;
    drop(second);
    platform.stop().await?;
    scratch.remove()?;
    Ok(Outcome {
        operations: arena.operations.into_inner(),
        kills: arena.kills.into_inner(),
        losses,
    })
}

async fn work(arena: &Arena, number: u64, seed: u64, end: Instant) -> Ledger {
    let mut chance = Chance::new(seed.wrapping_add(number.wrapping_mul(7919)));
    let mut ledger = Ledger {
        worker: number,
        ..Ledger::default()
    };
    let mut acts = 0;
    while Instant::now() < end {
        acts += 1;
        if number == 0 && acts % DEPLOY_EVERY == 0 {
            deploy(arena).unwrap_or_else(|failure| talk(&format!("not deployed: {failure}")));
        }
        let act = ledger.choose(&mut chance);
        let key = format!("{seed}-{number}-{acts}");
        if persist(arena, &ledger, &act, &key).await {
            ledger.promise(&act);
            arena.operations.fetch_add(1, Ordering::Relaxed);
        }
        sleep(Duration::from_millis(chance.below(120))).await;
    }
    ledger
}

/// Puts a newer package where the control plane reads it at its next start.
fn deploy(arena: &Arena) -> Result<(), Failure> {
    let number = arena.deployed.fetch_add(1, Ordering::Relaxed) + 1;
    let path = arena.packages.display();
    let text = std::fs::read(&arena.packages).of(path)?;
    let mut package: Value = serde_json::from_slice(&text).of("package")?;
    let version = format!("9.{number}.0");
    if let Some(field) = package.pointer_mut("/manifest/version") {
        *field = version.clone().into();
    }
    if let Some(Value::Array(migrations)) = package.get_mut("migrations") {
        let sql = format!("alter table product add column torture_{number} text");
        migrations.push(json!({ "name": version, "sql": sql }));
    }
    // Aside and renamed: a control process may be starting right now.
    let aside = arena.packages.with_extension("draft");
    std::fs::write(&aside, package.to_string()).of(aside.display())?;
    std::fs::rename(&aside, &arena.packages).of("package")
}

/// Asks until it is answered; the key makes that safe. Says whether the act was acknowledged.
async fn persist(arena: &Arena, ledger: &Ledger, act: &Act, key: &str) -> bool {
    let of = |index: &usize| {
        let tenant = ledger.tenant(*index);
        let slug = tenant.map(|tenant| tenant.slug.as_str());
        format!("/tenants/{}", slug.unwrap_or_default())
    };
    let (method, path, body) = match act {
        Act::Create { slug, tier } => {
            let country = if slug.len() % 2 == 0 { "SN" } else { "FR" };
            let wish = json!({ "slug": slug, "name": slug, "country": country, "tier": tier });
            (Method::POST, "/tenants".to_owned(), wish)
        }
        Act::Suspend(index) => (Method::POST, of(index) + "/suspend", json!({})),
        Act::Resume(index) => (Method::POST, of(index) + "/resume", json!({})),
        Act::Delete(index) => (Method::DELETE, of(index), json!({})),
        Act::Enable(index) => (Method::PUT, of(index) + "/modules/inventory", json!({})),
        Act::Disable(index) => (Method::DELETE, of(index) + "/modules/inventory", json!({})),
    };
    let begun = Instant::now();
    loop {
        let answer: Result<Value, ClientError> = arena
            .client
            .send_json(method.clone(), &path, &body, Some(key))
            .await;
        let why = match answer {
            Ok(_) => return true,
            Err(ClientError::Refused(problem)) if problem.status < 500 => {
                note(arena, format!("{method} {path}: {}", problem.code));
                return false;
            }
            Err(error) => error,
        };
        if begun.elapsed() > PATIENCE {
            note(arena, format!("{method} {path}: no answer: {why}"));
            return false;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn note(arena: &Arena, text: String) {
    if let Ok(mut odd) = arena.odd.lock() {
        odd.push(text);
    }
}

/// Kills one of the control processes or PostgreSQL servers every few seconds.
async fn kill(
    arena: &Arena,
    platform: &Platform,
    second: &mut Second,
    seed: u64,
    end: Instant,
) -> Result<(), Failure> {
    let mut chance = Chance::new(seed ^ 0x6b69_6c6c);
    while Instant::now() < end {
        sleep(Duration::from_millis(500 + chance.below(3500))).await;
        let killed = match chance.below(5) {
            0 | 1 => kills::kill(platform, Kind::Control, &mut chance),
            2 | 3 => {
                second.kill();
                second.start()?;
                true
            }
            _ => kills::kill(platform, Kind::Postgres, &mut chance),
        };
        arena.kills.fetch_add(u64::from(killed), Ordering::Relaxed);
    }
    Ok(())
}

/// Waits until nobody is behind and no rollout is on its way; says why not, if it never is.
async fn settle(arena: &Arena) -> Option<String> {
    let end = Instant::now() + SETTLE;
    let mut last = "the admin API does not answer".to_owned();
    while Instant::now() < end {
        if let Ok(fleet) = arena.client.get::<FleetView>("/fleet").await {
            if fleet.behind == 0 && fleet.rollouts.is_empty() {
                return None;
            }
            last = format!("{} behind, failing: {:?}", fleet.behind, fleet.failing);
        }
        sleep(Duration::from_millis(300)).await;
    }
    Some(format!("not settled after {} s: {last}", SETTLE.as_secs()))
}

/// Every tenant is what was promised.
async fn check_tenants(arena: &Arena, ledger: &Ledger, losses: &mut Vec<String>) {
    for promised in &ledger.tenants {
        let slug = &promised.slug;
        let path = format!("/tenants/{slug}");
        match arena.client.get::<TenantView>(&path).await {
            Ok(tenant) => {
                let state = match promised.fate {
                    Fate::Active => "active",
                    Fate::Suspended => "suspended",
                    Fate::Deleted => "gone",
                };
                let on = tenant
                    .modules
                    .iter()
                    .any(|module| module.enabled && module.ready);
                if tenant.state != state || on != promised.module_on {
                    let now = tenant.state;
                    losses.push(format!(
                        "{slug}: {now}, module on: {on}; promised: {promised:?}"
                    ));
                }
            }
            Err(ClientError::Refused(problem))
                if problem.status == 404 && promised.fate == Fate::Deleted => {}
            Err(error) => losses.push(format!("{slug}: {error}; promised: {promised:?}")),
        }
    }
}

/// Nothing is in the cells that is not wanted there, and nothing is missing; nobody was made twice.
async fn check_cells(
    arena: &Arena,
    platform: &Platform,
    ledgers: &[Ledger],
    losses: &mut Vec<String>,
) -> Result<(), Failure> {
    let wish = json!({ "dry_run": true });
    let mut repair: RepairView = arena
        .client
        .send_json(Method::POST, "/fleet/repairs", &wish, None)
        .await?;
    let path = format!("/fleet/repairs/{}", repair.id);
    let end = Instant::now() + SETTLE;
    while !repair.is_over() && Instant::now() < end {
        sleep(Duration::from_millis(300)).await;
        repair = arena.client.get(&path).await?;
    }
    if !repair.is_over() {
        losses.push("the look for drift does not end".to_owned());
    }
    losses.extend(repair.error);
    for found in repair.findings {
        losses.push(format!(
            "{} in {}: {}",
            found.object, found.database, found.found
        ));
    }
    let registry = &platform.ready.control_dsn;
    let made: usize = ledgers.iter().map(|ledger| ledger.tenants.len()).sum();
    let made = i64::try_from(made).unwrap_or(i64::MAX);
    let questions = [
        (
            "tenants that were ever made",
            "select count(*) from registry.tenant",
            made,
        ),
        (
            "open operations",
            "select count(*) from registry.operation where status in ('pending', 'running')",
            0,
        ),
        (
            "namespaces behind their module",
            "select count(*) from registry.namespace n join registry.module m on m.id = n.module
              where n.package_hash <> m.package_hash",
            0,
        ),
    ];
    for (what, sql, wanted) in questions {
        let found = number(registry, sql).await?;
        if found != wanted {
            losses.push(format!("{what}: {found}; expected: {wanted}"));
        }
    }
    let mut databases = 0;
    for cell in &platform.ready.cells {
        let sql = "select count(*) from pg_database where datname ~ '^waangu_t_[0-9]+$'";
        databases += number(&cell.superuser_dsn, sql).await?;
    }
    let sql =
        "select count(*) from registry.tenant where tier = 'dedicated' and state <> 'deleted'";
    let wanted = number(registry, sql).await?;
    if databases != wanted {
        losses.push(format!(
            "databases of single tenants: {databases}; expected: {wanted}"
        ));
    }
    Ok(())
}

async fn number(dsn: &str, sql: &str) -> Result<i64, Failure> {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await.of("database")?;
    let asked = async { client.query_one(sql, &[]).await.of(sql)?.try_get(0).of(sql) };
    tokio::select! {
        number = asked => number,
        _ = connection => Err(Failure::new("the connection was closed")),
    }
}
