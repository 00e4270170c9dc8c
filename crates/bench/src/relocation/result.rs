//! What the moves came to: series, ratios and goals.

use std::time::Duration;

use tokio::time::Instant;

use super::load::{NEIGHBOURS, Pace, Worked};
use super::trail::Trail;
use crate::goal::Goal;
use crate::moves::Target;
use crate::report::{Ratio, Report, Series};
use crate::shop::Seen;
use crate::stats::{Summary, percentile_of};

/// One move.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) target: Target<'static>,
    pub(super) began: Instant,
    pub(super) ended: Instant,
    pub(super) trail: Trail,
}

impl Moved {
    /// From the wish to the end, by the move's own record: a client that asks how far it is adds its
    /// pauses between two looks.
    pub(super) fn took(&self) -> Duration {
        self.trail.total
    }

    /// Whether an act was on its way while the tenant was.
    fn covers(&self, act: &Seen) -> bool {
        act.due <= self.ended && act.due + act.took >= self.began
    }

    /// Whether an act was on its way while the tenant was frozen.
    fn froze(&self, act: &Seen) -> bool {
        let (from, to) = self.trail.frozen;
        act.due <= to && act.due + act.took >= from
    }

    /// The slowest write of those, in milliseconds.
    fn slowest(acts: &[Seen], which: impl Fn(&Seen) -> bool) -> f64 {
        let took = acts.iter().filter(|act| which(act)).map(|act| act.took);
        milliseconds(took.max().unwrap_or_default())
    }
}

/// All of one size.
#[derive(Debug)]
pub(super) struct Sized {
    pub(super) megabytes: i64,
    pub(super) dumped: Vec<Duration>,
    pub(super) moved: Vec<Moved>,
    pub(super) seen: Worked,
    pub(super) wrong: Vec<String>,
}

/// Adds all of it to the report.
pub(super) fn tell(all: &[Sized], wrong: Vec<String>, pace: Pace, report: &mut Report) {
    report.facts.insert(
        "load".to_owned(),
        format!(
            "{:.0} writes/s of the tenant and {NEIGHBOURS:.0} of others asked for, {:.0} reached without moves",
            pace.asked, pace.most
        ),
    );
    report.notes.push(
        "pause: the slowest write that was on its way while the tenant was frozen, from when it was due \
         to its answer, through gateway and module; slowest write: of the whole move; total: from the \
         wish to the end of the move, under load; dump: pg_dump --schema | psql of the same tenant, \
         before the first and after the last move, nobody at work; both servers had files of the log to use \
         again, as one has that has run for a while"
            .to_owned(),
    );
    let mut pauses = Vec::new();
    for one in all {
        tell_size(one, &mut pauses, report);
    }
    tell_pauses(&pauses, report);
    for one in all {
        tell_neighbours(one, report);
    }
    let acts = || all.iter().flat_map(|one| &one.seen.own);
    let failed: u64 = acts().map(|act| act.failures).sum();
    let count = u32::try_from(acts().count()).unwrap_or(u32::MAX);
    report
        .facts
        .insert("writes of moved tenants".to_owned(), count.to_string());
    let failed = u32::try_from(failed).unwrap_or(u32::MAX);
    goal(
        report,
        "requests failed",
        "requests",
        f64::from(failed),
        0.0,
    );
    let wrong: Vec<String> = all
        .iter()
        .flat_map(|one| one.wrong.clone())
        .chain(wrong)
        .collect();
    let lost = u32::try_from(wrong.len()).unwrap_or(u32::MAX);
    goal(
        report,
        "rows lost, doubled or wrong",
        "rows",
        f64::from(lost),
        0.0,
    );
    report.notes.extend(wrong);
}

