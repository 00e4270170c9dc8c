//! One move, from wherever it stands to its end, or to the next pause.

use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::json;
use waangu_kernel::{Fault, fault};
use waangu_registry::{Desired, Figures, Phase, Relocation, Session};
use waangu_relocation::{Error, Step, is_fenced, undo};

use super::Movers;
use super::order::Order;
use super::ride::{Rein, Ride, WayBack};
use crate::reconcile::operator_text;

/// Pause between two reports of a step on its way.
const REPORT: Duration = Duration::from_millis(250);

/// Attempts at a move before it is given up. A tenant that is never quiet enough for its pause, or a
/// cell that comes and goes, has had its chance then.
const ATTEMPTS: i32 = 10;

/// Longest pause before the next attempt, in seconds.
const LONGEST_PAUSE: f64 = 60.0;

/// The longest pause while the old place does not say whether it is fenced, in seconds.
const PERHAPS_FENCED: f64 = 1.0;

/// The pause behind the commit point, in seconds: nobody serves the tenant.
const AT_ONCE: f64 = 0.2;

/// How a look at a move ended.
enum Stop {
    /// Over, or to be looked at again when it is due.
    Now,
    /// To be given up.
    Undo,
}

impl Movers {
    /// Takes a claimed move as far as it goes now.
    pub(super) async fn drive(
        &self,
        session: &mut Session,
        moved: Relocation,
    ) -> Result<(), Fault> {
        let tx = session.begin().await?;
        let order = match Order::read(&self.reconciler, &tx, &moved, self.limits).await {
            // Without a grace time nobody could go back.
            Ok(order) => order.with_way_back(self.grace_seconds > 0),
            // Another process may have what this one lacks.
            Err(failure) => {
                drop(tx);
                let tx = session.begin().await?;
                let text = operator_text(&failure);
                tx.defer_relocation(moved.id, &text, 1.0).await?;
                return tx.commit().await;
            }
        };
        let desired = tx.get_tenant_by_id(moved.tenant).await?.desired;
        tx.commit().await?;
        let unwanted = moved.cancel_wanted || desired == Desired::Deleted;
        if moved.phase == Phase::Queued && unwanted {
            return end(
                session,
                &moved,
                Phase::Cancelled,
                "cancelled before it began",
            )
            .await;
        }
        if !session.hold_shared(&moved, &order.modules()).await? {
            let text = "an upgrade is at work on tables that it needs";
            let tx = session.begin().await?;
            tx.defer_relocation(moved.id, text, 1.0).await?;
            return tx.commit().await;
        }
        let stop = if moved.phase == Phase::Undoing || unwanted && !moved.phase.is_past_commit() {
            Stop::Undo
        } else {
            self.go(session, &moved, &order).await?
        };
        match stop {
            Stop::Now => Ok(()),
            Stop::Undo => self.undo(session, &moved, &order).await,
        }
    }

    /// Step by step forward.
    async fn go(
        &self,
        session: &mut Session,
        moved: &Relocation,
        order: &Order,
    ) -> Result<Stop, Fault> {
        if moved.phase == Phase::Queued {
            step(
                session,
                moved,
                Phase::Copying,
                "the new place is being made",
            )
            .await?;
        }
        let mut ride = match Ride::begin(order.request.clone()).await {
            Ok(ride) => ride,
            Err(error) => return self.stumble(session, moved, order, error).await,
        };
        let (mut named, mut known) = (false, None);
        loop {
            let found = match known.take() {
                Some(step) => Ok(step),
                None => ride.next().await,
            };
            let next = match found {
                Ok(next) => next,
                Err(error) => return self.stumble(session, moved, order, error).await,
            };
            if next == Step::Open {
                if let Err(error) = self.arrive(session, moved, order, &mut ride).await? {
                    return self.stumble(session, moved, order, error).await;
                }
                named = true;
                continue;
            }
            if matches!(next, Step::Finish | Step::Done) && !named {
                // Whoever opened it may have been killed before that was recorded.
                self.switch(session, moved, order).await?;
                named = true;
            }
            let way_back = match ride.has_way_back(&next).await {
                Ok(way_back) => way_back,
                Err(error) => return self.stumble(session, moved, order, error).await,
            };
            let announced = self.announce(session, moved, &next, way_back);
            if let ControlFlow::Break(()) = announced.await? {
                return Ok(Stop::Now);
            }
            match watched(session, moved, &mut ride, &next).await? {
                // Nobody serves the tenant now, and what comes next need not be asked.
                Watched::Done(Ok(())) if next == Step::CutOver => known = Some(Step::Open),
                Watched::Done(Ok(())) => {
                    report(session, moved, &ride.rein(), ride.pause_us()).await?;
                }
                Watched::Done(Err(error)) => {
                    return self.stumble(session, moved, order, error).await;
                }
                Watched::Unwanted => return Ok(Stop::Undo),
            }
        }
    }

