//! `up --demo` without state, its idle memory, its end, and a start on what it left.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{AGAIN, FRESH};
use crate::Context;
use crate::failure::Failure;
use crate::goal::Goal;
use crate::memory::{Weight, weigh};
use crate::platform::{Platform, Start};
use crate::report::{Report, Series};
use crate::scratch::{Scratch, file_system};
use crate::stats::Summary;

/// Contract: from nothing to ready.
const START_LIMIT: f64 = 15.0;

/// Contract: from SIGTERM to nothing left.
const STOP_LIMIT: f64 = 10.0;

/// How long the platform is left alone before it is weighed.
const IDLE: Duration = Duration::from_secs(5);

/// Phases in the order in which they happen; one that is not here comes after them.
const PHASES: [&str; 4] = [
    "prepare",
    "start PostgreSQL",
    "start control plane, modules and gateway",
    "onboard the demo fleet",
];

const STARTS: &str = "start and stop";
const MEMORY: &str = "idle memory";

#[derive(Debug, Default)]
struct Samples {
    first: Vec<f64>,
    again: Vec<f64>,
    first_phases: BTreeMap<String, Vec<f64>>,
    again_phases: BTreeMap<String, Vec<f64>>,
    stops: Vec<f64>,
    weights: Vec<BTreeMap<String, Weight>>,
}

pub(super) async fn measure(
    context: &Context,
    runs: usize,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut samples = Samples::default();
    context.progress.phase("starts and stops", runs);
    for _run in 0..runs {
        let scratch = Scratch::new()?;
        if let Some(kind) = file_system(&scratch.path("")) {
            report.facts.insert("state on".to_owned(), kind);
        }
        run(context, &scratch, &mut samples).await?;
        scratch.remove()?;
        context.progress.step();
    }
    samples.report(report)
}

async fn run(context: &Context, scratch: &Scratch, samples: &mut Samples) -> Result<(), Failure> {
    let programs = &context.programs;
    let (platform, start) = Platform::start(programs, scratch, FRESH).await?;
    keep(start, &mut samples.first, &mut samples.first_phases);
    tokio::time::sleep(IDLE).await;
    samples.weights.push(weigh(&platform.family()));
    samples.stops.push(platform.stop().await?.as_secs_f64());

    let (platform, start) = Platform::start(programs, scratch, AGAIN).await?;
    keep(start, &mut samples.again, &mut samples.again_phases);
    samples.stops.push(platform.stop().await?.as_secs_f64());
    Ok(())
}

fn keep(start: Start, totals: &mut Vec<f64>, phases: &mut BTreeMap<String, Vec<f64>>) {
    totals.push(start.total.as_secs_f64());
    for (phase, seconds) in start.phases {
        // Their own sum lacks the time to make the process; ours is the one that people wait.
        if phase != "total" {
            phases.entry(phase).or_default().push(seconds);
        }
    }
}

impl Samples {
    fn report(self, report: &mut Report) -> Result<(), Failure> {
        let summary = |samples: &[f64]| {
            Summary::of(samples).ok_or_else(|| Failure::new("there was no start to measure"))
        };
        let (first, stops) = (summary(&self.first)?, summary(&self.stops)?);
        report.goals.push(Goal::at_most(
            "first start to ready, median".to_owned(),
            "s",
            first.median,
            START_LIMIT,
        ));
        report.goals.push(Goal::at_most(
            "stop, the slowest".to_owned(),
            "s",
            stops.max,
            STOP_LIMIT,
        ));
        report.series.push(seconds(
            "first start",
            "`up --demo` without state: from making the process until the ready file is there",
            self.first,
        ));
        phases("first start", self.first_phases, report);
        report.series.push(seconds(
            "restart",
            "the same on the state that the first start left (stopped in order)",
            self.again,
        ));
        phases("restart", self.again_phases, report);
        report.series.push(seconds(
            "stop",
            "from SIGTERM to `up` until none of its processes is left, after first start and restart",
            self.stops,
        ));
        memory(&self.weights, report);
        Ok(())
    }
}

fn seconds(name: &str, what: &str, samples: Vec<f64>) -> Series {
    Series {
        group: STARTS,
        name: name.to_owned(),
        unit: "s",
        what: what.to_owned(),
        samples,
    }
}

fn phases(of: &str, phases: BTreeMap<String, Vec<f64>>, report: &mut Report) {
    let place = |name: &str| PHASES.iter().position(|known| *known == name);
    let mut phases: Vec<(String, Vec<f64>)> = phases.into_iter().collect();
    phases.sort_by_key(|(name, _)| place(name).unwrap_or(PHASES.len()));
    for (name, samples) in phases {
        report
            .series
            .push(seconds(&format!("{of}: {name}"), "", samples));
    }
}

fn memory(weights: &[BTreeMap<String, Weight>], report: &mut Report) {
    let roles: BTreeMap<&str, u32> = weights
        .iter()
        .flatten()
        .map(|(role, weight)| (role.as_str(), weight.processes))
        .collect();
    for (role, processes) in roles {
        let of_role = || weights.iter().filter_map(|run| run.get(role));
        let mut push = |kind: &str, samples: Vec<f64>| {
            let count = if processes == 1 {
                "process"
            } else {
                "processes"
            };
            report.series.push(Series {
                group: MEMORY,
                name: format!("{role} ({processes} {count}), {kind}"),
                unit: "MiB",
                what: String::new(),
                samples,
            });
        };
        let pss: Option<Vec<f64>> = of_role().map(|weight| weight.pss).collect();
        let may_look = pss.is_some();
        push("PSS", pss.unwrap_or_default());
        // What PostgreSQL's processes share would be counted once for each of them.
        if processes == 1 {
            push("RSS", of_role().map(|weight| weight.rss).collect());
        }
        if !may_look {
            let text = format!("PSS of {role}: /proc/PID/smaps_rollup is not readable");
            report.not_measured.push(text);
        }
    }
    report.notes.push(format!(
        "idle memory: {} s after ready, demo fleet onboarded, no request; PSS counts a shared page \
         once in all, RSS once in each process",
        IDLE.as_secs()
    ));
}
