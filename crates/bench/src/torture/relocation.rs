//! Moves': tenants are moved to and fro between tiers and cells, in random directions, while their clerks
//! work, control planes, gateway, modules and PostgreSQL servers are killed at random, and the ways of one
//! control plane and of the modules to the cells are cut ([`cuts`](super::cuts)). Then everything has to
//! settle: every acknowledged write is there once, sums hold, the tenant that nobody moved is untouched, and
//! nothing is left behind ([`debris`]).

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use waangu_api::ClientError;
use waangu_api::types::TenantView;

use super::cuts::Ways;
use super::kills::{self, Kind, Second};
use super::{Chance, Ordeal, Outcome, debris};
use crate::failure::Failure;
use crate::moves::{self, Target};
use crate::platform::Platform;
use crate::progress::talk;
use crate::scratch::Scratch;
use crate::shop::{Clerk, Mix, Seen, Shop, books};
use crate::stats::Summary;

const TIERS: [&str; 3] = ["shared", "schema", "dedicated"];

/// Tenants that are moved. One more never is.
const MOVED: usize = 3;

/// Clerks of each tenant.
const CLERKS: u64 = 2;

/// Longest time that a move may take while everything is killed around it, and afterwards.
const PATIENCE: Duration = Duration::from_mins(3);

/// Seconds for which a tenant may be taken back: some are in time, and others too late.
const GRACE: &str = "10";

/// A country whose tenants may live in every cell.
const COUNTRY: &str = "SN";

struct Arena<'a> {
    platform: &'a Platform,
    cells: Vec<&'a str>,
    end: Instant,
    seed: u64,
    moves: AtomicU64,
    undone: AtomicU64,
    /// Moves that found their rows at the new place.
    adopted: AtomicU64,
    kills: AtomicU64,
    cuts: AtomicU64,
    /// For how long writers waited for each move, in milliseconds.
    pauses: Mutex<Vec<f64>>,
    /// How long acts took, in milliseconds.
    took: Mutex<Vec<f64>>,
    /// What should not have happened.
    odd: Mutex<Vec<String>>,
}

pub(super) async fn run(ordeal: Ordeal, programs: &Path) -> Result<Outcome, Failure> {
    let scratch = Scratch::new()?;
    let arguments = ["--http-port", "0", "--move-grace", GRACE];
    let (platform, _start) = Platform::start(programs, &scratch, &arguments).await?;
    let mut chance = Chance::new(ordeal.seed ^ 0x6375_7473);
    let modules = lead_modules(&platform, &scratch, &mut chance).await?;
    let mut shops = Vec::new();
    for number in 0..=MOVED {
        let tier = TIERS.get(number % TIERS.len()).copied().unwrap_or("shared");
        let slug = format!("shop-{number}");
        shops.push(Shop::open(&platform, &slug, COUNTRY, tier).await?);
    }
    let mut clerks = Vec::new();
    for shop in &shops {
        let hired = (0..CLERKS).map(|n| Clerk::hire(shop, n, Mix::Everything, ordeal.seed));
        clerks.push(try_join_all(hired).await?);
    }
    let (ways, mut second) = start_second(&platform, programs, &scratch).await?;
    let arena = Arena {
        platform: &platform,
        cells: platform
            .ready
            .cells
            .iter()
            .map(|cell| cell.id.as_str())
            .collect(),
        end: Instant::now() + ordeal.length,
        seed: ordeal.seed,
        moves: AtomicU64::new(0),
        undone: AtomicU64::new(0),
        adopted: AtomicU64::new(0),
        kills: AtomicU64::new(0),
        cuts: AtomicU64::new(0),
        pauses: Mutex::default(),
        took: Mutex::default(),
        odd: Mutex::default(),
    };
    let resting = shops.last().ok_or_else(|| Failure::new("no shop"))?;
    let before = placement(resting).await?;
    let moving = shops.iter().take(MOVED).enumerate();
    let working = clerks.iter_mut().flatten();
    let (worked, moved, killed, ..) = tokio::join!(
        try_join_all(working.map(|clerk| work(&arena, clerk))),
        try_join_all(moving.map(|(number, shop)| shift(&arena, shop, number))),
        kill(&arena, &mut second),
        cut(&arena, &ways, chance.clone()),
        cut(&arena, &modules, Chance::new(chance.below(u64::MAX))),
    );
    worked.and(moved).and(killed)?;
    talk("comparing the clerks' notes with the rows");
    second.kill();
    let mut losses = arena.odd.lock().map(|odd| odd.clone()).unwrap_or_default();
    debris::wait_until_up(&platform).await?;
    for clerks in &clerks {
        losses.extend(books::compare(&platform.ready, clerks).await?);
    }
    let after = placement(resting).await?;
    if before != after {
        losses.push(format!(
            "nobody moved {}: {before}, now {after}",
            resting.slug
        ));
    }
    losses.extend(debris::left(&platform, &shops).await?);
    // Only its own log says which moves it ended.
    tell(&arena, second.said(": moved ")?);
    let operations = arena.took.lock().map_or(0, |took| took.len());
    let outcome = Outcome {
        operations: u64::try_from(operations).unwrap_or(0) + arena.moves.load(Ordering::Relaxed),
        kills: arena.kills.load(Ordering::Relaxed),
        losses,
    };
    drop(second);
    platform.stop().await?;
    scratch.remove()?;
    Ok(outcome)
}