    /// Records the phase that a step stands for, before it is done; closes a move that is done.
    async fn announce(
        &self,
        session: &mut Session,
        moved: &Relocation,
        next: &Step,
        way_back: WayBack,
    ) -> Result<ControlFlow<()>, Fault> {
        match next {
            Step::Copy => {
                adopted(session, moved, false).await?;
                step(session, moved, Phase::Copying, "copying").await?;
            }
            Step::Adopt => adopted(session, moved, true).await?,
            Step::CutOver => {
                step(
                    session,
                    moved,
                    Phase::Following,
                    "the rows are there; following the changes",
                )
                .await?;
            }
            Step::Finish | Step::Done => {
                step(session, moved, Phase::Finishing, "open at its new place").await?;
            }
            Step::Open | Step::Refuse(_) => {}
        }
        if *next != Step::Done {
            return Ok(ControlFlow::Continue(()));
        }
        let tx = session.begin().await?;
        tx.leave_for_cleaning(moved.id, self.grace_seconds).await?;
        let is_open = way_back == WayBack::Kept;
        tx.open_way_back(moved.id, is_open).await?;
        tx.move_on(moved.id, Phase::Done, "it has moved").await?;
        let detail = json!({
            "relocation": moved.id, "from": moved.from, "to": moved.to, "why": moved.why,
        });
        let who = Some((moved.tenant, &moved.slug));
        tx.record_audit(&moved.actor, "tenant.moved", who, &detail)
            .await?;
        tx.commit().await?;
        tracing::info!(tenant = %moved.tenant, relocation = %moved.id, "moved");
        Ok(ControlFlow::Break(()))
    }

    /// What a failure means: another try, at once behind the commit point, with growing patience before
    /// it; or the end.
    async fn stumble(
        &self,
        session: &mut Session,
        moved: &Relocation,
        order: &Order,
        error: Error,
    ) -> Result<Stop, Fault> {
        let text = told(&error);
        tracing::warn!(tenant = %moved.tenant, relocation = %moved.id, "a move stopped: {text}");
        self.blame(moved, &error).await;
        // The answer to the fence's commit may be what was lost: then nobody serves the tenant, and that
        // must neither wait like a failure before it nor for a worker who has time.
        let fenced = may_be_fenced(order, &error).await;
        if fenced == Some(true) {
            step(session, moved, Phase::Switching, "fenced, as was not heard").await?;
        }
        let tx = session.begin().await?;
        let now = tx.get_relocation(moved.id).await?;
        // Until the source says whether it is fenced there is nothing to give up, or to count.
        let unknown = fenced.is_none() && now.phase == Phase::Following;
        let counts = !unknown && !matches!(error, Error::Busy);
        // The next worker looks at what kept rows hold back, and copies instead.
        let copies_next = now.adopted && matches!(error, Error::Held { .. });
        let hopeless =
            is_hopeless(&error) && !copies_next || counts && now.attempts + 1 >= ATTEMPTS;
        if now.phase.is_past_commit() || !hopeless {
            if now.phase.is_past_commit() || matches!(error, Error::Busy) {
                tx.defer_relocation(moved.id, &text, AT_ONCE).await?;
            } else if unknown {
                tx.defer_relocation(moved.id, &text, PERHAPS_FENCED).await?;
            } else {
                let pause = 2_f64.powi(now.attempts.min(8)).min(LONGEST_PAUSE);
                tx.postpone_relocation(moved.id, &text, pause).await?;
            }
            tx.commit().await?;
            return Ok(Stop::Now);
        }
        tx.blame_relocation(moved.id, &text).await?;
        tx.tell_relocation(moved.id, &text).await?;
        tx.commit().await?;
        Ok(Stop::Undo)
    }

    /// Lets the cells' circuits hear of a failure that may be theirs.
    async fn blame(&self, moved: &Relocation, error: &Error) {
        let Error::Database(text) = error else { return };
        for place in [&moved.from, &moved.to] {
            if let Ok(cell) = self.reconciler.cell(&place.cell) {
                let failure = fault::DATABASE_UNAVAILABLE
                    .fault("the cell can't be reached")
                    .cause(text);
                self.reconciler.circuits.failed(cell, &failure).await;
            }
        }
    }

