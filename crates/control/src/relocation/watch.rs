//! Moves that nobody works on, and of which the registry does not know whether they are behind the commit
//! point: whoever fenced the source may have been killed before that was recorded, and then nobody serves the
//! tenant. So the watchman asks the source.
//!
//! Invariants: a move that is not fenced, or whose source does not say, is given back as it was, to a worker
//! who has time for it; the same one is not asked again at once, so that this worker can have it.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use waangu_kernel::{Fault, RelocationId};
use waangu_registry::{Phase, Relocation, Session};
use waangu_relocation::is_fenced;

use super::drive::step;
use super::{Movers, request};

/// Longest wait for the source: other tenants may be waiting for the watchman, and a worker for this move.
const ANSWER: Duration = Duration::from_secs(2);

/// Pause before the same source is asked again, and one that did not answer: others may reach it, and
/// should find the move free.
const AGAIN: Duration = Duration::from_secs(3);
const SILENT: Duration = Duration::from_secs(15);

/// Which moves were asked, and until when they are left alone.
#[derive(Debug, Default)]
pub(super) struct Asked(Vec<(RelocationId, Instant)>);

impl Asked {
    /// Those that are not to be asked yet.
    pub(super) fn lately(&mut self) -> Vec<RelocationId> {
        let now = Instant::now();
        self.0.retain(|(_, until)| *until > now);
        self.0.iter().map(|(id, _)| *id).collect()
    }

    fn note(&mut self, id: RelocationId, pause: Duration) {
        self.0.push((id, Instant::now() + pause));
    }
}

impl Movers {
    /// Whether a claimed move is behind the commit point; if only the source knew it, the registry does now.
    pub(super) async fn is_standing(
        &self,
        session: &mut Session,
        moved: &mut Relocation,
        asked: &mut Asked,
    ) -> Result<bool, Fault> {
        if moved.phase.is_past_commit() {
            return Ok(true);
        }
        let answer = self.is_fenced(moved).await;
        asked.note(moved.id, if answer.is_some() { AGAIN } else { SILENT });
        let standing = answer == Some(true);
        if standing {
            let text = "fenced, as a worker that has gone did not say";
            step(session, moved, Phase::Switching, text).await?;
            moved.phase = Phase::Switching;
        }
        Ok(standing)
    }

    /// What the source says, if it does.
    async fn is_fenced(&self, moved: &Relocation) -> Option<bool> {
        let ends = (&moved.from, &moved.to);
        // It may lead to a cell that this process does not know.
        let request = request(&self.reconciler, moved.tenant, ends, &[]).ok()?;
        timeout(ANSWER, is_fenced(&request)).await.ok()?.ok()
    }
}
