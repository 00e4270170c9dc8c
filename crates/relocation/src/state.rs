//! What is to be done next, from what the two databases hold. Pure.
//!
//! Nothing is remembered elsewhere, so a step whose outcome nobody saw is no special case: the next
//! worker observes and goes on. `tests/relocation/model.rs` explores it with a crash at every point.

/// State of a tenant's home row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Home {
    /// Transactions begin.
    Active,
    /// Closed by the control plane.
    Suspended,
    /// Fenced: the tenant has left.
    Moved,
}

/// How far the target's copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Copy {
    /// No move is noted.
    None,
    /// An attempt has begun; its rows are not all there.
    Begun,
    /// The snapshot is there whole; changes follow.
    Whole,
}

/// What the two databases hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Observed {
    /// Epoch that the tenant has at the source before the move.
    pub epoch: i64,
    /// The source's home row.
    pub source: Option<(Home, i64)>,
    /// The target's home row.
    pub target: Option<(Home, i64)>,
    /// The target's copy.
    pub copy: Copy,
    /// Whether the target is the place that the tenant has left last, and its rows can be brought up to date.
    pub warm: bool,
    /// Whether the slot of that very copy stands and has lost nothing.
    pub slot: bool,
    /// Whether slots or publications of any attempt, or the fence's note, are left at the source.
    pub remains: bool,
}

/// One step. Each may be repeated.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// From the beginning: forget earlier attempts, make publication, slot and copy.
    Copy,
    /// Take the rows that the tenant left there for the copy: only what has changed since is missing.
    Adopt,
    /// Follow the changes; freeze, drain, verify, fence.
    CutOver,
    /// Open the target. Beside it the registry is made to name it.
    Open,
    /// Drop slot, publication and notes.
    Finish,
    /// Nothing is left to do.
    Done,
    /// Somebody else changed what this move stands on.
    Refuse(&'static str),
}

/// The next step.
pub fn next(seen: &Observed) -> Step {
    let after = seen.epoch + 1;
    match (seen.source, seen.target) {
        // Open, or closed by somebody since, or left for a third place: it has arrived.
        (Some((Home::Moved, epoch)), Some((state, opened)))
            if epoch == after && (opened > after || opened == after && state != Home::Moved) =>
        {
            if seen.remains || seen.copy != Copy::None {
                Step::Finish
            } else {
                Step::Done
            }
        }
        (Some((Home::Moved, epoch)), target) if epoch == after => match target {
            Some((Home::Moved, opened)) if opened == after => {
                Step::Refuse("its new place knows it as gone at that epoch")
            }
            _ if seen.copy == Copy::Whole => Step::Open,
            _ => Step::Refuse("it is fenced, and its new place has no whole copy"),
        },
        // A suspended tenant moves as well, and arrives suspended.
        (Some((Home::Active | Home::Suspended, epoch)), target) if epoch == seen.epoch => {
            match target {
                Some((Home::Active, _)) => Step::Refuse("the new place is open already"),
                Some((_, opened)) if opened > seen.epoch => {
                    Step::Refuse("the new place knows a later epoch")
                }
                _ if seen.copy == Copy::Whole && seen.slot => Step::CutOver,
                Some((Home::Moved, left)) if seen.warm && left == seen.epoch => Step::Adopt,
                _ => Step::Copy,
            }
        }
        _ => Step::Refuse("it is not at home at the source at that epoch"),
    }
}

/// Whether the move may still be undone.
pub fn may_abort(seen: &Observed) -> bool {
    let fenced = matches!(seen.source, Some((Home::Moved, _)) | None);
    let open = matches!(seen.target, Some((Home::Active, _)));
    !fenced && !open
}