    /// Removes all that the move has made. If it is found to be behind the commit point, it goes on.
    async fn undo(
        &self,
        session: &mut Session,
        moved: &Relocation,
        order: &Order,
    ) -> Result<(), Fault> {
        step(session, moved, Phase::Undoing, "being undone").await?;
        match undo(&order.request).await {
            Ok(()) => {}
            Err(Error::Refused(why)) => {
                let tx = session.begin().await?;
                let text = format!("too late to undo it: {why}");
                tx.move_on(moved.id, Phase::Switching, &text).await?;
                tx.defer_relocation(moved.id, &text, 0.0).await?;
                return tx.commit().await;
            }
            Err(error) => {
                self.blame(moved, &error).await;
                let tx = session.begin().await?;
                let now = tx.get_relocation(moved.id).await?;
                let pause = match error {
                    Error::Busy => AT_ONCE,
                    _ => 2_f64.powi(now.attempts.min(5)).min(LONGEST_PAUSE),
                };
                tx.postpone_relocation(moved.id, &error.to_string(), pause)
                    .await?;
                return tx.commit().await;
            }
        }
        let tx = session.begin().await?;
        let now = tx.get_relocation(moved.id).await?;
        let desired = tx.get_tenant_by_id(moved.tenant).await?.desired;
        drop(tx);
        if now.cancel_wanted || desired == Desired::Deleted {
            end(
                session,
                moved,
                Phase::Cancelled,
                "cancelled; nothing of it is left",
            )
            .await
        } else {
            end(
                session,
                moved,
                Phase::Failed,
                "given up; nothing of it is left",
            )
            .await
        }
    }
}

/// Whether another try would come to the same end, or cost others as much again.
fn is_hopeless(error: &Error) -> bool {
    matches!(
        error,
        Error::Refused(_) | Error::Mismatch { .. } | Error::Held { .. } | Error::Old(_)
    )
}

/// What an operator is told, with the code of what can be looked up.
fn told(error: &Error) -> String {
    match error {
        Error::Held { .. } | Error::Old(_) => {
            format!("{}: {error}", fault::RELOCATION_HELD.code)
        }
        _ => error.to_string(),
    }
}

/// Whether the old place is fenced although the move has failed; `None` if it does not say.
async fn may_be_fenced(order: &Order, error: &Error) -> Option<bool> {
    // What ends a step from outside may end it while the commit is on its way.
    if matches!(error, Error::Database(_) | Error::Held { .. }) {
        return is_fenced(&order.request).await.ok();
    }
    Some(false)
}

/// How a step ended.
enum Watched {
    Done(Result<(), Error>),
    /// Given up, because the move is to be undone.
    Unwanted,
}

/// Does one step, and records again and again meanwhile how far it is.
async fn watched(
    session: &mut Session,
    moved: &Relocation,
    ride: &mut Ride,
    next: &Step,
) -> Result<Watched, Fault> {
    let rein = ride.rein();
    let done = {
        let work = ride.apply(next);
        tokio::pin!(work);
        loop {
            let reporting = async {
                tokio::time::sleep(REPORT).await;
                report(session, moved, &rein, None).await
            };
            tokio::select! {
                // Writers may be waiting for it: it neither waits for a report, nor for the rest of one.
                done = &mut work => break done,
                unwanted = reporting => if unwanted? {
                    rein.pull();
                }
            }
        }
    };
    Ok(match done {
        Err(Error::Cancelled) => Watched::Unwanted,
        done => Watched::Done(done),
    })
}

/// Records how far a move is; says whether it is to be undone.
pub(super) async fn report(
    session: &mut Session,
    moved: &Relocation,
    rein: &Rein,
    pause_us: Option<i64>,
) -> Result<bool, Fault> {
    let figures = Figures {
        pause_us,
        ..rein.figures()
    };
    let tx = session.begin().await?;
    let unwanted = tx.report_relocation(moved.id, &figures).await?;
    tx.commit_lazily().await?;
    Ok(unwanted)
}

/// Records whether a move copies nothing.
async fn adopted(session: &mut Session, moved: &Relocation, is_so: bool) -> Result<(), Fault> {
    let tx = session.begin().await?;
    tx.record_adopted(moved.id, is_so).await?;
    if is_so {
        let told = "its rows are still there: what has changed since is brought, nothing is copied";
        tx.tell_relocation(moved.id, told).await?;
    }
    tx.commit().await
}

/// Records a phase.
pub(super) async fn step(
    session: &mut Session,
    moved: &Relocation,
    phase: Phase,
    message: &str,
) -> Result<(), Fault> {
    let tx = session.begin().await?;
    tx.move_on(moved.id, phase, message).await?;
    tx.commit().await
}

/// Closes a move whose tenant has stayed.
async fn end(
    session: &mut Session,
    moved: &Relocation,
    phase: Phase,
    message: &str,
) -> Result<(), Fault> {
    let tx = session.begin().await?;
    tx.move_on(moved.id, phase, message).await?;
    let detail = json!({ "relocation": moved.id, "end": phase.as_str() });
    let who = Some((moved.tenant, &moved.slug));
    tx.record_audit(&moved.actor, "tenant.stayed", who, &detail)
        .await?;
    tx.commit().await
}
