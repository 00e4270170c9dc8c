//! The bench `relocation`: what a tenant and its neighbours notice while it is moved, and how long that
//! takes beside a dump of the same rows on an idle server.
//!
//! Invariants: clerks write all the time at a pace that the platform sustained before ([`load::calibrate`]),
//! and a write that is late counts from when it was due; after each move nobody is moved for as long as
//! it took, so that neighbours are seen with and without one in the same minutes; the dump is taken of the
//! same rows, before the first move and after the last; each tenant's books are compared row by row
//! afterwards, and the rows that nobody touches by count and digest.
//!
//! Left out: moves over a network (both cells are on this machine), and readers.

mod dump;
mod load;
mod result;
mod trail;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::failure::Failure;
use crate::moves::{self, Target};
use crate::peers::server::Server;
use crate::platform::Platform;
use crate::report::Report;
use crate::scratch::Scratch;
use crate::shop::{Clerk, Shop, books};
use crate::{Context, Effort};

use result::{Moved, Sized};
use trail::Anchor;

/// A country whose tenants may live in both cells.
const COUNTRY: &str = "SN";

/// Where a tenant begins, and where every second move comes from.
const HOME: Target<'_> = Target {
    tier: "schema",
    cell: "sn-dakar-a",
};

/// Where it goes, in turns with [`HOME`]: all tiers, both cells.
const AWAY: [Target<'_>; 4] = [
    Target {
        tier: "dedicated",
        cell: "sn-dakar-a",
    },
    Target {
        tier: "shared",
        cell: "sn-dakar-a",
    },
    Target {
        tier: "dedicated",
        cell: "eu-west-1a",
    },
    Target {
        tier: "shared",
        cell: "eu-west-1a",
    },
];

/// Tenants that nobody moves.
const NEIGHBOURS: [(&str, &str); 2] = [("near-shared", "shared"), ("near-schema", "schema")];

/// Longest time without a move after one.
const LONGEST_REST: Duration = Duration::from_mins(1);

/// Longest time for one move.
const PATIENCE: Duration = Duration::from_mins(10);

/// What a fair comparison would also want, and this bench does not give.
const NOT_MEASURED: [&str; 3] = [
    "moves over a real network: both cells and all clients are on one machine",
    "other platforms' moves: none of the peers moves a tenant while it works",
    "tenants with thousands of tables, and rows of megabytes",
];

/// A tenant's size and how often it is moved.
#[derive(Debug, Clone, Copy)]
struct Size {
    megabytes: i64,
    /// An even number: it ends where it began, and is dumped again.
    moves: usize,
    /// How often it is dumped, before and after.
    dumps: usize,
}

fn sizes(effort: Effort) -> Vec<Size> {
    let size = |megabytes, moves, dumps| Size {
        megabytes,
        moves,
        dumps,
    };
    match effort {
        Effort::Quick => vec![size(10, 4, 2), size(100, 2, 1)],
        Effort::Full => vec![size(10, 16, 3), size(100, 8, 2), size(1000, 4, 1)],
    }
}

/// Measures all of it.
pub(crate) async fn measure(context: &Context) -> Result<Report, Failure> {
    let mut report = Report {
        not_measured: NOT_MEASURED.map(str::to_owned).to_vec(),
        ..Report::default()
    };
    let scratch = Scratch::new()?;
    let arguments = ["--http-port", "0", "--move-grace", "0"];
    let (platform, _start) = Platform::start(&context.programs, &scratch, &arguments).await?;
    let server = Server::of(&platform, HOME.cell)?;
    server.describe(&mut report).await?;
    for cell in &platform.ready.cells {
        Server::of(&platform, &cell.id)?.wear_in().await?;
    }
    let mut near = Vec::new();
    for (slug, tier) in NEIGHBOURS {
        near.push(Shop::open(&platform, slug, COUNTRY, tier).await?);
    }
    let mut neighbours = load::hire_neighbours(&near).await?;
    let pace = load::calibrate(&platform, context.effort).await?;
    let stage = Stage {
        context,
        platform: &platform,
        server,
        pace,
        anchor: Anchor::now(),
    };
    let mut all = Vec::new();
    for size in sizes(context.effort) {
        let steps = size.moves;
        let text = format!("{} MB, {} moves", size.megabytes, size.moves);
        context.progress.phase(&text, steps);
        all.push(measure_size(&stage, size, &mut neighbours).await?);
    }
    let mut wrong = Vec::new();
    for clerks in neighbours.chunk_by(|one, next| std::ptr::eq(one.shop, next.shop)) {
        wrong.extend(books::compare(&platform.ready, clerks).await?);
    }
    platform.stop().await?;
    scratch.remove()?;
    result::tell(&all, wrong, pace, &mut report);
    Ok(report)
}

/// What all sizes share.
struct Stage<'a> {
    context: &'a Context,
    platform: &'a Platform,
    server: Server,
    pace: load::Pace,
    anchor: Anchor,
}

async fn measure_size(
    stage: &Stage<'_>,
    size: Size,
    neighbours: &mut [Clerk<'_>],
) -> Result<Sized, Failure> {
    let slug = format!("mb-{}", size.megabytes);
    let shop = Shop::open(stage.platform, &slug, COUNTRY, HOME.tier).await?;
    let filled = dump::fill(stage.platform, &shop, size.megabytes).await?;
    let mut dumped = Vec::new();
    dump_often(stage, &shop, size.dumps, &mut dumped).await?;
    let mut clerks = load::hire(&shop).await?;
    let moving = shift(stage, &shop, size.moves);
    let (moved, seen) = load::run(&mut clerks, neighbours, stage.pace, moving).await?;
    dump_often(stage, &shop, size.dumps, &mut dumped).await?;
    let mut wrong = books::compare(&stage.platform.ready, &clerks).await?;
    let kept = dump::digest(stage.platform, &shop).await?;
    if kept != filled {
        wrong.push(format!(
            "{slug}: rows that nobody touched: {filled}, now {kept}"
        ));
    }
    Ok(Sized {
        megabytes: size.megabytes,
        dumped,
        moved,
        seen,
        wrong,
    })
}

/// In the schema tier a dump is one program's work; nobody writes meanwhile.
async fn dump_often(
    stage: &Stage<'_>,
    shop: &Shop,
    times: usize,
    dumped: &mut Vec<Duration>,
) -> Result<(), Failure> {
    for _time in 0..times {
        dumped.push(dump::dump(stage.platform, &stage.server, shop).await?);
    }
    Ok(())
}

/// Moves the tenant to and fro.
async fn shift(stage: &Stage<'_>, shop: &Shop, times: usize) -> Result<Vec<Moved>, Failure> {
    let mut moved = Vec::new();
    for number in 0..times {
        let (target, slug) = (target(number), &shop.slug);
        let key = format!("{slug}-{number}");
        let began = Instant::now();
        let id = moves::ask(shop.admin(), slug, target, &key).await?;
        let done = moves::follow(shop.admin(), slug, &id, PATIENCE).await?;
        if !done.is_done() {
            let what = format!("{slug} to {target:?}: {}", done.view);
            return Err(Failure::new(what));
        }
        let one = Moved {
            target,
            began,
            ended: began + done.took,
            trail: stage.anchor.trail(&done.view)?,
        };
        stage.context.progress.step();
        sleep(one.took().clamp(load::QUIET, LONGEST_REST)).await;
        moved.push(one);
    }
    Ok(moved)
}

fn target(number: usize) -> Target<'static> {
    if number % 2 == 1 {
        return HOME;
    }
    AWAY.get(number / 2 % AWAY.len()).copied().unwrap_or(HOME)
}
