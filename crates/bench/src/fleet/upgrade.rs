//! One column and one index more for every schema: a rollout through the admin API, and
//! `migrate_schemas` on the same server, in turns.

use tokio::time::Instant;

use super::crowd::Crowd;
use super::peer::Peer;
use super::{GROUP_UPGRADE, at_least, ratio, series};
use crate::Context;
use crate::failure::{Failure, Of as _};
use crate::peers::django::upgrade::Executor;
use crate::peers::ledger20::{self, Side};
use crate::report::Report;
use crate::stats::Summary;

/// Ours, then the peer's one way; ours again, then its other.
pub(super) async fn run(
    context: &Context,
    crowd: &Crowd,
    mut peer: Option<&mut Peer>,
    report: &mut Report,
) -> Result<(), Failure> {
    let schemas = f64::from(u32::try_from(crowd.schemas).of("schemas")?);
    let (mut ours, mut best) = (Vec::new(), f64::NAN);
    for (number, executor) in Executor::ALL.into_iter().enumerate() {
        context
            .progress
            .phase("one column and one index", crowd.schemas);
        let column = format!("bench_{number}");
        ours.push(schemas / roll_out(crowd, number, &column).await?);
        let Some(peer) = peer.as_deref_mut() else {
            continue;
        };
        peer.deploy(&format!("{:04}_next", number + 4), &column)?;
        let ran = peer.migrate(executor).await?;
        peer.require_all(&column).await?;
        let pace = peer.pace(&ran);
        best = f64::max(best, pace);
        let what = format!(
            "{} schemas in {:.1} s, {} statements",
            peer.tenants, ran.seconds, ran.statements
        );
        let name = format!("django-tenants, {}", executor.name());
        series(GROUP_UPGRADE, name, "1/s", &what, vec![pace], report);
    }
    let median = Summary::of(&ours).map_or(f64::NAN, |all| all.median);
    let what = format!(
        "{} schemas each time, from POST /rollouts until it has succeeded",
        crowd.schemas
    );
    series(GROUP_UPGRADE, "ours".to_owned(), "1/s", &what, ours, report);
    if peer.is_some() {
        let name =
            "one column and one index: schemas a second, ours / the better of django-tenants";
        ratio(name.to_owned(), median / best, report);
        at_least(name, "×", median / best, 5.0, report);
    }
    Ok(())
}

/// Seconds of a rollout to all.
async fn roll_out(crowd: &Crowd, number: usize, column: &str) -> Result<f64, Failure> {
    crowd
        .deploy(
            &format!("9.{number}.0"),
            &ledger20::next(Side::Platform, column),
        )
        .await?;
    let began = Instant::now();
    let id = crowd.roll_out().await?;
    let over = crowd.watch(&id, |_| false).await?;
    let took = began.elapsed().as_secs_f64();
    let have = crowd.count_columns(column).await?;
    let wanted = i64::try_from(crowd.schemas).of("schemas")?;
    if over.state != "succeeded" || have != wanted {
        return Err(Failure::new(format!(
            "the rollout {}: {have} of {wanted} schemas have {column}; {:?}",
            over.state, over.failures
        )));
    }
    Ok(took)
}
