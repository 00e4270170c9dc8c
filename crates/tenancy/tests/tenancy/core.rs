//! The helper schema of databases that stand already: brought up to date, and who works there goes on.
//! On servers of their own, because a look is at a whole cell.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_postgres::Client;
use waangu_identity::ContextKey;
use waangu_identity::proof::Access;
use waangu_kernel::placement::Tier;
use waangu_tenancy::inspect::inspect;
use waangu_tenancy::{HomeState, Rules};
use waangu_testkit::{Cell, MODULES, connect, private_cell};

use crate::support::{Home, code, count, enter, module, names, stock};

const VERSION_1: &str = include_str!("core/version_1.sql");

/// What an older program left behind, as far as it is not told by version 1's text.
const OLDER: &str = "
    update waangu.core set version = 1;
    create or replace function waangu.visit(p_tenants bigint[]) returns bigint[]
    language sql as 'select null::bigint[]';
    grant execute on function waangu.migrate(text, text) to waangu_module";

async fn home(cell: Cell, tier: Tier) -> Home {
    let (tenant, placement) = cell.tenant(tier);
    let pools = cell.pools(&module("stock"));
    let home = Home {
        cell,
        tenant,
        placement,
        pools,
    };
    home.provision().await.unwrap();
    home
}

fn rules() -> Rules {
    let mut rules = Rules::new([&stock().manifest]);
    for id in MODULES.iter().filter(|id| **id != "stock") {
        rules.add(&module(id), &[]);
    }
    rules
}

async fn is_sound(client: &Client) {
    assert_eq!(inspect(client, &rules()).await.unwrap(), []);
}

/// Makes a database look as if an older program had made it, and nobody had looked since.
async fn make_older(home: &Home) -> Client {
    let client = home.superuser().await;
    client.batch_execute(OLDER).await.unwrap();
    let forget = format!("comment on database {} is null", home.database());
    client.batch_execute(&forget).await.unwrap();
    assert_ne!(inspect(&client, &rules()).await.unwrap(), []);
    client
}

async fn version(client: &Client) -> i32 {
    let row = client
        .query_one("select version from waangu.core", &[])
        .await;
    row.unwrap().get(0)
}

async fn prepare(home: &Home) {
    let keys = [home.cell.key.clone()];
    let admin = home.cell.another_admin();
    admin.prepare(&Cell::logins(), &keys).await.unwrap();
}

/// A platform's next version would otherwise serve none of the tenants that the one before has made.
#[tokio::test]
async fn a_database_of_version_1_is_brought_up_to_date_with_its_rows() {
    let cell = private_cell().await;
    let (tenant, placement) = cell.tenant(Tier::Dedicated);
    let database = placement.database(tenant);
    let server = connect(&cell.superuser_dsn("postgres")).await.unwrap();
    for sql in [
        format!("create database {database} template template0"),
        format!("revoke all on database {database} from public"),
        format!("grant connect on database {database} to waangu_module, waangu_tree"),
    ] {
        server.batch_execute(&sql).await.unwrap();
    }
    let client = connect(&cell.superuser_dsn(&database)).await.unwrap();
    let old = format!("begin; {VERSION_1}; commit");
    client.batch_execute(&old).await.unwrap();
    let admin = &cell.admin;
    admin
        .ensure_module(tenant, &placement, &stock())
        .await
        .unwrap();
    admin
        .put_home(tenant, &placement, HomeState::Active)
        .await
        .unwrap();
    let rows = format!(
        "insert into stock.product (tenant_id, id, name) values ({}, 1, 'before')",
        tenant.number()
    );
    client.batch_execute(&rows).await.unwrap();
    assert_ne!(inspect(&client, &rules()).await.unwrap(), []);

    let pools = cell.pools(&module("stock"));
    let home = Home {
        cell,
        tenant,
        placement,
        pools,
    };
    prepare(&home).await;
    is_sound(&client).await;
    assert_eq!(home.names().await, ["before"]);
    home.stock_up(2, "after").await;
    assert_eq!(home.names().await, ["before", "after"]);
}

