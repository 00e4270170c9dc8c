//! Pools: shares, bounds, affinity, and nothing of one tenant's session for the next.

use std::net::TcpListener;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use waangu_identity::proof::Access;
use waangu_kernel::placement::Tier;
use waangu_tenancy::{Call, CellAddress, HomeState, Limits, Pools, TenantTx, ToSql, constraint};

use crate::support::{Home, stock};

fn small(home: &Home, per_cell: usize) -> Pools {
    let limits = Limits {
        per_cell,
        idle: Duration::from_mins(1),
    };
    home.cell
        .limited_pools(&crate::support::module("stock"), limits)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

async fn sleeper(pools: Pools, context: waangu_identity::RequestContext, seconds: f64) {
    let tx = TenantTx::lazy(&pools, &context, soon());
    tx.query_and_commit("select pg_sleep($1)", &[&seconds])
        .await
        .expect("sleep");
}

/// One client's burst must not make all others wait until it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_one_tenant_does_not_keep_another_waiting() {
    let busy = Home::new(Tier::Shared).await;
    let quiet = busy.neighbour().await;
    let pools = small(&busy, 2);
    let mut burst = JoinSet::new();
    for _ in 0..40 {
        burst.spawn(sleeper(pools.clone(), busy.context(Access::Read), 0.2));
    }
    while pools.stats()[0].1.waiting < 30 {
        sleep(Duration::from_millis(5)).await;
    }
    // The burst alone would take four seconds.
    let answer = sleeper(pools.clone(), quiet.context(Access::Read), 0.0);
    timeout(Duration::from_millis(1500), answer)
        .await
        .expect("the quiet tenant gets the next connection");
    while let Some(done) = burst.join_next().await {
        done.expect("a request of the burst");
    }
    let stats = pools.stats()[0].1;
    assert_eq!((stats.in_use, stats.waiting), (0, 0));
    assert!(stats.open <= 2 && stats.waited >= 38, "{stats:?}");
}

/// The people of a tenant that has just arrived must not wait until a server process is started, the
/// database looked at and its catalogue read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_open_where_a_tenant_is_heading() {
    for tier in Tier::ALL {
        let home = Home::bare(tier).await;
        let (admin, place) = (&home.cell.admin, &home.placement);
        admin.ensure_place(home.tenant, place).await.unwrap();
        let stock = stock();
        admin
            .ensure_module(home.tenant, place, &stock)
            .await
            .unwrap();
        let pools = home.cell.guarded_pools(&stock.manifest);
        let mut context = home.context(Access::Write);
        pools.open_ahead(&context);
        context.heading = Some(place.clone());
        for _ in 0..20 {
            pools.open_ahead(&context);
        }
        let stats = async || {
            sleep(Duration::from_millis(10)).await;
            pools.stats()[0].1
        };
        while stats().await.open < 2 || stats().await.in_use > 0 {}
        admin
            .put_home(home.tenant, place, HomeState::Active)
            .await
            .unwrap();
        for _ in 0..3 {
            let insert =
                "insert into product (id, name) values ((select count(*) from product), 'x')";
            let tx = TenantTx::lazy(&pools, &context, soon());
            tx.execute_and_commit(insert, &[]).await.unwrap();
            pools.open_ahead(&context);
        }
        assert_eq!(stats().await.opened, 2, "{tier:?}");
    }
}

/// A table that is being changed where a tenant is heading must not cost the pool a connection each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_locked_ahead_is_left_alone() {
    let home = Home::new(Tier::Schema).await;
    let other = home.superuser().await;
    let lock = format!("begin; lock table {}.product", home.schema());
    other.batch_execute(&lock).await.unwrap();
    let pools = small(&home, 4);
    let mut context = home.context(Access::Write);
    context.heading = Some(home.placement.clone());
    for round in 0..2 {
        pools.open_ahead(&context);
        sleep(Duration::from_millis(600)).await;
        let stats = pools.stats()[0].1;
        assert_eq!((stats.open, stats.in_use), (2, 0), "round {round}");
        sleep(Duration::from_secs(2)).await;
    }
    other.batch_execute("rollback").await.unwrap();
    home.stock_up(1, "served").await;
}

