//! Clerks of the tenant that is moved, and of neighbours that are not.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use super::COUNTRY;
use crate::Effort;
use crate::failure::Failure;
use crate::platform::Platform;
use crate::shop::{Clerk, Mix, Seen, Shop};

/// Writes in a second that are wished for (issue 5).
const WISHED: f64 = 500.0;

/// What of the rate that the machine reaches is asked of it, neighbours included: moving takes its share
/// too.
const SHARE: f64 = 0.5;

/// Clerks of the tenant.
const CLERKS: u32 = 16;

/// One write of each neighbour, so often.
const NEIGHBOURLY: Duration = Duration::from_millis(20);

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
    try_join_all((0..u64::from(CLERKS)).map(|n| Clerk::hire(shop, n, Mix::Moves, 1))).await
}

/// One clerk each of tenants that nobody moves.
pub(super) async fn hire_neighbours(shops: &[Shop]) -> Result<Vec<Clerk<'_>>, Failure> {
    try_join_all(shops.iter().map(|shop| Clerk::hire(shop, 0, Mix::Moves, 2))).await
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
    let interval = Duration::from_secs_f64(f64::from(CLERKS) / pace.asked);
    // One after another: writes that all come at once wait for each other, move or no move.
    let own = (0..).zip(own).map(async |(number, clerk)| {
        sleep(interval * number / CLERKS).await;
        clerk.work(interval, goes_on, |act| note(&seen, act)).await
    });
    let near_by = neighbours
        .iter_mut()
        .map(|clerk| clerk.work(NEIGHBOURLY, goes_on, |act| note(&near, act)));
    let moving = async {
        sleep(QUIET).await;
        let moved = moving.await;
        over.store(true, Ordering::Relaxed);
        moved
    };
    let (moved, own, near_by) = tokio::join!(moving, try_join_all(own), try_join_all(near_by));
    own.and(near_by)?;
    let worked = Worked {
        own: seen.into_inner().unwrap_or_default(),
        neighbours: near.into_inner().unwrap_or_default(),
    };
    Ok((moved?, worked))
}

fn note(list: &Mutex<Vec<Seen>>, act: Seen) {
    if let Ok(mut list) = list.lock() {
        list.push(act);
    }
}
