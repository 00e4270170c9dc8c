//! kill -9 in the middle of an upgrade: who is what afterwards, and how it gets to its end.
//!
//! Ours: the control plane is killed when a quarter of the schemas are done. Its supervisor is held
//! (SIGSTOP) while registry and cells are compared, then let go; nobody does anything else.
//! The peer: `migrate_schemas` is killed with all of its processes, and started again by hand.

use rustix::process::Signal;
use tokio::time::{Instant, sleep};
use waangu_api::fleet::RolloutView;

use super::crowd::{Crowd, LOOK};
use super::peer::Peer;
use super::{GROUP_KILL, series};
use crate::Context;
use crate::failure::{Failure, Of as _};
use crate::goal::Goal;
use crate::peers::django::upgrade::{Executor, Seen};
use crate::peers::ledger20::{self, Side};
use crate::process::family;
use crate::report::Report;

const VERSION: &str = "9.99.0";
const COLUMN: &str = "bench_killed";

/// Schemas that have only a part of the migration: a column, an index and a record belong together.
const HALF: &str = "select count(*) from pg_namespace n
    where n.nspname like 't\\_%'
      and 1 < (select count(distinct part) from (values
          (exists (select from pg_attribute a join pg_class c on c.oid = a.attrelid
                    where c.relnamespace = n.oid and c.relname = 'party'
                      and a.attname = 'bench_killed'))
        , (exists (select from pg_class c
                    where c.relnamespace = n.oid and c.relname = 'party_bench_killed'))
        , (exists (select from waangu.migration m
                    where m.schema_name = n.nspname and m.name = '9.99.0'))) as parts (part))";

/// Kills both, one after the other.
pub(super) async fn run(
    context: &Context,
    crowd: &Crowd,
    peer: Option<&mut Peer>,
    report: &mut Report,
) -> Result<(), Failure> {
    context
        .progress
        .phase("kill -9 in the middle of an upgrade", 2);
    ours(crowd, report).await?;
    context.progress.step();
    if let Some(peer) = peer {
        theirs(peer, report).await?;
        context.progress.step();
    }
    Ok(())
}

/// What registry and cells say in the moment of death.
struct Moment {
    /// Schemas of which a part of the migration is there.
    half: i64,
    /// Namespaces that the registry says to have it.
    recorded: i64,
    /// Schemas that have it.
    have: i64,
}

impl Moment {
    /// Tenants of whom the platform says something else than is: half upgraded, or said to have what
    /// they have not. One that has it and is still said to wait is in hand: it is looked at again.
    fn unknown(&self) -> i64 {
        self.half + (self.recorded - self.have).max(0)
    }
}

async fn ours(crowd: &Crowd, report: &mut Report) -> Result<(), Failure> {
    crowd
        .deploy(VERSION, &ledger20::next(Side::Platform, COLUMN))
        .await?;
    let id = crowd.roll_out().await?;
    let quarter = |found: &RolloutView| found.done * 4 >= found.total;
    let found = crowd.watch(&id, quarter).await?;
    if found.state != "running" {
        return Err(Failure::new(
            "the rollout was over before it could be killed",
        ));
    }
    let family = crowd.stage.platform.family();
    let up = family.first().copied();
    let up = up.ok_or_else(|| Failure::new("there is no platform"))?;
    up.signal(Signal::STOP);
    let seen = async {
        crowd.kill_control()?;
        look(crowd).await
    };
    let seen = seen.await;
    up.signal(Signal::CONT);
    let (seen, began) = (seen?, Instant::now());
    let over = crowd.watch(&id, |_| false).await?;
    let took = began.elapsed().as_secs_f64();
    let after = look(crowd).await?;
    let wanted = i64::try_from(crowd.schemas).of("schemas")?;
    let whole = over.state == "succeeded" && after.have == wanted && after.recorded == wanted;
    let what = format!(
        "killed with {} of {wanted} schemas upgraded, {} of them not recorded yet; from the moment its \
         supervisor may start another until the rollout has {}",
        seen.have,
        seen.have - seen.recorded,
        over.state
    );
    series(
        GROUP_KILL,
        "ours, to all-green".to_owned(),
        "s",
        &what,
        vec![took],
        report,
    );
    let goals = [
        ("tenants in an unknown state after kill -9", seen.unknown()),
        (
            "tenants in an unknown state at the end",
            after.unknown() + wanted - after.have,
        ),
        ("manual steps after kill -9", i64::from(!whole)),
    ];
    for (name, value) in goals {
        let value = i32::try_from(value).of("count")?;
        let goal = Goal::at_most(name.to_owned(), "", f64::from(value), 0.0);
        report.goals.push(goal);
    }
    Ok(())
}

async fn look(crowd: &Crowd) -> Result<Moment, Failure> {
    let recorded = format!(
        "select count(*) from registry.namespace n
           join registry.package p on p.module = n.module and p.hash = n.package_hash
          where n.module = '{module}' and n.tier = 'schema' and p.version = '{VERSION}'",
        module = ledger20::ID
    );
    Ok(Moment {
        recorded: crowd.registry.one(&recorded).await?,
        half: crowd.sum(HALF).await?,
        have: crowd.count_columns(COLUMN).await?,
    })
}

async fn theirs(peer: &mut Peer, report: &mut Report) -> Result<(), Failure> {
    peer.deploy("0099_next", COLUMN)?;
    let executor = Executor::Multiprocessing;
    let mut child = peer.django.begin_to_migrate(executor)?;
    let pid = child.id().ok_or_else(|| Failure::new("it has no number"))?;
    while peer.count(COLUMN, Seen::Before).await? * 4 > peer.tenants * 3 {
        if let Some(status) = child.try_wait().of("migrate_schemas")? {
            return Err(Failure::new(format!(
                "it ended with {status} before it was killed"
            )));
        }
        sleep(LOOK).await;
    }
    for process in family(pid) {
        process.signal(Signal::KILL);
    }
    child.wait().await.of("migrate_schemas")?;
    let have = peer.count(COLUMN, Seen::After).await?;
    let half = peer.count(COLUMN, Seen::Between).await?;
    let ran = peer.migrate(executor).await?;
    peer.require_all(COLUMN).await?;
    let what = format!(
        "killed with {have} of {} schemas upgraded, {half} half; 1 manual step: somebody starts it \
         again, and it goes over all tenants; no list tells who has it, each schema has to be asked",
        peer.tenants
    );
    let name = "django-tenants, multiprocessing, its second run".to_owned();
    series(GROUP_KILL, name, "s", &what, vec![ran.seconds], report);
    Ok(())
}