fn tell_size(one: &Sized, pauses: &mut Vec<f64>, report: &mut Report) {
    let name = format!("{} MB", one.megabytes);
    let acts = &one.seen.own;
    let waits = one.moved.iter();
    let waits: Vec<f64> = waits
        .map(|moved| Moved::slowest(acts, |act| moved.froze(act)))
        .collect();
    let slowest = one.moved.iter();
    let slowest: Vec<f64> = slowest
        .map(|moved| Moved::slowest(acts, |act| moved.covers(act)))
        .collect();
    let took = one.moved.iter().map(Moved::took);
    let totals: Vec<f64> = took.map(|took| took.as_secs_f64()).collect();
    pauses.extend(&waits);
    let dumps: Vec<f64> = one.dumped.iter().map(Duration::as_secs_f64).collect();
    if let Some((total, dump)) = Summary::of(&totals).zip(Summary::of(&dumps)) {
        let ratio = total.median / dump.median;
        report.ratios.push(Ratio {
            name: format!("{name}: total time to pg_dump | psql"),
            value: ratio,
        });
        let what = format!("{name}: total time to pg_dump | psql, idle");
        goal(report, &what, "×", ratio, 2.0);
    }
    let to = |moved: &Moved| format!("{}/{}", moved.target.cell, moved.target.tier);
    let targets: Vec<String> = one.moved.iter().map(to).collect();
    report
        .notes
        .push(format!("{name}: to {}", targets.join(", ")));
    for (what, unit, samples) in [
        ("pause", "ms", waits),
        ("slowest write", "ms", slowest),
        ("total", "s", totals),
        ("dump", "s", dumps),
    ] {
        report.series.push(Series {
            group: "moves",
            name: format!("{name}: {what}"),
            unit,
            what: String::new(),
            samples,
        });
    }
    tell_phases(one, &name, report);
}

/// Where the time went.
fn tell_phases(one: &Sized, name: &str, report: &mut Report) {
    let mut phases: Vec<(&str, Vec<f64>)> = Vec::new();
    for (phase, seconds) in one.moved.iter().flat_map(|moved| &moved.trail.phases) {
        match phases.iter_mut().find(|(known, _)| known == phase) {
            Some((_, list)) => list.push(*seconds),
            None => phases.push((phase, vec![*seconds])),
        }
    }
    for (phase, samples) in phases {
        report.series.push(Series {
            group: "phases",
            name: format!("{name}: {phase}"),
            unit: "s",
            what: String::new(),
            samples,
        });
    }
    let frozen = one.moved.iter().map(|moved| moved.trail.frozen);
    report.series.push(Series {
        group: "phases",
        name: format!("{name}: frozen"),
        unit: "ms",
        what: "from the request for the freeze until the new place was open".to_owned(),
        samples: frozen
            .map(|(from, to)| milliseconds(to.duration_since(from)))
            .collect(),
    });
}

fn tell_pauses(pauses: &[f64], report: &mut Report) {
    let Some(summary) = Summary::of(pauses) else {
        return;
    };
    let p99 = percentile_of(pauses, 99).unwrap_or(summary.max);
    goal(
        report,
        "write pause, p50 of all moves",
        "ms",
        summary.median,
        100.0,
    );
    goal(report, "write pause, p99 of all moves", "ms", p99, 300.0);
    goal(report, "write pause, longest", "ms", summary.max, 500.0);
}

/// Their p99 while somebody was moved, to that while nobody was.
fn tell_neighbours(one: &Sized, report: &mut Report) {
    let name = format!("{} MB", one.megabytes);
    let (mut during, mut quiet) = (Vec::new(), Vec::new());
    for act in &one.seen.neighbours {
        let moving = one.moved.iter().any(|moved| moved.covers(act));
        let list = if moving { &mut during } else { &mut quiet };
        list.push(milliseconds(act.took));
    }
    let p99 = |list: &[f64]| percentile_of(list, 99);
    if let (Some(during), Some(quiet)) = (p99(&during), p99(&quiet)) {
        goal(
            report,
            &format!("{name}: other tenants' p99, during to between moves"),
            "×",
            during / quiet,
            1.25,
        );
    }
    for (when, samples) in [("during moves", during), ("between moves", quiet)] {
        report.series.push(Series {
            group: "other tenants",
            name: format!("{name}: {when}"),
            unit: "ms",
            what: format!(
                "one write of a tenant that nobody moves; p99 {:.1} ms",
                p99(&samples).unwrap_or(f64::NAN)
            ),
            samples,
        });
    }
}

fn goal(report: &mut Report, name: &str, unit: &'static str, value: f64, limit: f64) {
    report
        .goals
        .push(Goal::at_most(name.to_owned(), unit, value, limit));
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