/// Starts the modules again, with ways to the cells that can be cut.
async fn lead_modules(
    platform: &Platform,
    scratch: &Scratch,
    chance: &mut Chance,
) -> Result<Ways, Failure> {
    let ways = Ways::open(&platform.ready).await?;
    let config = scratch.path("state").join("run/inventory.toml");
    ways.lead(&config, &config)?;
    if !kills::kill(platform, Kind::Module, chance) {
        return Err(Failure::new("there is no module to start again"));
    }
    Ok(ways)
}

/// Starts a second control process, with ways to the cells that can be cut.
async fn start_second(
    platform: &Platform,
    programs: &Path,
    scratch: &Scratch,
) -> Result<(Ways, Second), Failure> {
    let ways = Ways::open(&platform.ready).await?;
    let config = scratch.path("second.toml");
    ways.lead(&kills::control_file(scratch), &config)?;
    let mut second = Second::new(programs, scratch, config);
    second.start()?;
    Ok((ways, second))
}

async fn placement(shop: &Shop) -> Result<String, Failure> {
    let view: TenantView = shop.admin().get(&format!("/tenants/{}", shop.slug)).await?;
    Ok(books::place(&view.placement))
}

async fn work(arena: &Arena<'_>, clerk: &mut Clerk<'_>) -> Result<(), Failure> {
    let see = |seen: Seen| {
        if let Ok(mut took) = arena.took.lock() {
            took.push(seen.took.as_secs_f64() * 1000.0);
        }
    };
    clerk
        .work(Duration::ZERO, || Instant::now() < arena.end, see)
        .await
}

/// Moves one tenant again and again, mostly to somewhere else, sometimes back.
async fn shift(arena: &Arena<'_>, shop: &Shop, number: usize) -> Result<(), Failure> {
    let number = u64::try_from(number).unwrap_or(0);
    let mut chance = Chance::new(arena.seed ^ number.wrapping_mul(0x9fb2_1c65_1e98_df25));
    let mut asked = 0_u64;
    while Instant::now() < arena.end {
        sleep(Duration::from_millis(chance.below(1500))).await;
        let target = (chance.below(3) > 0).then(|| Target {
            tier: chance.pick(&TIERS).copied().unwrap_or("shared"),
            cell: chance.pick(&arena.cells).copied().unwrap_or_default(),
        });
        asked += 1;
        let key = format!("move-{}-{asked}", shop.slug);
        let Some(id) = ask(arena, shop, target, &key).await? else {
            continue;
        };
        let moved = moves::follow(shop.admin(), &shop.slug, &id, PATIENCE).await?;
        arena.moves.fetch_add(1, Ordering::Relaxed);
        let adopted = moved.view.get("adopted").and_then(Value::as_bool);
        arena
            .adopted
            .fetch_add(u64::from(adopted == Some(true)), Ordering::Relaxed);
        if let Some(pause) = moved.view.get("pause_ms").and_then(Value::as_f64)
            && let Ok(mut pauses) = arena.pauses.lock()
        {
            pauses.push(pause);
        }
        if !moved.is_done() {
            arena.undone.fetch_add(1, Ordering::Relaxed);
            talk(&format!("{} {}: {}", shop.slug, moved.state, moved.view));
        }
    }
    Ok(())
}

