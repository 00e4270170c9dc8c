//! Five kinds of transaction: ours, bare, and today's way; on loopback and over a slow network.

use std::time::Duration;

use super::Sizes;
use super::paired::{self, Took, ratio};
use super::plan::{Planner, SHAPES, Shape};
use super::relay::Relay;
use super::sides::Side;
use super::stage::{Stage, shared};
use crate::Context;
use crate::failure::Failure;
use crate::goal::Goal;
use crate::report::{Ratio, Report, Series};

/// In each direction, so that a round trip takes 1 ms more than on loopback.
const DELAY: Duration = Duration::from_micros(500);

const LOOPBACK: &str = "a transaction, loopback";
const DELAYED: &str = "a transaction, 1 ms round trip";

/// Throughput of ours to today's way.
const GOAL_LOOPBACK: f64 = 1.5;
const GOAL_DELAYED: f64 = 3.0;

/// Measures all five kinds, both networks.
pub(super) async fn measure(
    context: &Context,
    stage: &Stage,
    sizes: Sizes,
    report: &mut Report,
) -> Result<(), Failure> {
    let superuser = stage.superuser(&shared()?).await?;
    let mut planner = Planner::new(sizes.tenants, sizes.rows, 0);
    let port = stage.port();
    let ways = [
        Side::ours(stage, port)?,
        Side::bare(port).await?,
        Side::today(port).await?,
    ];
    let phase = "transactions on loopback";
    context.progress.phase(phase, SHAPES.len());
    for shape in &SHAPES {
        let rounds = sizes.rounds;
        let took = paired::measure(&ways, shape, &mut planner, &superuser, rounds).await?;
        if let [ours, bare, today] = took.as_slice() {
            let value = ratio(&ours.wall, &bare.wall);
            let name = format!("{}: throughput to bare, loopback", shape.name);
            report.goals.push(at_least(name, value, shape.goal));
            costs(shape, ours, bare, report);
            against_today(shape, ours, today, GOAL_LOOPBACK, "loopback", report);
        }
        series(LOOPBACK, shape, &ways, &took, report);
        context.progress.step();
    }
    let relay = Relay::start(port, DELAY)?;
    let port = relay.port();
    let ways = [
        Side::ours(stage, port)?,
        Side::bare(port).await?,
        Side::today(port).await?,
    ];
    let phase = "transactions over a slow network";
    context.progress.phase(phase, SHAPES.len());
    for shape in &SHAPES {
        let rounds = sizes.delayed_rounds;
        let took = paired::measure(&ways, shape, &mut planner, &superuser, rounds).await?;
        if let [ours, bare, today] = took.as_slice() {
            let value = ratio(&ours.wall, &bare.wall);
            let name = format!("{}: throughput to bare, 1 ms", shape.name);
            report.ratios.push(Ratio { name, value });
            against_today(shape, ours, today, GOAL_DELAYED, "1 ms", report);
        }
        series(DELAYED, shape, &ways, &took, report);
        context.progress.step();
    }
    // One after the other they can't win more than the four round trips of today's frame.
    let [.., shape] = &SHAPES;
    let ways = [Side::together(stage, port)?, Side::today(port).await?];
    let rounds = sizes.delayed_rounds;
    let took = paired::measure(&ways, shape, &mut planner, &superuser, rounds).await?;
    if let [together, today] = took.as_slice() {
        let name = format!("{} together: throughput to today's way, 1 ms", shape.name);
        let value = ratio(&together.wall, &today.wall);
        report.goals.push(at_least(name, value, GOAL_DELAYED));
    }
    series(
        DELAYED,
        shape,
        ways.get(..1).unwrap_or_default(),
        &took,
        report,
    );
    explain(report);
    Ok(())
}

fn costs(shape: &Shape, ours: &Took, bare: &Took, report: &mut Report) {
    for (what, ours, bare) in [
        ("backend CPU", &ours.backend, &bare.backend),
        ("client CPU", &ours.client, &bare.client),
    ] {
        report.ratios.push(Ratio {
            name: format!("{}: {what} of ours to bare, loopback", shape.name),
            value: ratio(bare, ours),
        });
    }
}

fn against_today(
    shape: &Shape,
    ours: &Took,
    today: &Took,
    goal: f64,
    network: &str,
    report: &mut Report,
) {
    let name = format!("{}: throughput to today's way, {network}", shape.name);
    let value = ratio(&ours.wall, &today.wall);
    if shape.works.len() == 1 {
        report.goals.push(at_least(name, value, goal));
    } else {
        report.ratios.push(Ratio { name, value });
    }
}

fn at_least(name: String, value: f64, limit: f64) -> Goal {
    Goal {
        name,
        unit: "×",
        value,
        limit,
        higher_is_better: true,
    }
}

fn series(
    group: &'static str,
    shape: &Shape,
    sides: &[Side<'_>],
    took: &[Took],
    report: &mut Report,
) {
    for (side, took) in sides.iter().zip(took) {
        for (what, samples) in [
            ("", &took.wall),
            (", backend CPU", &took.backend),
            (", client CPU", &took.client),
        ] {
            report.series.push(Series {
                group,
                name: format!("{}, {}{what}", shape.name, side.name()),
                unit: "µs",
                what: String::new(),
                samples: samples.clone(),
            });
        }
    }
}

fn explain(report: &mut Report) {
    let notes = [
        "each sample is the mean of one batch of about 80 ms; ratios and goals are medians of the \
         ratios of batches that ran side by side; one client, one transaction at a time",
        "bare: the same table, a login with BYPASSRLS, `where tenant_id = $1`, prepared; BEGIN leaves \
         with the first statement and COMMIT with the last, so one statement is one round trip; \
         tokio-postgres, as today's way, where ours has a connection of its own with one Sync",
        "today's way: policy `tenant_id = current_setting('app.current_tenant')::bigint`; BEGIN, \
         set_config (prepared), statements (prepared), COMMIT, each a round trip",
        "ours: TenantTx from the module's pool; each transaction has a context and proof of its own \
         (made before the clock starts: that is the gateway's work) for a tenant drawn at random",
        "1 ms: a relay on loopback that delays by 0.5 ms in each direction, both sides through it",
        "10 statements: 4 point reads, 2 range reads, 2 updates, 2 inserts, each awaited before the \
         next on every side: 13 round trips today's way, 10 on the others, so that over a slow \
         network 1.3 is the most that can be had; together: ours in one flight, for statements that \
         don't need each other's answers",
    ];
    report.notes.extend(notes.map(str::to_owned));
}
