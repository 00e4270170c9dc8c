//! A move by its own record: how long each phase took, and when the tenant was frozen.
//!
//! Times are the control database's; it and the clerks are on one machine, and so have one clock.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;
use waangu_api::relocation::RelocationView;
use waangu_kernel::{Clock as _, SystemClock};

use crate::failure::{Failure, Of as _};

/// One moment by both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Anchor {
    instant: Instant,
    time: OffsetDateTime,
}

/// What a move says of itself.
#[derive(Debug)]
pub(super) struct Trail {
    /// From the wish to the end.
    pub(super) total: Duration,
    /// Each phase with the seconds until the next one.
    pub(super) phases: Vec<(String, f64)>,
    /// From the request for the freeze until the new place was open.
    pub(super) frozen: (Instant, Instant),
}

impl Anchor {
    pub(super) fn now() -> Self {
        Self {
            instant: Instant::now(),
            time: SystemClock.now(),
        }
    }

    /// What the record of a move that is done says.
    pub(super) fn trail(&self, view: &serde_json::Value) -> Result<Trail, Failure> {
        let view: RelocationView = serde_json::from_value(view.clone()).of("a move")?;
        let missing = || Failure::new("a move without its times");
        let (begun, ended) = view.created_at.zip(view.finished_at).ok_or_else(missing)?;
        let mut phases: Vec<(String, f64)> = Vec::new();
        let times = view.trail.iter().map(|event| event.at).skip(1);
        for (event, next) in view.trail.iter().zip(times.chain([ended])) {
            let seconds = (next - event.at).as_seconds_f64();
            match phases.last_mut() {
                Some((phase, sum)) if *phase == event.phase => *sum += seconds,
                _ => phases.push((event.phase.clone(), seconds)),
            }
        }
        phases.retain(|(phase, _)| phase != "done");
        let open = view.trail.iter().find(|event| event.phase == "finishing");
        let open = self.instant(open.ok_or_else(missing)?.at);
        let pause = Duration::from_secs_f64(view.pause_ms.ok_or_else(missing)? / 1000.0);
        Ok(Trail {
            total: (ended - begun).unsigned_abs(),
            phases,
            frozen: (open - pause, open),
        })
    }

    fn instant(&self, time: OffsetDateTime) -> Instant {
        self.instant + (time - self.time).unsigned_abs()
    }
}