/// Asks until there is an answer. Nothing where the tenant is there already, or there is no way back.
async fn ask(
    arena: &Arena<'_>,
    shop: &Shop,
    target: Option<Target<'_>>,
    key: &str,
) -> Result<Option<String>, Failure> {
    let begun = Instant::now();
    loop {
        let asked = match target {
            Some(target) => moves::ask(shop.admin(), &shop.slug, target, key).await,
            None => moves::ask_back(shop.admin(), &shop.slug, key).await,
        };
        let why = match asked {
            Ok(id) => return Ok(Some(id)),
            Err(ClientError::Refused(problem)) if problem.code == "already-there" => {
                return Ok(None);
            }
            Err(ClientError::Refused(problem))
                if target.is_none() && problem.code == "relocation-not-found" =>
            {
                return Ok(None);
            }
            Err(ClientError::Refused(problem)) if problem.status < 500 => {
                let text = format!("{} to {target:?}: {}", shop.slug, problem.detail);
                if let Ok(mut odd) = arena.odd.lock() {
                    odd.push(text);
                }
                return Ok(None);
            }
            Err(error) => error,
        };
        if begun.elapsed() > PATIENCE {
            return Err(Failure::new(format!("{}: {why}", shop.slug)));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn kill(arena: &Arena<'_>, second: &mut Second) -> Result<(), Failure> {
    let mut chance = Chance::new(arena.seed ^ 0x6b69_6c6c);
    while Instant::now() < arena.end {
        sleep(Duration::from_millis(500 + chance.below(4000))).await;
        let kind = match chance.below(8) {
            0 | 1 => Kind::Control,
            2 => Kind::Gateway,
            3 => Kind::Module,
            4 | 5 => Kind::Postgres,
            _ => {
                second.kill();
                second.start()?;
                arena.kills.fetch_add(1, Ordering::Relaxed);
                continue;
            }
        };
        let killed = kills::kill(arena.platform, kind, &mut chance);
        arena.kills.fetch_add(u64::from(killed), Ordering::Relaxed);
    }
    Ok(())
}

async fn cut(arena: &Arena<'_>, ways: &Ways, chance: Chance) {
    let cuts = ways.cut(chance, arena.end).await;
    arena.cuts.fetch_add(cuts, Ordering::Relaxed);
}

fn tell(arena: &Arena<'_>, by_second: usize) {
    let of = |samples: &Mutex<Vec<f64>>| {
        let samples = samples.lock().map(|samples| samples.clone());
        let samples = samples.unwrap_or_default();
        let summary = Summary::of(&samples);
        let (median, max) = summary.map_or((0.0, 0.0), |found| (found.median, found.max));
        (samples.len(), median, max)
    };
    let ((writes, _, slowest), (pauses, pause, longest)) = (of(&arena.took), of(&arena.pauses));
    let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
    talk(&format!(
        "{} cuts; {} moves, of which {by_second} were ended by the control plane that is cut off, {} were given up and {} found their rows still there; pauses of {pauses}: median {pause:.0} ms, longest {longest:.0} ms; slowest of {writes} writes: {slowest:.0} ms, outages included",
        count(&arena.cuts),
        count(&arena.moves),
        count(&arena.undone),
        count(&arena.adopted),
    ));
}