/// A start that visits a thousand databases to find out that nothing is to be done takes a minute.
#[tokio::test]
async fn a_second_start_visits_no_database() {
    let home = home(private_cell().await, Tier::Dedicated).await;
    let turn = home.cell.admin.stock_turn().await.unwrap().unwrap();
    assert!(turn.make(&[&stock()]).await.unwrap());
    drop(turn);
    let server = connect(&home.cell.superuser_dsn("postgres")).await.unwrap();
    let sql = "select sum(sessions)::bigint from pg_stat_database where datname ~ '^waangu'";
    let visits = async || server.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
    let before = visits().await;
    prepare(&home).await;
    home.cell.another_admin().catch_up().await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(visits().await, before);
    // The control experiment: another key is news to all.
    let keys = [ContextKey::new(9, [9; 32])];
    home.cell.another_admin().replace_keys(&keys).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(
        visits().await >= before + 4,
        "template, shared, tenant, stock"
    );
}

/// An upgrade that disturbs the tenants of a database is one that nobody dares to make by day; one that
/// lets a transaction begin under one version and read under another shows an empty shop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_are_served_meanwhile() {
    let home = home(private_cell().await, Tier::Shared).await;
    home.stock_up(1, "there").await;
    let client = make_older(&home).await;
    let mut readers = JoinSet::new();
    for _ in 0..4 {
        let (pools, context) = (home.pools.clone(), home.context(Access::Read));
        readers.spawn(async move {
            let mut served = 0;
            for _ in 0..150 {
                let mut tx = waangu_tenancy::TenantTx::begin(&pools, &context)
                    .await
                    .unwrap();
                for _ in 0..2 {
                    assert_eq!(names(&mut tx).await.unwrap(), ["there"]);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                tx.commit().await.unwrap();
                served += 1;
            }
            served
        });
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    home.cell.another_admin().catch_up().await.unwrap();
    assert_eq!(readers.len(), 4, "they are still at it");
    is_sound(&client).await;
    assert_eq!(readers.join_all().await, [150; 4]);
}

/// An older version may have sealed otherwise than this one. Who is just entering must then neither be
/// shown an empty shop nor be sent away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_enters_by_one_version_and_reads_by_another() {
    let home = home(private_cell().await, Tier::Shared).await;
    home.stock_up(1, "there").await;
    let client = home.superuser().await;
    let sql = "select string_agg(pg_get_functiondef(p.oid), ';') from pg_proc p
                where p.pronamespace = 'waangu'::regnamespace
                  and p.proname in ('enter', 'tenant', 'writer')";
    let text: String = client.query_one(sql, &[]).await.unwrap().get(0);
    let sql = "select version from waangu.core";
    let version: i32 = client.query_one(sql, &[]).await.unwrap().get(0);
    let mut served = JoinSet::new();
    for round in 0..3 {
        // It seals with another letter, and looks for that.
        let older = text
            .replace(&format!("v_core <> {version}"), "v_core <> 1")
            .replace("v_access || v_tenant", "'x' || v_access || v_tenant")
            .replace("'w'::text ||", "'xw'::text ||")
            .replace("'r'::text ||", "'xr'::text ||");
        assert!(older.matches("'x").count() >= 3, "{older}");
        let keys = "update waangu.context_key set core = 1";
        client
            .batch_execute(&format!("{older}; {keys}"))
            .await
            .unwrap();
        make_older(&home).await;
        assert_eq!(home.names().await, ["there"], "the older one works");
        for _ in 0..8 {
            let (pools, context) = (home.pools.clone(), home.context(Access::Read));
            served.spawn(async move {
                for _ in 0..40 {
                    let mut tx = waangu_tenancy::TenantTx::begin(&pools, &context)
                        .await
                        .unwrap();
                    assert_eq!(names(&mut tx).await.unwrap(), ["there"]);
                    tx.commit().await.unwrap();
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        home.cell.another_admin().catch_up().await.unwrap();
        is_sound(&client).await;
        println!("round {round}: {} of 8 still at it", served.len());
        while let Some(done) = served.join_next().await {
            done.unwrap();
        }
    }
}

/// A report that runs for minutes must keep neither the platform from starting nor its neighbours from
/// working, and its database must not be forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_database_is_left_for_the_next_look() {
    let home = home(private_cell().await, Tier::Shared).await;
    let client = make_older(&home).await;
    let long = home.write().await;
    let began = tokio::time::Instant::now();
    prepare(&home).await;
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "it waits for ever"
    );
    assert_eq!(version(&client).await, 1);
    long.commit().await.unwrap();
    home.cell.admin.catch_up().await.unwrap();
    is_sound(&client).await;
}

/// One client's database that somebody has broken by hand must keep neither the platform from starting nor
/// the others on yesterday's version.
#[tokio::test]
async fn a_broken_database_holds_nobody_up() {
    let broken = home(private_cell().await, Tier::Dedicated).await;
    let client = make_older(&broken).await;
    let sql = "alter table waangu.home rename to moved_by_hand";
    client.batch_execute(sql).await.unwrap();
    let (tenant, placement) = broken.cell.tenant(Tier::Dedicated);
    let sound = Home {
        cell: broken.cell,
        tenant,
        placement,
        pools: broken.pools,
    };
    sound.provision().await.unwrap();
    let neighbour = make_older(&sound).await;
    prepare(&sound).await;
    is_sound(&neighbour).await;
    assert_eq!(version(&client).await, 1);
    let told = sound.cell.admin.catch_up().await.expect_err("it is told");
    assert!(format!("{told:?}").contains("waangu.home"), "{told:?}");
}

/// A control plane may be killed at any moment of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_dies_on_the_way_has_done_nothing() {
    let home = home(private_cell().await, Tier::Dedicated).await;
    home.stock_up(1, "kept").await;
    let client = make_older(&home).await;
    let long = home.write().await;
    let admin = home.cell.another_admin();
    let mut dying = JoinSet::new();
    dying.spawn(async move { admin.catch_up().await });
    let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                 where datname = current_database() and application_name = 'waangu-control'
                   and wait_event_type = 'Lock'";
    while client.query_one(kill, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let died = dying.join_next().await.unwrap().unwrap();
    assert_eq!(code(died), "database-unavailable");
    assert_eq!(version(&client).await, 1);
    long.commit().await.unwrap();
    home.cell.admin.catch_up().await.unwrap();
    is_sound(&client).await;
    assert_eq!(home.names().await, ["kept"]);
}

/// Two programs that each make what they know, again and again, would make it for ever.
#[tokio::test]
async fn what_a_newer_program_made_stays_and_hears_of_keys() {
    let home = home(private_cell().await, Tier::Dedicated).await;
    let client = make_older(&home).await;
    let newer = "update waangu.core set version = 99, hash = 'newer'";
    client.batch_execute(newer).await.unwrap();
    let keys = [home.cell.key.clone(), ContextKey::new(9, [9; 32])];
    let admin = home.cell.another_admin();
    admin.prepare(&Cell::logins(), &keys).await.unwrap();
    admin.catch_up().await.unwrap();
    assert_eq!(version(&client).await, 99);
    let sql = "select count(*) from waangu.context_key";
    assert_eq!(
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0),
        2
    );
}

/// A module that enters and then falls silent would hold its tenant's lock, and every move, for ever.
#[tokio::test]
async fn a_transaction_that_never_ends_is_ended() {
    let home = home(private_cell().await, Tier::Shared).await;
    let client = home.outsider().await;
    client.batch_execute("begin").await.unwrap();
    enter(&client, &home.context(Access::Write)).await.unwrap();
    let cell = home.cell.another_admin();
    assert_eq!(cell.end_overdue(3600).await.unwrap(), 0);
    assert_eq!(count(&client, "product").await.unwrap(), 0);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(cell.end_overdue(1).await.unwrap(), 1);
    let after = client.simple_query("select 1").await;
    assert!(after.is_err(), "{after:?}");
}