/// Where a tenant is heading is a hint: nobody else's request may wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_opened_ahead_where_others_need_the_room() {
    let home = Home::new(Tier::Dedicated).await;
    let other = Home::bare(Tier::Dedicated).await;
    let pools = small(&home, 2);
    let tx = TenantTx::begin(&pools, &home.context(Access::Read))
        .await
        .unwrap();
    let mut context = other.context(Access::Read);
    context.heading = Some(other.placement.clone());
    pools.open_ahead(&context);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(pools.stats()[0].1.opened, 1);
    drop(tx);
    // There is no such database: nothing is held for it.
    sleep(Duration::from_millis(2200)).await;
    pools.open_ahead(&context);
    sleep(Duration::from_millis(200)).await;
    let stats = pools.stats()[0].1;
    assert_eq!((stats.opened, stats.open, stats.in_use), (2, 1, 0));
    home.stock_up(1, "still served").await;
}

/// A request whose time is over gets an answer, and its place in the queue does not get lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_end_with_the_deadline_and_places_survive_whatever_happens() {
    let home = Home::new(Tier::Shared).await;
    let pools = small(&home, 1);
    let context = home.context(Access::Read);
    let holder = TenantTx::begin(&pools, &context).await.unwrap();
    let late = TenantTx::lazy(
        &pools,
        &context,
        Instant::now() + Duration::from_millis(100),
    );
    let fault = late.query_and_commit("select 1", &[]).await.unwrap_err();
    assert_eq!(fault.code(), "overloaded");
    assert_eq!(pools.stats()[0].1.timed_out, 1);

    // Dropped while they wait, just as they are served, and while they run.
    let mut requests = JoinSet::new();
    for number in 0..60_u64 {
        let (pools, context) = (pools.clone(), context.clone());
        requests.spawn(async move {
            let patience = Duration::from_millis(number * 7 % 90);
            drop(timeout(patience, sleeper(pools, context, 0.01)).await);
        });
    }
    sleep(Duration::from_millis(20)).await;
    drop(holder);
    while let Some(done) = requests.join_next().await {
        done.expect("a request");
    }
    sleeper(pools.clone(), context, 0.0).await;
    let stats = pools.stats()[0].1;
    assert_eq!((stats.in_use, stats.waiting), (0, 0), "{stats:?}");
    assert!(stats.open <= 1, "{stats:?}");
}

/// Hundreds of dedicated databases must not mean hundreds of open connections.
#[tokio::test]
async fn many_databases_share_few_connections() {
    let first = Home::new(Tier::Dedicated).await;
    let mut homes = vec![first];
    for _ in 0..5 {
        homes.push(Home::new(Tier::Dedicated).await);
    }
    let pools = small(&homes[0], 3);
    for _round in 0..3 {
        for home in &homes {
            sleeper(pools.clone(), home.context(Access::Read), 0.0).await;
            assert!(pools.stats()[0].1.open <= 3);
        }
    }
    assert_eq!(pools.stats()[0].1.open, 3);
}

