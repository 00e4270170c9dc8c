//! A deploy with nothing to migrate: a control process with a newer version of the module, whose tables
//! are the same, from its start until it has found that nobody is behind.
//!
//! It runs its whole way: its program starts, the registry's schema and world and the cells' logins and
//! keys are checked, the package is compared with the installed one, the question who is behind is
//! asked. Its statements are counted by PostgreSQL, under its own login, for as long after the start at each
//! size: a control process also asks by the clock, and a slower start would have been asked for more.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::crowd::{Crowd, LOOK};
use super::peer::Peer;
use super::second::{Calls, Seconds};
use super::{GROUP_NOOP, ratio, series};
use crate::Context;
use crate::failure::{Failure, Of as _};
use crate::goal::Goal;
use crate::peers::django::upgrade::Executor;
use crate::report::Report;
use crate::stats::Summary;

/// What stands in the question who is behind, and nowhere else.
const ANYBODY_BEHIND: &str = "n.package_hash < m.package_hash";

/// For how long its statements are counted, from its start.
const COUNTED: Duration = Duration::from_secs(1);

/// Longest wait for that question.
const PATIENCE: Duration = Duration::from_secs(30);

/// Deploys at one size of the fleet.
pub(super) struct Deploys {
    tenants: usize,
    seconds: Vec<f64>,
    statements: Vec<Calls>,
}

/// Deploys so many times in a row.
pub(super) async fn deploy(
    context: &Context,
    crowd: &Crowd,
    seconds: &Seconds,
    tenants: usize,
    times: usize,
) -> Result<Deploys, Failure> {
    context
        .progress
        .phase("deploys with nothing to migrate", times);
    let mut deploys = Deploys {
        tenants,
        seconds: Vec::new(),
        statements: Vec::new(),
    };
    for number in 0..times {
        let version = format!("8.{tenants}.{number}");
        let began = Instant::now();
        let second = seconds.start(crowd, &version).await?;
        while seconds.count(ANYBODY_BEHIND).await? == 0 {
            if began.elapsed() > PATIENCE {
                return Err(Failure::new(
                    "a second control process does not get to its work",
                ));
            }
            sleep(LOOK).await;
        }
        let took = began.elapsed();
        sleep(COUNTED.saturating_sub(took)).await;
        let statements = seconds.statements().await?;
        drop(second);
        let installed = "select version from registry.module where id = 'ledger20'";
        if crowd.registry.one::<String>(installed).await? != version {
            return Err(Failure::new(format!("version {version} was not installed")));
        }
        deploys.seconds.push(took.as_secs_f64());
        deploys.statements.push(statements);
        context.progress.step();
    }
    Ok(deploys)
}

/// Reports both sizes, and the peer's way if it is here.
pub(super) async fn report(
    small: &Deploys,
    large: &Deploys,
    peer: Option<&Peer>,
    report: &mut Report,
) -> Result<(), Failure> {
    for deploys in [small, large] {
        let name = |what: &str| format!("{what}, {} tenants", deploys.tenants);
        let what = "from the process's start until nobody was found behind";
        series(
            GROUP_NOOP,
            name("ours"),
            "s",
            what,
            deploys.seconds.clone(),
            report,
        );
        let what = "of the deploying process in its first second, registry and cell";
        series(
            GROUP_NOOP,
            name("ours, statements"),
            "",
            what,
            deploys.statements.iter().map(Calls::sum).collect(),
            report,
        );
    }
    let of = |deploys: &Deploys| Summary::of(&deploys.seconds).map_or(f64::NAN, |all| all.median);
    let ours = of(large);
    let name = format!("deploy with nothing to migrate, {} tenants", large.tenants);
    report.goals.push(Goal::at_most(name, "s", ours, 1.0));
    let [small_least, large_least] =
        [small, large].map(|deploys| Calls::least(&deploys.statements).by_bucket());
    report.notes.push(format!(
        "statements in bucket databases in that second: {} with {} tenants, {} with {}; they are visited one by one, \
         by the clock, for what moves may have left and for their stock",
        small_least.0.sum(),
        small.tenants,
        large_least.0.sum(),
        large.tenants
    ));
    let more = large_least.1.sum() - small_least.1.sum();
    let name = format!(
        "statements of that deploy outside of bucket databases, more than at {} tenants",
        small.tenants
    );
    report.goals.push(Goal::at_most(name, "", more, 0.0));
    let Some(peer) = peer else {
        return Ok(());
    };
    for executor in Executor::ALL {
        let ran = peer.migrate(executor).await?;
        let name = format!("{}, {} tenants", executor.name(), peer.tenants);
        let what = format!("{} statements", ran.statements);
        series(
            GROUP_NOOP,
            format!("django-tenants, {name}"),
            "s",
            &what,
            vec![ran.seconds],
            report,
        );
        let tenants = f64::from(u32::try_from(large.tenants).of("tenants")?);
        let name = format!(
            "no-op deploy: django-tenants, {}, at its pace with {} tenants / ours",
            executor.name(),
            large.tenants
        );
        ratio(name, tenants / peer.pace(&ran) / ours, report);
    }
    Ok(())
}
