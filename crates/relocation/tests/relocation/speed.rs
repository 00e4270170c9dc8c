//! How fast changes are applied. Measured by hand, because a test must not fail on a busy machine:
//! `cargo test -p waangu-relocation --release -- --ignored --nocapture speed`.

use tokio::time::Instant;
use waangu_relocation::{Relocation, Step};
use waangu_testkit::{Tier, connect, private_cell};

use crate::support::{Spot, Traveller};

/// Says how many changes a second are followed, of small transactions that insert, update and delete.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn changes_are_applied_faster_than_a_tenant_writes() {
    let (a, b) = (private_cell().await, private_cell().await);
    let table = "create table x (tenant_id bigint not null, id bigint, v text, n bigint, primary key (tenant_id, id));
                 create index x_n on x (tenant_id, n)";
    let tenant = Traveller::settle(Spot(&a, Tier::Shared), table).await;
    let number = tenant.tenant.number();
    let superuser = tenant.superuser().await;
    let rows = format!(
        "insert into stock.x select {number}, g, repeat('v', 60), g from generate_series(1, 50000) g"
    );
    superuser.batch_execute(&rows).await.expect("rows");
    let to = Spot(&b, Tier::Shared);
    let mut relocation = Relocation::begin(tenant.request(to)).await.expect("begin");
    relocation.apply(&Step::Copy).await.expect("copy");
    // Four changes in each of 20,000 transactions, as an application would write them.
    let write = format!(
        "do $$ begin
             for i in 1..20000 loop
                 insert into stock.x values ({number}, 100000 + i, 'new', i);
                 update stock.x set n = n + 1 where tenant_id = {number} and id = 1 + i % 5000;
                 update stock.x set v = 'w' || i where tenant_id = {number} and id = 5001 + i;
                 delete from stock.x where tenant_id = {number} and id = 30000 + i;
                 commit;
             end loop;
         end $$"
    );
    superuser.batch_execute(&write).await.expect("changes");
    let begun = Instant::now();
    let told = relocation.progress();
    relocation.apply(&Step::CutOver).await.expect("cut over");
    let spent = begun.elapsed();
    let progress = told.borrow().clone();
    let rate = u128::from(progress.changes) * 1000 / spent.as_millis().max(1);
    println!(
        "{} changes in {spent:?}, comparisons included: {rate}/s",
        progress.changes
    );
    println!(
        "writers waited {:?} in {} tries",
        progress.pause, progress.tries
    );
    assert_eq!(progress.changes, 80_000);
}

/// Says how long a whole move of an idle tenant takes, beside `pg_dump | psql` of its database.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement; needs pg_dump and psql in the path"]
async fn a_move_takes_no_longer_than_twice_a_dump() {
    let (a, b) = (private_cell().await, private_cell().await);
    let table = "create table x (tenant_id bigint not null, id bigint, v text, n bigint, at timestamptz default now(), primary key (tenant_id, id));
                 create index x_n on x (tenant_id, n); create index x_v on x (tenant_id, v)";
    let tenant = Traveller::settle(Spot(&a, Tier::Dedicated), table).await;
    let number = tenant.tenant.number();
    let superuser = tenant.superuser().await;
    let rows = format!(
        "insert into stock.x select {number}, g, repeat(md5(g::text), 6), g::bigint * 7919 % 1000003 from generate_series(1, 400000) g"
    );
    superuser.batch_execute(&rows).await.expect("rows");
    superuser
        .batch_execute("vacuum analyze")
        .await
        .expect("vacuum");
    let database = tenant.placement.database(tenant.tenant);
    let empty = connect(&b.superuser_dsn("postgres"))
        .await
        .expect("connect");
    empty
        .batch_execute("create database dumped template template0")
        .await
        .expect("a database");
    let begun = Instant::now();
    let script = format!(
        "pg_dump '{}' -n stock --no-owner --no-acl | psql -q -v ON_ERROR_STOP=0 '{}' > /dev/null 2>&1",
        a.superuser_dsn(&database),
        b.superuser_dsn("dumped")
    );
    let status = tokio::process::Command::new("sh")
        .args(["-c", &script])
        .status()
        .await;
    let (dumped, status) = (begun.elapsed(), status.expect("run the pipe"));
    let begun = Instant::now();
    let relocation = crate::support::run(tenant.request(Spot(&b, Tier::Schema)))
        .await
        .expect("a move");
    let told = relocation.progress().borrow().clone();
    println!(
        "pg_dump | psql {dumped:?} ({status}); move {:?}; {} rows, {} bytes, pause {:?}",
        begun.elapsed(),
        told.rows,
        told.bytes,
        told.pause
    );
}

/// Says how long a way back takes with the changes alone, beside one with a copy of all rows.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn a_way_back_takes_less_without_a_copy() {
    let (a, b) = (private_cell().await, private_cell().await);
    let table = "create table x (tenant_id bigint not null, id bigint, v text, n bigint, at timestamptz default now(), primary key (tenant_id, id));
                 create index x_n on x (tenant_id, n); create index x_v on x (tenant_id, v)";
    let (home, away) = (Spot(&a, Tier::Schema), Spot(&b, Tier::Dedicated));
    // Of so many rows one changes, and one goes.
    for (way_back, every) in [(true, 2000), (true, 20), (false, 20)] {
        let mut tenant = Traveller::settle(home, table).await;
        tenant.options.way_back = way_back;
        let number = tenant.tenant.number();
        let schema = format!("t_{number}_stock");
        let rows = format!(
            "insert into {schema}.x select {number}, g, repeat(md5(g::text), 6), g::bigint * 7919 % 1000003 from generate_series(1, 400000) g"
        );
        let superuser = tenant.superuser().await;
        superuser.batch_execute(&rows).await.expect("rows");
        let begun = Instant::now();
        crate::support::run(tenant.request(away))
            .await
            .expect("a move");
        let there = begun.elapsed();
        (tenant.placement, tenant.cell) = (tenant.placement_at(away.1), away.0);
        let write = format!(
            "update stock.x set v = 'new' where tenant_id = {number} and id % {every} = 0;
             delete from stock.x where tenant_id = {number} and id % {every} = 1"
        );
        let superuser = tenant.superuser().await;
        superuser.batch_execute(&write).await.expect("changes");
        let begun = Instant::now();
        let relocation = crate::support::run(tenant.request(home))
            .await
            .expect("a move");
        let told = relocation.progress().borrow().clone();
        println!(
            "kept: {way_back}; there {there:?}; back {:?}: {} rows copied, {} changes, pause {:?}",
            begun.elapsed(),
            told.rows,
            told.changes,
            told.pause
        );
    }
}