/// What one tenant's SQL leaves in a session must not meet the next tenant, even if the next
/// transaction is rolled back and a third one follows.
#[tokio::test]
async fn traces_of_a_tenant_are_gone_for_good() {
    let one = Home::new(Tier::Shared).await;
    let two = one.neighbour().await;
    two.stock_up(1, "two").await;
    let pools = small(&one, 1);
    let poison = [
        "set search_path = pg_catalog",
        "set app.stash = 'from one'",
        "set role waangu_module",
    ];
    let mut tx = TenantTx::begin(&pools, &one.context(Access::Write))
        .await
        .unwrap();
    for sql in poison {
        tx.execute(sql, &[]).await.unwrap();
    }
    tx.commit().await.unwrap();

    let failed = TenantTx::lazy(&pools, &two.context(Access::Write), soon());
    failed
        .query_and_commit("select 1 / 0", &[])
        .await
        .unwrap_err();

    let traces = "select coalesce(current_setting('app.stash', true), '')
                       , (select count(*) from pg_listening_channels())
                            + (current_user <> session_user)::integer
                       , (select count(*) from product)";
    let found = async || {
        let tx = TenantTx::lazy(&pools, &two.context(Access::Read), soon());
        let rows = tx.query_and_commit(traces, &[]).await.unwrap();
        let stash: String = rows[0].get(0);
        (stash, rows[0].get::<_, i64>(1), rows[0].get::<_, i64>(2))
    };
    assert_eq!(found().await, (String::new(), 0, 1));
    let stats = pools.stats()[0].1;
    assert_eq!((stats.opened, stats.tainted), (2, 1), "another connection");

    let tx = TenantTx::lazy(&pools, &one.context(Access::Write), soon());
    tx.execute_and_commit("listen something", &[])
        .await
        .unwrap();
    assert_eq!(found().await, (String::new(), 0, 1));
    let stats = pools.stats()[0].1;
    assert_eq!((stats.opened, stats.tainted), (3, 2), "another connection");
}

/// A module that goes on serving from a database whose policy somebody has dropped shows one tenant's
/// rows to the next.
#[tokio::test]
async fn nobody_is_served_from_a_database_that_has_drifted() {
    let home = Home::new(Tier::Dedicated).await;
    home.stock_up(1, "own").await;
    let serve = async |pools: &Pools| {
        let tx = TenantTx::lazy(pools, &home.context(Access::Read), soon());
        tx.query_and_commit("select name from product", &[]).await
    };
    let admin = home.superuser().await;
    let drift = "alter table stock.product no force row level security";
    admin.batch_execute(drift).await.unwrap();
    let pools = home.cell.guarded_pools(&stock().manifest);
    let refusal = serve(&pools).await.unwrap_err();
    assert_eq!(refusal.code(), "isolation-drift");
    let cause = refusal.operator_cause().unwrap();
    assert!(cause.contains("stock.product"), "{cause}");
    assert_eq!(pools.stats()[0].1.open, 0);

    let mend = "alter table stock.product force row level security";
    admin.batch_execute(mend).await.unwrap();
    assert_eq!(serve(&pools).await.unwrap().len(), 1);
}

/// A request waits for no server longer than it has time: neither for one that takes connections and
/// says nothing, nor for a look at a catalogue that somebody has locked.
#[tokio::test]
async fn opening_a_connection_ends_with_the_requests_time() {
    let home = Home::new(Tier::Dedicated).await;
    let refused = async |pools: &Pools| {
        let deadline = Instant::now() + Duration::from_millis(300);
        let tx = TenantTx::lazy(pools, &home.context(Access::Read), deadline);
        let begun = Instant::now();
        let answer = tx.query_and_commit("select 1", &[]).await;
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(pools.stats()[0].1.open, 0, "its room is free again");
        answer.map(|rows| rows.len()).map_err(|fault| fault.code())
    };
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = CellAddress {
        id: home.placement.cell.clone(),
        host: "127.0.0.1".to_owned(),
        port: silent.local_addr().unwrap().port(),
        password: "x".to_owned(),
    };
    let pools = Pools::new(&crate::support::module("stock"), vec![address]);
    assert_eq!(refused(&pools).await, Err("database-unavailable"));

    let pools = home.cell.guarded_pools(&stock().manifest);
    let admin = home.superuser().await;
    let lock = "begin; lock table pg_policy in access exclusive mode";
    admin.batch_execute(lock).await.unwrap();
    assert_eq!(refused(&pools).await, Err("database-unavailable"));
    admin.batch_execute("rollback").await.unwrap();
    let tx = TenantTx::lazy(&pools, &home.context(Access::Read), soon());
    assert_eq!(tx.query_and_commit("select 1", &[]).await.unwrap().len(), 1);
}

