//! All interleavings of writers, operators, workers, crashes and retries, with the engine's own decisions.
//!
//! Left out: PostgreSQL's own durability, and more than one move at a time.

use std::collections::{HashSet, VecDeque};

use waangu_relocation::state::{Copy, Home, Observed, Step, may_abort, next};

const EPOCH: i64 = 1;

/// Both databases, the registry and one worker. A version stands for the tenant's rows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a state of the world to be enumerated, not an interface"
)]
struct World {
    seen: Observed,
    rows: u8,
    copied: u8,
    /// The version that is kept at the target.
    kept: u8,
    locked: bool,
    drained: bool,
    /// The state that the fence noted.
    noted: Option<Home>,
    registry_moved: bool,
    aborted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    NoLock,
    OpenBeforeFence,
    ServeKept,
}

/// The tenant has left its target before, and the rows it had then are kept.
fn start_warm() -> World {
    let mut world = start();
    world.seen.target = Some((Home::Moved, EPOCH));
    (world.seen.warm, world.seen.remains) = (true, true);
    (world.rows, world.kept) = (1, 0);
    world
}

fn start() -> World {
    World {
        seen: Observed {
            epoch: EPOCH,
            source: Some((Home::Active, EPOCH)),
            target: None,
            copy: Copy::None,
            warm: false,
            slot: false,
            remains: false,
        },
        rows: 0,
        copied: 0,
        kept: 0,
        locked: false,
        drained: false,
        noted: None,
        registry_moved: false,
        aborted: false,
    }
}

impl World {
    fn source_writable(&self) -> bool {
        self.seen.source == Some((Home::Active, EPOCH))
    }

    fn target_writable(&self) -> bool {
        self.seen.target == Some((Home::Active, EPOCH + 1))
    }

    /// What a worker does next, in parts that a crash can come between.
    fn work(&self, flaw: Flaw) -> Vec<Self> {
        let mut after = self.clone();
        match next(&self.seen) {
            Step::Copy if self.seen.copy != Copy::Begun => {
                after.seen.copy = Copy::Begun;
                (after.seen.slot, after.seen.warm) = (false, false);
            }
            Step::Copy if !self.seen.slot => (after.seen.slot, after.seen.remains) = (true, true),
            Step::Copy => (after.seen.copy, after.copied) = (Copy::Whole, self.rows),
            Step::Adopt => {
                (after.seen.copy, after.copied) = (Copy::Whole, self.kept);
                (after.seen.slot, after.seen.warm) = (true, false);
                after.drained = flaw == Flaw::ServeKept;
            }
            Step::CutOver if flaw == Flaw::OpenBeforeFence && self.copied == self.rows => {
                after.seen.target = Some((Home::Active, EPOCH + 1));
            }
            Step::CutOver if !self.locked && flaw != Flaw::NoLock => after.locked = true,
            Step::CutOver if !self.drained => (after.copied, after.drained) = (self.rows, true),
            Step::CutOver => {
                after.noted = self.seen.source.map(|(state, _)| state);
                after.seen.source = Some((Home::Moved, EPOCH + 1));
                (after.locked, after.drained) = (false, false);
            }
            Step::Open => {
                // Side by side: either may be done, and a crash come, before the other.
                after.registry_moved = true;
                let mut opened = self.clone();
                opened.seen.target = self.noted.map(|state| (state, EPOCH + 1));
                if self.registry_moved {
                    return vec![opened];
                }
                return vec![after, opened];
            }
            Step::Finish if !self.registry_moved => after.registry_moved = true,
            Step::Finish if self.seen.copy != Copy::None => after.seen.copy = Copy::None,
            Step::Finish => (after.seen.slot, after.seen.remains) = (false, false),
            Step::Done | Step::Refuse(_) => return Vec::new(),
        }
        vec![after]
    }

    fn steps(&self, flaw: Flaw) -> Vec<Self> {
        let mut all = if self.aborted {
            Vec::new()
        } else {
            self.work(flaw)
        };
        if self.source_writable() && !self.locked && self.rows < 3 {
            let mut written = self.clone();
            written.rows += 1;
            all.push(written);
        }
        // An operator suspends and resumes, whatever is under way.
        let other = |home: Option<(Home, i64)>| match home? {
            (Home::Active, epoch) => Some((Home::Suspended, epoch)),
            (Home::Suspended, epoch) => Some((Home::Active, epoch)),
            (Home::Moved, _) => None,
        };
        for (source, target) in [
            (other(self.seen.source), None),
            (None, other(self.seen.target)),
        ] {
            let mut changed = self.clone();
            changed.seen.source = source.or(self.seen.source);
            changed.seen.target = target.or(self.seen.target);
            all.push(changed);
        }
        let mut crashed = self.clone();
        (crashed.locked, crashed.drained) = (false, false);
        all.push(crashed.clone());
        // The slot is lost: a failover, or it held back too much.
        (crashed.seen.slot, crashed.seen.warm) = (false, false);
        all.push(crashed.clone());
        if may_abort(&self.seen) {
            crashed.seen.copy = Copy::None;
            (crashed.seen.remains, crashed.seen.warm) = (false, false);
            crashed.aborted = true;
            all.push(crashed);
        }
        all
    }
}

/// Every world that can be reached, or the first that must not be.
fn explore(flaw: Flaw) -> Result<Vec<World>, World> {
    let mut known = HashSet::from([start(), start_warm()]);
    let mut left = VecDeque::from([start(), start_warm()]);
    while let Some(world) = left.pop_front() {
        let two = world.source_writable() && world.target_writable();
        let lost = world.target_writable() && world.copied != world.rows;
        if two || lost {
            return Err(world);
        }
        for after in world.steps(flaw) {
            if known.insert(after.clone()) {
                left.push_back(after);
            }
        }
    }
    Ok(known.into_iter().collect())
}

/// A crash in the wrong place would open two places, or one with rows missing.
#[test]
fn never_two_writable_places_and_nothing_lost() {
    let worlds = explore(Flaw::None).expect("no bad world");
    assert!(worlds.len() > 50, "{}", worlds.len());
}

/// A crash in the wrong place would leave the tenant closed for good.
#[test]
fn never_none_for_ever() {
    for mut world in explore(Flaw::None).expect("no bad world") {
        // One worker that is left in peace finishes, or the tenant was never away.
        for _part in 0..20 {
            let Some(after) = world.work(Flaw::None).pop() else {
                break;
            };
            world = after;
        }
        // As it was when it left, unless an operator has changed that since.
        let open = matches!(world.seen.target, Some((Home::Active | Home::Suspended, 2)));
        assert!(open && !world.source_writable(), "{world:?}");
        assert_eq!(next(&world.seen), Step::Done);
        assert!(!world.seen.remains && world.registry_moved);
    }
}

/// A model that finds nothing in a broken protocol proves nothing of a good one.
#[test]
fn the_model_finds_planted_flaws() {
    assert!(explore(Flaw::NoLock).is_err());
    assert!(explore(Flaw::OpenBeforeFence).is_err());
    assert!(explore(Flaw::ServeKept).is_err());
}
