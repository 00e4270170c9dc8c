//! A look for drift over the whole fleet when nothing has drifted: what it takes, what it asks, what the
//! control process weighs meanwhile.

use std::time::Duration;

use http::Method;
use tokio::time::{Instant, sleep};
use waangu_api::Client;
use waangu_api::fleet::{RepairView, StartRepair};

use super::crowd::{Crowd, LOOK};
use super::second::{Second, Seconds};
use super::{GROUP_RECONCILE, series};
use crate::Context;
use crate::failure::Failure;
use crate::goal::Goal;
use crate::report::Report;

/// Longest wait for its end.
const PATIENCE: Duration = Duration::from_mins(5);

/// What the control process may weigh, in MB of 10^6 bytes.
const GOAL: f64 = 200.0;

/// Bytes of a MiB in MB.
const MB_PER_MIB: f64 = 1.048_576;

/// Passes so many times over all tenants.
pub(super) async fn run(
    context: &Context,
    crowd: &Crowd,
    seconds: &Seconds,
    times: usize,
    report: &mut Report,
) -> Result<(), Failure> {
    context.progress.phase("looks for drift", times);
    let mut second = seconds.start(crowd, "8.99999.0").await?;
    let base = format!("http://{}", second.address);
    let client = crowd.stage.admin.at(&base, None);
    second.answers(&client).await?;
    let token = crowd.stage.platform.ready.admin.token.clone();
    let client = client.at(&format!("{base}/admin/v1"), Some(&token));
    let fresh = second.memory().unwrap_or(f64::NAN);
    let (mut took, mut asked, mut most) = (Vec::new(), Vec::new(), fresh);
    for _ in 0..times {
        let before = seconds.statements().await?.sum();
        let pass = pass(&client, &second).await?;
        asked.push(seconds.statements().await?.sum() - before);
        took.push(pass.took.as_secs_f64());
        most = most.max(pass.most);
        check(&pass.found)?;
        report
            .facts
            .insert("look for drift".to_owned(), pass.found.summary.to_string());
        context.progress.step();
    }
    let what = "POST /fleet/repairs until it is over; nothing found";
    series(
        GROUP_RECONCILE,
        "a pass".to_owned(),
        "s",
        what,
        took,
        report,
    );
    let what = "of the process that passes, its other tasks' included";
    series(
        GROUP_RECONCILE,
        "statements".to_owned(),
        "",
        what,
        asked,
        report,
    );
    let what = "PSS: just started, and the most seen during passes";
    series(
        GROUP_RECONCILE,
        "control process".to_owned(),
        "MiB",
        what,
        vec![fresh, most],
        report,
    );
    let name = "memory of the control process during a look for drift".to_owned();
    report
        .goals
        .push(Goal::at_most(name, "MB", most * MB_PER_MIB, GOAL));
    Ok(())
}

struct Pass {
    took: Duration,
    found: RepairView,
    /// The most memory seen, in MiB.
    most: f64,
}

async fn pass(client: &Client, second: &Second) -> Result<Pass, Failure> {
    let began = Instant::now();
    let wish = StartRepair { dry_run: false };
    let mut found: RepairView = client
        .send_json(Method::POST, "/fleet/repairs", &wish, None)
        .await?;
    let path = format!("/fleet/repairs/{}", found.id);
    let mut most: f64 = 0.0;
    while !found.is_over() {
        if began.elapsed() > PATIENCE {
            return Err(Failure::new("a look for drift does not end"));
        }
        sleep(LOOK).await;
        most = most.max(second.memory().unwrap_or(f64::NAN));
        found = client.get(&path).await?;
    }
    Ok(Pass {
        took: began.elapsed(),
        found,
        most,
    })
}

/// A pass that found something, or did not look everywhere, is none.
fn check(found: &RepairView) -> Result<(), Failure> {
    if found.state == "succeeded" && found.findings.is_empty() {
        return Ok(());
    }
    let first = found.findings.first();
    let first = first.map(|one| format!("{} in {}: {}", one.object, one.database, one.found));
    Err(Failure::new(format!(
        "a look for drift {}: {} findings; {}",
        found.state,
        found.findings.len(),
        first.or_else(|| found.error.clone()).unwrap_or_default()
    )))
}