/// Statements that leave together must take effect in their order, stop at the first that fails, and
/// stay in their transaction.
#[tokio::test]
async fn statements_that_leave_together_are_one_transaction() {
    for tier in Tier::ALL {
        let home = Home::new(tier).await;
        let insert = "insert into product (id, name) values ($1, $2) returning id";
        let ids: Vec<i64> = (1..=70).collect();
        let params: Vec<[&(dyn ToSql + Sync); 2]> = ids
            .iter()
            .map(|id| -> [&(dyn ToSql + Sync); 2] { [id, &"many"] })
            .collect();
        let count = "select count(*) from product";
        let mut calls: Vec<Call<'_>> = params.iter().map(|p| (insert, &p[..])).collect();
        calls.insert(35, (count, &[]));
        let tx = TenantTx::lazy(&home.pools, &home.context(Access::Write), soon());
        let rows = tx.query_all_and_commit(&calls).await.unwrap();
        assert_eq!(rows.len(), 71, "{tier}");
        assert_eq!(rows[35][0].get::<_, i64>(0), 35, "{tier}");
        assert_eq!(rows[70][0].get::<_, i64>(0), 70, "{tier}");

        let again: [&(dyn ToSql + Sync); 2] = [&1_i64, &"twice"];
        let late: [&(dyn ToSql + Sync); 2] = [&100_i64, &"late"];
        let tx = TenantTx::lazy(&home.pools, &home.context(Access::Write), soon());
        let failed = tx
            .query_all_and_commit(&[(insert, &late), (insert, &again), (count, &[])])
            .await
            .unwrap_err();
        assert_eq!(constraint(&failed), Some("product_pkey"), "{tier}");
        assert_eq!(home.rows().await[0], 70, "{tier}: all or nothing");
        let tx = TenantTx::lazy(&home.pools, &home.context(Access::Read), soon());
        assert!(tx.query_all_and_commit(&[]).await.unwrap().is_empty());
    }
}

/// A savepoint lets a request go on after a refusal; the tenant stays entered.
#[tokio::test]
async fn a_savepoint_undoes_a_failure() {
    let home = Home::new(Tier::Schema).await;
    let mut tx = home.write().await;
    let insert = "insert into product (id, name) values ($1, $2)";
    tx.execute(insert, &[&1_i64, &"kept"]).await.unwrap();
    let point = tx.savepoint().await.unwrap();
    tx.execute(insert, &[&1_i64, &"twice"]).await.unwrap_err();
    tx.roll_back_to(&point).await.unwrap();
    tx.execute(insert, &[&2_i64, &"after"]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(home.names().await, ["kept", "after"]);
}

/// Large results arrive piece by piece, and only the tenant's own.
#[tokio::test]
async fn streams_and_copies_show_only_own_rows() {
    let one = Home::new(Tier::Shared).await;
    let two = one.neighbour().await;
    one.stock_up(1, "one").await;
    two.stock_up(1, "two").await;
    let mut tx = one.begin(Access::Read).await.unwrap();
    let mut names = Vec::new();
    let mut rows = tx.stream("select name from product", &[]).await.unwrap();
    while let Some(row) = rows.next().await.unwrap() {
        names.push(row.get::<_, String>(0));
    }
    assert_eq!(names, ["one"]);
    let mut copied = Vec::new();
    let mut copy = tx
        .copy_out("copy (select name from product) to stdout")
        .await
        .unwrap();
    while let Some(bytes) = copy.next().await.unwrap() {
        copied.extend_from_slice(&bytes);
    }
    assert_eq!(copied, b"one\n");
    tx.commit().await.unwrap();

    // Abandoned in the middle, a stream takes its connection with it.
    let mut tx = one.begin(Access::Read).await.unwrap();
    let endless = "select n from generate_series(1, 10000000) n";
    let mut rows = tx.stream(endless, &[]).await.unwrap();
    rows.next().await.unwrap();
    drop(rows);
    tx.query("select 1", &[]).await.unwrap_err();
    drop(tx);
    assert_eq!(one.names().await, ["one"]);
}
