//! Attacks on whoever comes next on the same connection. The control experiment is a connection that
//! is handed on as it is, which is what a pool without hygiene does.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_postgres::Client;
use waangu_identity::proof::Access;
use waangu_tenancy::{Limits, Pools, TenantTx};

use super::{Party, Stage, enter};
use crate::world::EVERYTHING;

/// What lets a query change its session, given to one login and taken away again.
const SETS: &str = "execute on function set_config(text, text, boolean)";

/// What the attacker leaves behind, how the next one would meet it, and what that says then.
const TRACES: &[(&str, &str, &str)] = &[
    (
        "select set_config('stash.rows', (select string_agg(t::text, ' ') from {table} t), false)",
        "select current_setting('stash.rows', true)",
        "{secret}",
    ),
    (
        "declare stash cursor with hold for select t::text from {table} t",
        "fetch all from stash",
        "{secret}",
    ),
    (
        "prepare stash as select 'planted'::text",
        "execute stash",
        "planted",
    ),
    (
        "listen stash",
        "select string_agg(c, ' ') from pg_listening_channels() c",
        "stash",
    ),
    (
        "set search_path = waangu",
        "select current_setting('search_path')",
        "waangu",
    ),
    (
        "set role waangu_module",
        "select current_user::text",
        "waangu_module",
    ),
    (
        "set statement_timeout = 1234567",
        "select current_setting('statement_timeout')",
        "1234567",
    ),
    (
        "set default_transaction_read_only = on",
        "select current_setting('default_transaction_read_only')",
        "on",
    ),
    (
        "set plan_cache_mode = force_generic_plan",
        "select current_setting('plan_cache_mode')",
        "force_generic_plan",
    ),
];

pub(super) async fn attack(stage: &Stage<'_>) {
    let tables = stage.tables(stage.ours.home).await;
    for table in &tables {
        traces(stage, table).await;
        plans(stage, table).await;
    }
    failures(stage, tables.first().expect("a module has a table")).await;
}

/// A pool of one connection: whoever comes next gets this one.
fn pool(stage: &Stage<'_>) -> Pools {
    let limits = Limits {
        per_cell: 1,
        ..Limits::default()
    };
    let module = &stage.world.package.manifest.id;
    stage.world.cell.limited_pools(module, limits)
}

async fn begin(stage: &Stage<'_>, pools: &Pools, party: &Party<'_>) -> TenantTx {
    let caller = stage.world.caller(party.home, EVERYTHING);
    let context = caller.context(Access::Write);
    TenantTx::begin(pools, &context).await.expect("begin")
}

/// Everything that a session keeps beyond its transaction.
async fn traces(stage: &Stage<'_>, table: &str) {
    let mark = stage.mark(&stage.ours, table).await;
    let table = format!("{}.{table}", stage.schema(stage.ours.home));
    for (trace, probe, says) in TRACES {
        let trace = trace.replace("{table}", &table);
        let says = says.replace("{secret}", &mark);
        let what = format!("{}: {trace}", stage.tier);
        let found = met_without_hygiene(stage, &trace, probe).await;
        assert!(
            found.contains(&says),
            "{what}: not met even without hygiene: {found}"
        );

        let pools = pool(stage);
        let mut tx = begin(stage, &pools, &stage.ours).await;
        match tx.execute(&trace, &[]).await {
            Ok(_) => tx.commit().await.expect("commit"),
            // This one PostgreSQL refuses.
            Err(fault) => {
                assert!(trace.contains("set_config"), "{what}: {fault:?}");
                drop(tx);
            }
        }
        let mut tx = begin(stage, &pools, &stage.theirs).await;
        let found = tx.query(probe, &[]).await;
        let found = found.is_ok_and(|rows| text(rows.iter().map(|row| row.get(0))).contains(&says));
        assert!(!found, "{what}: the next tenant meets it");
    }
}

/// What the next one meets where a query may change its session, and a connection is handed on as it is.
async fn met_without_hygiene(stage: &Stage<'_>, trace: &str, probe: &str) -> String {
    let ours = stage.world.caller(stage.ours.home, EVERYTHING);
    let theirs = stage.world.caller(stage.theirs.home, EVERYTHING);
    let admin = stage.admin(stage.ours.home).await;
    let login = Access::Write.login(&stage.world.package.manifest.id);
    let give = format!("grant {SETS} to {login}");
    admin.batch_execute(&give).await.expect("weaken");
    let bare = stage.thief(stage.ours.home).await;
    enter(&bare, ours, Access::Write).await;
    bare.batch_execute(trace).await.expect("leave a trace");
    bare.batch_execute("commit").await.expect("commit");
    let take = format!("revoke {SETS} from {login}");
    admin.batch_execute(&take).await.expect("restore it");
    enter(&bare, theirs, Access::Write).await;
    let found = bare.query(probe, &[]).await;
    let found = found.map(|rows| text(rows.iter().map(|row| row.get(0))));
    found.unwrap_or_default()
}

