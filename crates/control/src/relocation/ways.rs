//! Ways back without a copy: kept while somebody may still want to go them, and within bounds. Part of
//! housekeeping.
//!
//! Invariant: a slot that somebody reads is left to its reader, which has bounds of its own.

use std::fmt;

use waangu_kernel::{Fault, TenantId};
use waangu_registry::{Registry, Tx, WantedWay};
use waangu_relocation::{WayBack, close_way_back, ways_back};
use waangu_tenancy::CellAdmin;

use super::clean::unswept;

/// Bytes of a cell's log that the way back of one tenant may hold back.
const HELD: i64 = 1 << 30;

/// Why a way back is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It held back too much.
    Held(i64),
    /// What it would tell is gone, or it is.
    Lost,
    /// Nobody may go it any more.
    Over,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(bytes) => {
                let mb = bytes >> 20;
                write!(f, "it held back {mb} MB of the log: a move back copies now")
            }
            Self::Lost => f.write_str("its slot has gone: a move back copies now"),
            Self::Over => f.write_str("the way back is not kept any longer"),
        }
    }
}

/// What the registry knows of a cell's ways back.
struct Known {
    moving: Vec<TenantId>,
    wanted: Vec<WantedWay>,
    unwanted: Vec<WantedWay>,
}

/// Closes what is not to be kept at one cell, and records what the rest holds back.
pub(crate) async fn keep(registry: &Registry, cell: &CellAdmin) -> Result<(), Fault> {
    let mut session = registry.session().await?;
    let tx = session.begin().await?;
    let known = Known {
        moving: tx.list_moving().await?,
        wanted: tx.list_wanted_ways(cell.id()).await?,
        unwanted: tx.list_unwanted_ways(cell.id()).await?,
    };
    tx.commit().await?;
    // After the registry was asked: what is wanted then stands by now.
    let standing = ways_back(cell.config()).await.map_err(unswept)?;
    let ends = standing.iter().map(|way| (way, judge(way, &known)));
    for (way, end) in ends.filter_map(|(way, end)| Some((way, end?))) {
        match close_way_back(cell.config(), way).await {
            Ok(()) => {
                tracing::info!(cell = %cell.id(), way = %way.name, "closed a way back: {end}");
            }
            // The next round tries again; the others are closed now.
            Err(error) => {
                tracing::warn!(cell = %cell.id(), way = %way.name, "a way back stays: {error}");
            }
        }
    }
    let tx = session.begin().await?;
    record(&tx, &known, &standing).await?;
    tx.commit_lazily().await
}

async fn record(tx: &Tx<'_>, known: &Known, standing: &[WayBack]) -> Result<(), Fault> {
    for way in &known.unwanted {
        close(tx, way, End::Over).await?;
    }
    for way in &known.wanted {
        match standing.iter().find(|standing| is_of(standing, way)) {
            None => close(tx, way, End::Lost).await?,
            Some(found) => match judge(found, known) {
                Some(end) => close(tx, way, end).await?,
                None => tx.record_held(way.relocation, found.held).await?,
            },
        }
    }
    Ok(())
}

async fn close(tx: &Tx<'_>, way: &WantedWay, end: End) -> Result<(), Fault> {
    tx.close_way_back(way.relocation, &end.to_string()).await
}

/// Whether a slot is to be closed, and why. A move on its way may be making it, for a place that it has
/// not reached.
fn judge(way: &WayBack, known: &Known) -> Option<End> {
    let is_wanted = known.wanted.iter().any(|wanted| is_of(way, wanted));
    let mut moving = known.moving.iter();
    let is_moving = moving.any(|tenant| tenant.number() == way.tenant);
    if way.read {
        None
    } else if !is_wanted && !is_moving {
        Some(End::Over)
    } else if way.lost {
        Some(End::Lost)
    } else if way.held > HELD {
        Some(End::Held(way.held))
    } else {
        None
    }
}

fn is_of(way: &WayBack, wanted: &WantedWay) -> bool {
    way.tenant == wanted.tenant.number() && way.epoch == wanted.epoch
}

#[cfg(test)]
mod tests {
    use waangu_kernel::RelocationId;

    use super::*;

    fn way(tenant: i64, epoch: i64) -> WayBack {
        WayBack {
            tenant,
            epoch,
            name: format!("waangu_move_{tenant}_w{epoch}_a"),
            database: "waangu".to_owned(),
            held: 1,
            lost: false,
            read: false,
        }
    }

    /// A disk would fill for a way back that nobody goes, or a quick way back be lost without need.
    #[test]
    fn what_is_wanted_and_within_bounds_is_kept() {
        let tenant = |number| TenantId::new(number).expect("a number");
        let wanted = WantedWay {
            relocation: RelocationId::generate(),
            tenant: tenant(1),
            epoch: 2,
        };
        let known = Known {
            moving: vec![tenant(5)],
            wanted: vec![wanted],
            unwanted: Vec::new(),
        };
        let ended = |way: &WayBack| judge(way, &known);
        assert_eq!(ended(&way(1, 2)), None);
        assert_eq!(ended(&way(1, 1)), Some(End::Over), "of an earlier move");
        assert_eq!(ended(&way(3, 2)), Some(End::Over));
        assert_eq!(ended(&way(5, 9)), None, "it is being made");
        let held = HELD + 1;
        let large = WayBack { held, ..way(1, 2) };
        assert_eq!(ended(&large), Some(End::Held(held)));
        let read = WayBack {
            read: true,
            ..large
        };
        assert_eq!(ended(&read), None, "its reader has a bound");
        let lost = WayBack {
            lost: true,
            ..way(5, 9)
        };
        assert_eq!(ended(&lost), Some(End::Lost));
    }
}
