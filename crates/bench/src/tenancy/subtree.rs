//! A head office's sum over its subsidiaries, against the same sum without row-level security.

use std::time::Duration;

use futures_util::future::try_join3;
use tokio::time::Instant;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};
use waangu_identity::RequestContext;
use waangu_identity::proof::Access;
use waangu_kernel::Tier;
use waangu_kernel::placement::Place;
use waangu_tenancy::{Pools, TreeTx, Visit};

use super::Sizes;
use super::cpu::Backends;
use super::paired::ratio;
use super::sides::DEADLINE;
use super::stage::{BARE, Stage, Told as _, connect, placement, shared, tenant};
use crate::Context;
use crate::failure::{Failure, Of as _};
use crate::goal::Goal;
use crate::report::{Ratio, Report, Series};

/// Subsidiaries; tenant 1 is the head office.
const BELOW: i64 = 100;

const GOAL: f64 = 1.3;

/// The login of subtrees.
const TREE: &str = "waangu_goods_tree";

const OURS_SQL: &str = "select count(*), sum(amount)::bigint from item";
const BARE_SQL: &str = "select count(*), sum(amount)::bigint from item where tenant_id = any ($1)";

/// Microseconds of one aggregate.
#[derive(Debug, Default)]
struct Took {
    wall: Vec<f64>,
    backend: Vec<f64>,
}

/// Measures it.
pub(super) async fn measure(
    context: &Context,
    stage: &Stage,
    sizes: Sizes,
    report: &mut Report,
) -> Result<(), Failure> {
    let last = sizes.tenants.min(BELOW + 1);
    let superuser = stage.superuser(&shared()?).await?;
    let sql = "insert into waangu.closure (ancestor, descendant)
               select a, n from generate_series(1::bigint, $1) as n, unnest(array[1, n]) as a
               on conflict do nothing";
    superuser.execute(sql, &[&last]).await.of("closure")?;
    superuser
        .batch_execute("analyze waangu.closure, waangu.home")
        .await
        .of("analyze")?;
    let ours = Ours::new(stage, last)?;
    let bare = Bare::new(stage, last).await?;
    if ours.read().await? != bare.read().await? {
        return Err(Failure::new("subtree: the two sums differ"));
    }
    let rounds = sizes.rounds;
    context.progress.phase("sums over a subtree", rounds);
    let (mut our, mut their) = (Took::default(), Took::default());
    let (tree, plain) = (
        Backends::of(&superuser, TREE),
        Backends::of(&superuser, BARE),
    );
    for round in 0..rounds {
        if round % 2 == 0 {
            time(&tree, Box::pin(ours.read()), &mut our).await?;
            time(&plain, bare.read(), &mut their).await?;
        } else {
            time(&plain, bare.read(), &mut their).await?;
            time(&tree, Box::pin(ours.read()), &mut our).await?;
        }
        context.progress.step();
    }
    show(last - 1, our, their, report);
    Ok(())
}

fn show(below: i64, our: Took, their: Took, report: &mut Report) {
    report.goals.push(Goal::at_most(
        format!("subtree: time of a sum over {below} subsidiaries to bare"),
        "×",
        ratio(&their.wall, &our.wall),
        GOAL,
    ));
    report.ratios.push(Ratio {
        name: "subtree: backend CPU of a sum to bare".to_owned(),
        value: ratio(&their.backend, &our.backend),
    });
    for (name, samples) in [
        ("ours", our.wall),
        ("ours, backend CPU", our.backend),
        ("bare", their.wall),
        ("bare, backend CPU", their.backend),
    ] {
        report.series.push(Series {
            group: "a sum over a subtree",
            name: name.to_owned(),
            unit: "µs",
            what: String::new(),
            samples,
        });
    }
    report.notes.push(
        "subtree: count and sum over all rows of the subsidiaries. Ours: TreeTx from begin to the last \
         check, all its round trips included. Bare: `tenant_id = any ($1)`, BYPASSRLS, one flight"
            .to_owned(),
    );
}

async fn time<T>(
    backends: &Backends<'_>,
    work: impl Future<Output = Result<T, Failure>>,
    took: &mut Took,
) -> Result<(), Failure> {
    let before = backends.used().await?;
    let began = Instant::now();
    work.await?;
    took.wall.push(microseconds(began.elapsed()));
    let after = backends.used().await?;
    took.backend
        .push(microseconds(after.saturating_sub(before)));
    Ok(())
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

struct Ours<'a> {
    stage: &'a Stage,
    pools: Pools,
    place: Place,
}

impl<'a> Ours<'a> {
    fn new(stage: &'a Stage, last: i64) -> Result<Self, Failure> {
        let placement = placement(Tier::Shared)?;
        let mut tenants = Vec::new();
        for number in 2..=last {
            let slug = format!("t{number}").parse().of("slug")?;
            tenants.push((tenant(number)?, slug));
        }
        let place = Place {
            cell: placement.cell,
            tier: placement.tier,
            bucket: placement.bucket,
            tenants,
        };
        let pools = stage.tree_pools()?;
        Ok(Self {
            stage,
            pools,
            place,
        })
    }

    /// As the head office's request.
    async fn read(&self) -> Result<(i64, i64), Failure> {
        let gateway = &self.stage.gateway;
        let context = RequestContext {
            places: vec![self.place.clone()],
            ..gateway.context(1, Tier::Shared, Access::Tree)?
        };
        let visits = Visit::all(&context);
        let [visit] = visits.as_slice() else {
            return Err(Failure::new("subtree: one place, but several visits"));
        };
        let deadline = Instant::now() + DEADLINE;
        let begun = TreeTx::begin(&self.pools, visit, deadline).await;
        let mut tx = begun.told("subtree")?;
        let rows = tx.query(OURS_SQL, &[]).await.told("subtree")?;
        let [row] = rows.as_slice() else {
            return Err(Failure::new("subtree: no sum"));
        };
        let sum = (row.try_get(0).of("count")?, row.try_get(1).of("sum")?);
        Ok(tx.answer(sum).await.told("subtree")?.into_inner())
    }
}

struct Bare {
    client: Client,
    statement: Statement,
    tenants: Vec<i64>,
}

impl Bare {
    async fn new(stage: &Stage, last: i64) -> Result<Self, Failure> {
        let client = connect(BARE, &shared()?, stage.port()).await?;
        let statement = client.prepare(BARE_SQL).await.of("subtree")?;
        Ok(Self {
            client,
            statement,
            tenants: (2..=last).collect(),
        })
    }

    async fn read(&self) -> Result<(i64, i64), Failure> {
        let params: [&(dyn ToSql + Sync); 1] = [&self.tenants];
        let begin = self.client.batch_execute("begin");
        let rows = self.client.query(&self.statement, &params);
        let commit = self.client.batch_execute("commit");
        let ((), rows, ()) = try_join3(begin, rows, commit).await.of("subtree")?;
        let [row] = rows.as_slice() else {
            return Err(Failure::new("subtree: no sum"));
        };
        Ok((row.try_get(0).of("count")?, row.try_get(1).of("sum")?))
    }
}