/// A plan made for one tenant and used for another.
async fn plans(stage: &Stage<'_>, table: &str) {
    let schema = stage.schema(stage.ours.home);
    let table = format!("{schema}.{table}");
    let admin = stage.admin(stage.ours.home).await;
    let weaken = format!(
        "create function {schema}.frozen() returns bigint language plpgsql immutable
             as 'begin return waangu.tenant(); end';
         alter policy tenant on {table} using (tenant_id = {schema}.frozen())"
    );
    admin.batch_execute(&weaken).await.expect("weaken a policy");
    let leaked = reused_plan(stage, &table).await;
    let restore = format!(
        "alter policy tenant on {table} using (tenant_id = (select waangu.tenant()));
         drop function {schema}.frozen()"
    );
    admin.batch_execute(&restore).await.expect("restore it");
    assert!(leaked > 0, "{table}: a frozen plan shows nothing");
    assert_eq!(reused_plan(stage, &table).await, 0, "{table}: it WORKS");
}

/// Rows of the first tenant that the second one sees through the first one's plan.
async fn reused_plan(stage: &Stage<'_>, table: &str) -> i64 {
    let client = stage.thief(stage.ours.home).await;
    let first = stage.ours.home.0.number();
    let prepare = format!(
        "set plan_cache_mode = force_generic_plan;
         prepare p as select count(*) filter (where tenant_id = {first}) from {table}"
    );
    client.batch_execute(&prepare).await.expect("prepare");
    let ours = stage.world.caller(stage.ours.home, EVERYTHING);
    enter(&client, ours, Access::Read).await;
    assert!(
        executed(&client).await > 0,
        "{table}: its own tenant sees it"
    );
    client.batch_execute("commit").await.expect("commit");
    let theirs = stage.world.caller(stage.theirs.home, EVERYTHING);
    enter(&client, theirs, Access::Read).await;
    executed(&client).await
}

async fn executed(client: &Client) -> i64 {
    let row = client.query_one("execute p", &[]).await;
    row.expect("execute a plan").get(0)
}

/// Errors, cancelled statements and panics in the middle of a transaction.
async fn failures(stage: &Stage<'_>, table: &str) {
    let ours = format!("{}.{table}", stage.schema(stage.ours.home));
    let theirs = format!("{}.{table}", stage.schema(stage.theirs.home));
    forgotten_setting(stage, &ours).await;
    let pools = pool(stage);
    for round in 0..12 {
        let mut tx = begin(stage, &pools, &stage.ours).await;
        let seen = tx.query(&format!("select from {ours}"), &[]).await;
        assert!(!seen.expect("read").is_empty());
        match round % 4 {
            0 => {
                let failed = tx.query("select 1 / 0", &[]).await;
                drop((failed.expect_err("an error"), tx));
            }
            1 => {
                let sleep = tx.query("select pg_sleep(9)", &[]);
                let cancelled = tokio::time::timeout(Duration::from_millis(5), sleep).await;
                assert!(cancelled.is_err(), "it slept");
                drop(tx);
            }
            2 => {
                let panics = async move {
                    let _open = tx;
                    std::panic::resume_unwind(Box::new("a handler's defect"));
                };
                let ended = AssertUnwindSafe(panics).catch_unwind().await;
                drop(ended.expect_err("a panic"));
            }
            _ => tx.commit().await.expect("commit"),
        }
        let mut tx = begin(stage, &pools, &stage.theirs).await;
        let sql = format!("select count(*) filter (where tenant_id = $1), count(*) from {theirs}");
        let rows = tx.query(&sql, &[&stage.theirs.home.0.number()]).await;
        let rows = rows.expect("read");
        let row = rows.first().expect("a count");
        let (own, all): (i64, i64) = (row.get(0), row.get(1));
        assert!(own > 0 && own == all, "round {round}: {own} of {all}");
    }
}

/// The control experiment: what people write today, with a request that forgets to say who it is.
async fn forgotten_setting(stage: &Stage<'_>, table: &str) {
    let admin = stage.admin(stage.ours.home).await;
    let policy =
        |using: &str| format!("alter policy tenant on {table} using (tenant_id = {using})");
    let bare = policy("nullif(current_setting('app.current_tenant', true), '')::bigint");
    admin.batch_execute(&bare).await.expect("weaken a policy");
    let client = stage.thief(stage.ours.home).await;
    let set = format!("set app.current_tenant = '{}'", stage.ours.home.0.number());
    client.batch_execute(&set).await.expect("say who it is");
    let error = client.batch_execute("select 1 / 0").await;
    error.expect_err("an error on the way");
    let sql = format!("select count(*) from {table}");
    let row = client.query_one(&sql, &[]).await.expect("read");
    let good = policy("(select waangu.tenant())");
    admin.batch_execute(&good).await.expect("restore it");
    assert!(
        row.get::<_, i64>(0) > 0,
        "{table}: the setting is forgotten"
    );
}

fn text(cells: impl Iterator<Item = Option<String>>) -> String {
    cells.flatten().collect::<Vec<_>>().join(" ")
}
