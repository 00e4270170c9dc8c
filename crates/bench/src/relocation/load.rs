//! Clerks of the tenant that is moved, and of neighbours that are not.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use super::COUNTRY;
use crate::Effort;
use crate::failure::{Failure, Of as _};
use crate::platform::Platform;
use crate::shop::{Clerk, Mix, Seen, Shop};

/// Writes in a second that are wished for (issue 5).
const WISHED: f64 = 500.0;

/// What of the rate that the machine reaches is asked of it, neighbours included: moving takes its share
/// too.
const SHARE: f64 = 0.5;

/// Clerks of the tenant.
const CLERKS: u64 = 16;

/// Clerks of each neighbour. With one, a write that is slow makes those behind it late, though their users would
/// not have waited for each other.
const NEAR_CLERKS: u64 = 8;

/// Writes in a second of all neighbours.
pub(super) const NEIGHBOURS: f64 = 100.0;

/// Between two moves, so that neighbours are seen without one.
pub(super) const QUIET: Duration = Duration::from_secs(2);

/// The load's pace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Writes in a second with all clerks in a hurry.
    pub(super) most: f64,
    /// Writes in a second that are asked of the tenant.
    pub(super) asked: f64,
}

/// How much the machine does when it moves nobody.
pub(super) async fn calibrate(platform: &Platform, effort: Effort) -> Result<Pace, Failure> {
    let shop = Shop::open(platform, "calibration", COUNTRY, "schema").await?;
    let length = match effort {
        Effort::Quick => Duration::from_secs(2),
        Effort::Full => Duration::from_secs(10),
    };
    let mut clerks = hire(&shop).await?;
    let end = Instant::now() + length;
    let done = AtomicU32::new(0);
    let working = clerks.iter_mut().map(|clerk| {
        let count = |_| _ = done.fetch_add(1, Ordering::Relaxed);
        clerk.work(Duration::ZERO, || Instant::now() < end, count)
    });
    try_join_all(working).await?;
    let most = f64::from(done.into_inner()) / length.as_secs_f64();
    Ok(Pace {
        most,
        asked: (most * SHARE - NEIGHBOURS).clamp(NEIGHBOURS, WISHED),
    })
}

/// The clerks of the tenant that will be moved.
pub(super) async fn hire(shop: &Shop) -> Result<Vec<Clerk<'_>>, Failure> {
    try_join_all((0..CLERKS).map(|n| Clerk::hire(shop, n, Mix::Moves, 1))).await
}

/// The clerks of tenants that nobody moves, shop by shop.
pub(super) async fn hire_neighbours(shops: &[Shop]) -> Result<Vec<Clerk<'_>>, Failure> {
    let clerks = shops
        .iter()
        .flat_map(|shop| (0..NEAR_CLERKS).map(move |n| Clerk::hire(shop, n, Mix::Moves, 2)));
    try_join_all(clerks).await
}

/// What the clerks saw.
#[derive(Debug, Default)]
pub(super) struct Worked {
    pub(super) own: Vec<Seen>,
    pub(super) neighbours: Vec<Seen>,
}

/// Lets them work until `moving` is over, and a while before it.
pub(super) async fn run<T>(
    own: &mut [Clerk<'_>],
    neighbours: &mut [Clerk<'_>],
    pace: Pace,
    moving: impl Future<Output = Result<T, Failure>>,
) -> Result<(T, Worked), Failure> {
    let over = AtomicBool::new(false);
    let goes_on = || !over.load(Ordering::Relaxed);
    let (seen, near) = (Mutex::default(), Mutex::default());
    let working = async {
        tokio::try_join!(
            steadily(own, pace.asked, goes_on, &seen),
            steadily(neighbours, NEIGHBOURS, goes_on, &near),
        )
    };
    let moving = async {
        sleep(QUIET).await;
        let moved = moving.await;
        over.store(true, Ordering::Relaxed);
        moved
    };
    let (moved, _) = tokio::try_join!(moving, working)?;
    let worked = Worked {
        own: seen.into_inner().unwrap_or_default(),
        neighbours: near.into_inner().unwrap_or_default(),
    };
    Ok((moved, worked))
}

/// They write so much in a second, one after another: writes that all come at once wait for each other, move
/// or no move.
async fn steadily(
    clerks: &mut [Clerk<'_>],
    pace: f64,
    goes_on: impl Fn() -> bool + Copy,
    seen: &Mutex<Vec<Seen>>,
) -> Result<(), Failure> {
    let turn = Duration::from_secs_f64(1.0 / pace);
    let count = u32::try_from(clerks.len()).of("clerks")?;
    let working = (0..).zip(clerks).map(async |(number, clerk)| {
        // Seven has no divisor in common with their number, so that all have turns, and shops are mixed.
        sleep(turn * (number * 7 % count)).await;
        let note = |act| {
            if let Ok(mut list) = seen.lock() {
                list.push(act);
            }
        };
        clerk.work(turn * count, goes_on, note).await
    });
    try_join_all(working).await.map(drop)
}
