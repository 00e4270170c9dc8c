//! What the moves came to: series, ratios and goals.

use std::time::Duration;

use tokio::time::Instant;

use super::load::{Pace, Worked};
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
}

impl Moved {
    fn seconds(&self) -> f64 {
        self.ended.duration_since(self.began).as_secs_f64()
    }

    /// Whether an act was on its way while the tenant was.
    fn covers(&self, act: &Seen) -> bool {
        act.due <= self.ended && act.due + act.took >= self.began
    }

    /// The slowest write, in milliseconds.
    fn pause(&self, acts: &[Seen]) -> f64 {
        let took = acts
            .iter()
            .filter(|act| self.covers(act))
            .map(|act| act.took);
        milliseconds(took.max().unwrap_or_default())
    }
}

/// All of one size.
#[derive(Debug)]
pub(super) struct Sized {
    pub(super) megabytes: i64,
    pub(super) dumped: Duration,
    pub(super) moved: Vec<Moved>,
    pub(super) seen: Worked,
    pub(super) wrong: Vec<String>,
}

/// Adds all of it to the report.
pub(super) fn tell(all: &[Sized], wrong: Vec<String>, pace: Pace, report: &mut Report) {
    report.facts.insert(
        "load".to_owned(),
        format!(
            "{:.0} writes/s asked for, {:.0} reached without moves",
            pace.asked, pace.most
        ),
    );
    report.notes.push(
        "pause: the slowest write of a tenant on the move, from when it was due to its answer, through \
         gateway and module; total: from the request to the end of the move, under load; dump: \
         pg_dump --schema | psql of the same tenant, nobody at work"
            .to_owned(),
    );
    let mut pauses = Vec::new();
    for one in all {
        tell_size(one, &mut pauses, report);
    }
    tell_pauses(&pauses, report);
    tell_neighbours(all, report);
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
    let waits: Vec<f64> = one
        .moved
        .iter()
        .map(|moved| moved.pause(&one.seen.own))
        .collect();
    let totals: Vec<f64> = one.moved.iter().map(Moved::seconds).collect();
    pauses.extend(&waits);
    let dump = one.dumped.as_secs_f64();
    if let Some(total) = Summary::of(&totals) {
        report.ratios.push(Ratio {
            name: format!("{name}: total time to pg_dump | psql"),
            value: total.median / dump,
        });
        let what = format!("{name}: total time to pg_dump | psql, idle");
        goal(report, &what, "×", total.median / dump, 2.0);
    }
    let to = |moved: &Moved| format!("{}/{}", moved.target.cell, moved.target.tier);
    let targets: Vec<String> = one.moved.iter().map(to).collect();
    report
        .notes
        .push(format!("{name}: to {}", targets.join(", ")));
    for (what, unit, samples) in [
        ("pause", "ms", waits),
        ("total", "s", totals),
        ("dump", "s", vec![dump]),
    ] {
        report.series.push(Series {
            group: "moves",
            name: format!("{name}: {what}"),
            unit,
            what: what.to_owned(),
            samples,
        });
    }
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
fn tell_neighbours(all: &[Sized], report: &mut Report) {
    let (mut during, mut quiet) = (Vec::new(), Vec::new());
    for one in all {
        for act in &one.seen.neighbours {
            let moving = one.moved.iter().any(|moved| moved.covers(act));
            let list = if moving { &mut during } else { &mut quiet };
            list.push(milliseconds(act.took));
        }
    }
    let p99 = |list: &[f64]| percentile_of(list, 99);
    if let (Some(during), Some(quiet)) = (p99(&during), p99(&quiet)) {
        goal(
            report,
            "other tenants' p99, during to between moves",
            "×",
            during / quiet,
            1.25,
        );
    }
    for (name, samples) in [("during moves", during), ("between moves", quiet)] {
        report.series.push(Series {
            group: "other tenants",
            name: name.to_owned(),
            unit: "ms",
            what: "one write of a tenant that nobody moves".to_owned(),
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
