//! The bench `fleet`: many tenants, beside the same work by other means on the same server.
//!
//! Method: one module of 20 tables for all ([`ledger20`](crate::peers::ledger20)); ours and the peers'
//! work takes turns on one durable PostgreSQL, in short rounds; as many clients for ours as workers for
//! theirs; ratios are those of medians over rounds.

mod compare;
mod crowd;
mod database;
mod kill;
mod many;
mod noop;
mod onboarding;
mod peer;
mod reconcile;
mod second;
mod snapshot;
pub(crate) mod stage;
mod upgrade;

use crate::Context;
use crate::failure::Failure;
use crate::goal::Goal;
use crate::report::{Ratio, Report, Series};

const GROUP_NOOP: &str = "a deploy with nothing to migrate";
const GROUP_RECONCILE: &str = "a look for drift, nothing has drifted";
const GROUP_UPGRADE: &str = "one column and one index, schemas a second";
const GROUP_KILL: &str = "kill -9 in the middle of an upgrade";
const GROUP_SNAPSHOT: &str = "the gateways' snapshot";

/// Measures all of it.
pub(crate) async fn measure(context: &Context) -> Result<Report, Failure> {
    let mut report = Report::default();
    onboarding::measure(context, &mut report).await?;
    many::run(context, &mut report).await?;
    Ok(report)
}

fn series(
    group: &'static str,
    name: String,
    unit: &'static str,
    what: &str,
    samples: Vec<f64>,
    report: &mut Report,
) {
    report.series.push(Series {
        group,
        name,
        unit,
        what: what.to_owned(),
        samples,
    });
}

fn ratio(name: String, value: f64, report: &mut Report) {
    report.ratios.push(Ratio { name, value });
}

fn at_least(name: &str, unit: &'static str, value: f64, limit: f64, report: &mut Report) {
    report.goals.push(Goal {
        name: name.to_owned(),
        unit,
        value,
        limit,
        higher_is_better: true,
    });
}
