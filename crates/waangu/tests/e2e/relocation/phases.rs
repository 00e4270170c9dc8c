//! The control plane is killed in each phase of a move, at a moment that is held still for it.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tokio::time::Instant;

use super::hold::{Hold, Stage, shared_of};
use super::{Ledger, begin, ended, no_debris, placement, platform};
use crate::support::{Platform, until};

/// Kills the control plane while something is held up, and lets it go when another has begun to start.
async fn kill(platform: &Platform, stage: &Stage<'_>, phase: &str, hold: Hold) {
    let old = until("there is a control plane", super::MOVE, async || {
        platform.control()
    })
    .await;
    assert_eq!(stage.phase().await, phase);
    old.signal(Signal::KILL);
    until("it is dead", super::MOVE, async || {
        (!old.is_alive()).then_some(())
    })
    .await;
    drop(hold);
}

async fn arrives(platform: &Platform, stage: &Stage<'_>, path: &str, tier: &str) {
    let end = ended(platform, path).await;
    assert_eq!(end["phase"], "done", "{end:#}");
    assert_eq!(placement(platform, stage.slug).await["tier"], tier);
    assert_eq!(stage.open_doors().await, 1, "served at one place");
}

/// Nothing has been made.
async fn queued(platform: &Platform, stage: &Stage<'_>) {
    let hold = stage.keep_queued().await;
    let path = begin(platform, stage.slug, json!({ "tier": "schema" })).await;
    kill(platform, stage, "queued", hold).await;
    arrives(platform, stage, &path, "schema").await;
}

/// Half of the rows are copied, or none.
async fn copying(platform: &Platform, stage: &Stage<'_>) {
    let hold = stage.keep_from_freezing().await;
    let wish = json!({ "tier": "shared", "rate": 4096 });
    let path = begin(platform, stage.slug, wish).await;
    stage.reaches("copying").await;
    kill(platform, stage, "copying", hold).await;
    arrives(platform, stage, &path, "shared").await;
}

/// The slot holds log back, and nobody reads it.
async fn following(platform: &Platform, stage: &Stage<'_>) {
    let hold = stage.keep_from_freezing().await;
    let path = begin(platform, stage.slug, json!({ "tier": "schema" })).await;
    stage.reaches("following").await;
    kill(platform, stage, "following", hold).await;
    arrives(platform, stage, &path, "schema").await;
}

/// Fenced, and the registry knows nothing of it: nobody serves the tenant.
async fn fenced(platform: &Platform, stage: &Stage<'_>) {
    let (home, freeze) = (stage.home().await, stage.keep_from_freezing().await);
    let path = begin(platform, stage.slug, json!({ "tier": "dedicated" })).await;
    stage.reaches("following").await;
    let hold = stage.keep_from_switching().await;
    drop(freeze);
    stage.fenced(&home).await;
    kill(platform, stage, "following", hold).await;
    arrives(platform, stage, &path, "dedicated").await;
}

/// The registry names the new place, which is not open.
async fn switching(platform: &Platform, stage: &Stage<'_>) {
    let there = shared_of(stage, &placement(platform, stage.slug).await);
    let freeze = stage.keep_from_freezing().await;
    let path = begin(platform, stage.slug, json!({ "tier": "shared" })).await;
    // Not before: the making of a slot waits for whoever writes on its server.
    stage.reaches("following").await;
    let hold = stage.keep_closed(&there).await;
    drop(freeze);
    stage.reaches("switching").await;
    kill(platform, stage, "switching", hold).await;
    arrives(platform, stage, &path, "shared").await;
}

/// Open at the new place; the publication is left at the old one.
async fn finishing(platform: &Platform, stage: &Stage<'_>) {
    let hold = stage.keep_from_freezing().await;
    let path = begin(platform, stage.slug, json!({ "tier": "schema" })).await;
    stage.reaches("following").await;
    let publication = stage.keep_publication().await;
    drop(hold);
    stage.reaches("finishing").await;
    kill(platform, stage, "finishing", publication).await;
    arrives(platform, stage, &path, "schema").await;
}

/// Given up; half of it is still there.
async fn undoing(platform: &Platform, stage: &Stage<'_>) {
    let hold = stage.keep_from_freezing().await;
    let path = begin(platform, stage.slug, json!({ "tier": "dedicated" })).await;
    stage.reaches("following").await;
    let publication = stage.keep_publication().await;
    let cancel = format!("{path}/cancel");
    platform.operate("POST", &cancel, None).await.expect(202);
    stage.reaches("undoing").await;
    drop(hold);
    kill(platform, stage, "undoing", publication).await;
    let end = ended(platform, &path).await;
    assert_eq!(end["phase"], "cancelled", "{end:#}");
    assert_eq!(placement(platform, stage.slug).await["tier"], "schema");
    assert_eq!(stage.open_doors().await, 1, "served where it was");
}

/// At one boundary out of seven a dead control plane would lose writes, leave a tenant without a place for
/// good, or leave something behind; and nobody would meet it but by chance.
#[tokio::test]
async fn a_move_survives_the_death_of_the_control_plane_in_each_phase() {
    let platform = platform().await;
    platform.tenant("mover", "shared").await;
    let ledger = Ledger::open(&platform, "mover").await;
    ledger.write(20).await;
    let stage = Stage::of(&platform, "mover").await;
    let (at, on) = (&platform, &stage);
    ledger.during(queued(at, on)).await;
    ledger.during(copying(at, on)).await;
    ledger.during(following(at, on)).await;
    ledger.during(fenced(at, on)).await;
    ledger.during(switching(at, on)).await;
    ledger.during(finishing(at, on)).await;
    ledger.during(undoing(at, on)).await;
    ledger.check().await;
    no_debris(&platform).await;
}

/// The registry takes a move for one before its commit point, if its worker was killed between the fence and
/// the record; nobody serves the tenant, and all workers may be in copies of hours.
#[tokio::test]
async fn a_fenced_tenant_does_not_wait_for_the_copies_of_others() {
    let platform = platform().await;
    for slug in ["mover", "first", "second"] {
        platform.tenant(slug, "shared").await;
    }
    let stage = Stage::of(&platform, "mover").await;
    let (home, freeze) = (stage.home().await, stage.keep_from_freezing().await);
    let path = begin(&platform, "mover", json!({ "tier": "dedicated" })).await;
    stage.reaches("following").await;
    let (mut others, mut copies) = (Vec::new(), Vec::new());
    for slug in ["first", "second"] {
        let other = Stage::of(&platform, slug).await;
        copies.push(other.keep_slots_away().await);
        let path = begin(&platform, slug, json!({ "tier": "dedicated" })).await;
        other.prefer().await;
        others.push((other, path));
    }
    let hold = stage.keep_from_switching().await;
    drop(freeze);
    stage.fenced(&home).await;
    let killed = Instant::now();
    kill(&platform, &stage, "following", hold).await;
    arrives(&platform, &stage, &path, "dedicated").await;
    // A worker waits a minute for a slot, and would be free then.
    assert!(killed.elapsed() < Duration::from_secs(40), "{killed:?}");
    for (other, _) in &others {
        assert_eq!(other.phase().await, "copying", "{} is held up", other.slug);
    }
    drop(copies);
    for (other, path) in &others {
        arrives(&platform, other, path, "dedicated").await;
    }
}
