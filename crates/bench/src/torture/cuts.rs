//! Cutting the ways to the cells: the servers are well, and can't be reached, or nothing is heard of them.
//!
//! Each user of the cells has ways of its own, so that one is cut off from a cell that others work with: the
//! second control process, and the modules. In the end all ways are open.
//!
//! Left out: the first control process, the gateway, and everybody's way to the control database. Somebody has
//! to go on with what the others can't, or a torture would mostly wait.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_postgres::Config;
use waangu_api::Ready;
use waangu_testkit::{Relay, Way};

use super::Chance;
use crate::failure::{Failure, Of as _};

/// One user's ways to all cells.
#[derive(Debug)]
pub(super) struct Ways(Vec<(u16, Relay)>);

impl Ways {
    /// All are open.
    pub(super) async fn open(ready: &Ready) -> Result<Self, Failure> {
        let mut ways = Vec::new();
        for cell in &ready.cells {
            let dsn: Config = cell.superuser_dsn.parse().of(&cell.id)?;
            let port = dsn.get_ports().first().copied();
            let port = port.ok_or_else(|| Failure::new(format!("{} has no port", cell.id)))?;
            ways.push((port, Relay::start(port).await));
        }
        Ok(Self(ways))
    }

    /// Writes a configuration file of the platform's anew, so that its reader comes to the cells this way.
    pub(super) fn lead(&self, from: &Path, to: &Path) -> Result<(), Failure> {
        let text = std::fs::read_to_string(from).of(from.display())?;
        let mut led = 0;
        let lines = text.lines().map(|line| {
            let port = line
                .strip_prefix("port = ")
                .and_then(|port| port.parse().ok());
            let way = self.0.iter().find(|(to, _)| Some(*to) == port);
            let Some((_, relay)) = way else {
                return format!("{line}\n");
            };
            led += 1;
            format!("port = {}\n", relay.port())
        });
        let text: String = lines.collect();
        if led < self.0.len() {
            let text = format!("{} does not name the ports of all cells", from.display());
            return Err(Failure::new(text));
        }
        std::fs::write(to, text).of(to.display())
    }

    /// Cuts one at a time, until `end`; says how often.
    pub(super) async fn cut(&self, mut chance: Chance, end: Instant) -> u64 {
        let mut cuts = 0;
        loop {
            let rest = Duration::from_millis(500 + chance.below(4000));
            sleep_until(end.min(Instant::now() + rest)).await;
            if Instant::now() >= end {
                return cuts;
            }
            let Some((_, relay)) = chance.pick(&self.0) else {
                return cuts;
            };
            let (way, lasts) = choose(&mut chance);
            relay.set(way);
            sleep_until(end.min(Instant::now() + lasts)).await;
            relay.set(Way::Open);
            cuts += 1;
        }
    }
}

/// Mostly short, and now and then longer than anybody waits for an answer (20 s).
fn choose(chance: &mut Chance) -> (Way, Duration) {
    let (way, millis) = match chance.below(12) {
        0..6 => (Way::Cut, 200 + chance.below(2_800)),
        6..11 => (Way::Silent, 1_000 + chance.below(4_000)),
        _ => (Way::Silent, 5_000 + chance.below(20_000)),
    };
    (way, Duration::from_millis(millis))
}
