//! Connections and memory when tenants have databases of their own, each in light use.
//!
//! Not durable, unlike the rest: what is weighed are processes, and a thousand databases have to be
//! made first.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::time::{Instant, sleep};
use waangu_identity::proof::Access;
use waangu_kernel::Tier;
use waangu_tenancy::{Limits, Pools, TenantTx};

use super::Sizes;
use super::plan::Planner;
use super::sides::DEADLINE;
use super::stage::{OURS, Stage, Told as _, placement, tenant};
use crate::Context;
use crate::failure::{Failure, Of as _};
use crate::goal::Goal;
use crate::memory::weigh;
use crate::process::{Process, family};
use crate::report::{Report, Series};

const GROUP: &str = "dedicated databases in light use";

const SETTINGS: &[(&str, &str)] = &[
    ("shared_buffers", "128MB"),
    ("max_connections", "300"),
    ("max_wal_size", "4GB"),
    ("autovacuum", "off"),
];

/// Requests under way at once.
const WIDTH: usize = 4;

/// Further requests to tenants drawn at random, after each has had one.
const FURTHER: usize = 200;

/// An idle connection is closed after this time; short, so that the bench can see it.
const IDLE: Duration = Duration::from_secs(3);

/// The pools look every ten seconds.
const UNTIL_CLOSED: Duration = Duration::from_secs(15);

/// Measures it on a server of its own.
pub(super) async fn measure(
    context: &Context,
    sizes: Sizes,
    report: &mut Report,
) -> Result<(), Failure> {
    let last = sizes.databases.last().copied().unwrap_or(1);
    let steps = usize::try_from(last).of("databases")?;
    context.progress.phase("dedicated databases", steps);
    let stage = Stage::start(SETTINGS).await?;
    stage.provision(1, Tier::Dedicated).await?;
    let database = placement(Tier::Dedicated)?.database(tenant(1)?);
    let superuser = stage.superuser(&database).await?;
    // Every copy has every home, so that none of them has to be visited.
    let sql = "insert into waangu.home (tenant_id, state, epoch)
               select n, 'active', 1 from generate_series(2::bigint, $1) as n";
    superuser.execute(sql, &[&last]).await.of("homes")?;
    drop(superuser);
    let mut made = 1;
    for count in sizes.databases {
        copy(context, &stage, &database, made + 1, *count).await?;
        made = *count;
        weigh_in_use(&stage, *count, report).await?;
    }
    explain(report);
    stage.strike().await
}

/// Copies the first tenant's database. Its connections must have ended.
async fn copy(
    context: &Context,
    stage: &Stage,
    template: &str,
    first: i64,
    last: i64,
) -> Result<(), Failure> {
    let superuser = stage.superuser("postgres").await?;
    let quiet = "select count(*) from pg_stat_activity where datname = $1";
    for _ in 0..200 {
        let row = superuser
            .query_one(quiet, &[&template])
            .await
            .of("template")?;
        if row.try_get::<_, i64>(0).of("template")? == 0 {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    for number in first..=last {
        let name = placement(Tier::Dedicated)?.database(tenant(number)?);
        let create = format!("create database {name} template {template} strategy file_copy");
        superuser.batch_execute(&create).await.of(&name)?;
        let rights = format!(
            "revoke all on database {name} from public; \
             grant connect on database {name} to waangu_module"
        );
        superuser.batch_execute(&rights).await.of(&name)?;
        context.progress.step();
    }
    Ok(())
}

/// Every tenant has one request, then some have another; then nobody has.
async fn weigh_in_use(stage: &Stage, count: i64, report: &mut Report) -> Result<(), Failure> {
    let limits = Limits {
        idle: IDLE,
        ..Limits::default()
    };
    let pools = stage.limited_pools(stage.port(), limits)?;
    let mut planner = Planner::new(count, 1, 0);
    let drawn = (0..FURTHER).map(|_| planner.below(count) + 1);
    let order: Vec<i64> = (1..=count).chain(drawn).collect();
    let began = Instant::now();
    let mut done = stream::iter(order.into_iter().map(|number| visit(stage, &pools, number)))
        .buffer_unordered(WIDTH);
    let mut waits = Vec::new();
    while let Some(took) = done.next().await {
        waits.push(took?.as_secs_f64() * 1e3);
    }
    drop(done);
    let all = began.elapsed();
    let superuser = stage.superuser("postgres").await?;
    let busy = backends(&superuser).await?;
    let name = format!("{count} in use");
    memory(stage, &name, busy, report);
    push(report, format!("{name}: a request"), "ms", waits);
    push(
        report,
        format!("{name}: all requests"),
        "s",
        vec![all.as_secs_f64()],
    );
    let cap = f64::from(u32::try_from(limits.per_cell).of("limit")?);
    let name = format!("open connections, dedicated databases: {count}");
    report.goals.push(Goal::at_most(name, "", busy, cap));
    sleep(UNTIL_CLOSED).await;
    let idle = backends(&superuser).await?;
    memory(stage, &format!("{count} idle"), idle, report);
    Ok(())
}

/// One small request.
async fn visit(stage: &Stage, pools: &Pools, number: i64) -> Result<Duration, Failure> {
    let context = stage
        .gateway
        .context(number, Tier::Dedicated, Access::Read)?;
    let began = Instant::now();
    let tx = TenantTx::lazy(pools, &context, Instant::now() + DEADLINE);
    let sql = "select id, name, amount from item where id = $1";
    tx.query_and_commit(sql, &[&1_i64])
        .await
        .told("dedicated")?;
    Ok(began.elapsed())
}

async fn backends(superuser: &tokio_postgres::Client) -> Result<f64, Failure> {
    let sql = "select count(*)::integer from pg_stat_activity where usename = $1";
    let row = superuser.query_one(sql, &[&OURS]).await.of("backends")?;
    row.try_get::<_, i32>(0).of("backends").map(f64::from)
}

fn memory(stage: &Stage, name: &str, backends: f64, report: &mut Report) {
    push(
        report,
        format!("{name}: open connections"),
        "",
        vec![backends],
    );
    let server = stage.server_pid().map(family).unwrap_or_default();
    let ourselves: Vec<Process> = Process::find(std::process::id()).into_iter().collect();
    for (who, processes) in [("PostgreSQL", server), ("module process", ourselves)] {
        let Some(weight) = weigh(&processes).get("all").copied() else {
            continue;
        };
        push(
            report,
            format!("{name}: {who}, RSS"),
            "MiB",
            vec![weight.rss],
        );
        if let Some(pss) = weight.pss {
            push(report, format!("{name}: {who}, PSS"), "MiB", vec![pss]);
        }
    }
}

fn push(report: &mut Report, name: String, unit: &'static str, samples: Vec<f64>) {
    report.series.push(Series {
        group: GROUP,
        name,
        unit,
        what: String::new(),
        samples,
    });
}

fn explain(report: &mut Report) {
    report.notes.push(
        "dedicated: a server of its own (not durable, shared_buffers 128 MB); one module process with \
         the default limits, but idle connections closed after 3 s; every tenant has one point read, \
         then 200 tenants drawn at random have another, 4 at once; idle: 15 s later. RSS of PostgreSQL \
         counts shared memory once for each process; PSS counts it once. The module process is this \
         bench, whose other parts' memory is in it"
            .to_owned(),
    );
}
