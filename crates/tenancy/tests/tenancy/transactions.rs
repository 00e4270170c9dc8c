//! `TenantTx`: what happens when it is dropped, cancelled, or goes wrong.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use waangu_identity::proof::Access;
use waangu_kernel::Fault;
use waangu_kernel::placement::Tier;
use waangu_tenancy::{Pools, TenantTx, sql_state};

use crate::support::{Home, code, names};

const SOON: Duration = Duration::from_secs(3);

/// A handler that returns early must not leave half of its work behind.
#[tokio::test]
async fn dropped_without_commit_is_rolled_back() {
    let home = Home::new(Tier::Shared).await;
    for _ in 0..20 {
        let mut tx = home.write().await;
        tx.execute("insert into product (id, name) values (1, 'half')", &[])
            .await
            .unwrap();
        drop(tx);
    }
    assert_eq!(home.names().await, Vec::<String>::new());
    home.stock_up(1, "whole").await;
    assert_eq!(home.names().await, ["whole"]);
}

/// A client that gives up must not keep a server busy for half a minute, nor cost a connection.
#[tokio::test]
async fn a_cancelled_query_ends_on_the_server() {
    let home = Home::new(Tier::Shared).await;
    let watcher = home.superuser().await;
    let marker = format!("select pg_sleep(30) /* {} */", home.tenant);
    // More than the pool has connections.
    for _ in 0..10 {
        let mut tx = home.write().await;
        let query = timeout(Duration::from_millis(30), tx.query(&marker, &[]));
        assert!(query.await.is_err(), "it ended by itself");
    }
    let running = "select count(*) from pg_stat_activity where query = $1 and state = 'active'";
    let deadline = Instant::now() + SOON;
    loop {
        let row = watcher.query_one(running, &[&marker]).await.unwrap();
        if row.get::<_, i64>(0) == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "still running on the server");
        sleep(Duration::from_millis(20)).await;
    }
    for id in 0..10 {
        home.stock_up(id, "after").await;
    }
}

/// A request cancelled while it begins has its connection in an unknown state.
#[tokio::test]
async fn a_cancelled_begin_costs_nothing() {
    let home = Home::new(Tier::Shared).await;
    home.stock_up(1, "mine").await;
    for micros in 0..60 {
        let begin = home.begin(Access::Write);
        drop(timeout(Duration::from_micros(micros * 40), begin).await);
    }
    assert_eq!(home.names().await, ["mine"]);
}

/// PostgreSQL answers COMMIT after an error with a silent rollback: the client would be told that
/// its order is booked.
#[tokio::test]
async fn commit_after_a_failure_is_an_error() {
    let home = Home::new(Tier::Shared).await;
    let mut tx = home.write().await;
    tx.execute("insert into product (id, name) values (1, 'lost')", &[])
        .await
        .unwrap();
    let fault = tx.query("select 1 / 0", &[]).await.unwrap_err();
    assert_eq!(sql_state(&fault), Some("22012"));
    assert_eq!(code(tx.query("select 1", &[]).await), "internal");
    assert_eq!(code(tx.commit().await), "internal");
    assert_eq!(home.names().await, Vec::<String>::new());
}

/// The same for a statement that was abandoned by a time-out and failed afterwards.
#[tokio::test]
async fn commit_after_an_abandoned_statement_is_an_error() {
    let home = Home::new(Tier::Shared).await;
    let mut tx = home.write().await;
    tx.execute("insert into product (id, name) values (1, 'lost')", &[])
        .await
        .unwrap();
    let query = tx.query("select 1 / (pg_sleep(0.1)::text = 'x')::integer", &[]);
    assert!(timeout(Duration::from_millis(10), query).await.is_err());
    sleep(Duration::from_millis(200)).await;
    assert_eq!(code(tx.commit().await), "internal");
    assert_eq!(home.names().await, Vec::<String>::new());
}

/// After a module's upgrade, pooled connections would fail the same request again and again.
#[tokio::test]
async fn a_changed_table_spoils_a_connection_once() {
    let home = Home::new(Tier::Dedicated).await;
    home.stock_up(1, "mine").await;
    let read = async || -> Result<usize, Fault> {
        let mut tx = home.begin(Access::Read).await?;
        Ok(tx.query("select * from product", &[]).await?.len())
    };
    for _ in 0..3 {
        assert_eq!(read().await.unwrap(), 1);
    }
    let owner = home.superuser().await;
    let sql = "alter table stock.product add label text";
    owner.batch_execute(sql).await.unwrap();
    let mut failed = 0;
    for _ in 0..12 {
        match read().await {
            Ok(rows) => assert_eq!(rows, 1),
            Err(_) => failed += 1,
        }
    }
    // At most one for each connection that had the old form, of the four transactions before.
    assert!(failed <= 4, "{failed} failures");
    assert_eq!(read().await.unwrap(), 1);
}

/// The whole life of a pool: two tenants, errors and cancelled requests mixed. Never a wrong row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_mixed_requests_never_mix_rows() {
    for tier in [Tier::Shared, Tier::Schema] {
        let one = Home::new(tier).await;
        let two = one.neighbour().await;
        let mut requests = JoinSet::new();
        for number in 0..200_i64 {
            let home = if number % 2 == 0 { &one } else { &two };
            let name = home.tenant.to_string();
            let (pools, context) = (one.pools.clone(), home.context(Access::Write));
            requests.spawn(async move {
                let booked = request(&pools, &context, number, &name).await;
                (name, booked)
            });
        }
        let mut booked = [0, 0];
        while let Some(done) = requests.join_next().await {
            let (name, done) = done.unwrap();
            let index = usize::from(name == two.tenant.to_string());
            booked[index] += i64::from(done.unwrap());
        }
        assert_eq!(booked, [40, 40], "{tier}");
        for (home, count) in [(&one, booked[0]), (&two, booked[1])] {
            assert_eq!(home.rows().await[0], count, "{tier}");
            let own = home.tenant.to_string();
            assert!(home.names().await.iter().all(|name| *name == own), "{tier}");
        }
    }
}

/// One request of the mix; says whether it booked a product.
async fn request(
    pools: &Pools,
    context: &waangu_identity::RequestContext,
    number: i64,
    name: &str,
) -> Result<bool, Fault> {
    let mut tx = TenantTx::begin(pools, context).await?;
    let insert = "insert into product (id, name) values ($1, $2)";
    // Even and odd numbers are different tenants: the kind must not follow the parity.
    match (number / 2) % 5 {
        0 => {
            tx.execute(insert, &[&number, &name]).await?;
            drop(tx);
            Ok(false)
        }
        1 => {
            tx.execute(insert, &[&number, &name]).await?;
            tx.query("select 1 / 0", &[]).await.expect_err("a failure");
            Ok(false)
        }
        2 => {
            let sleep = tx.query("select pg_sleep(20)", &[]);
            let cancelled = timeout(Duration::from_millis(3), sleep).await;
            assert!(cancelled.is_err(), "it slept");
            Ok(false)
        }
        _ => {
            tx.execute(insert, &[&number, &name]).await?;
            let seen = names(&mut tx).await?;
            assert!(seen.iter().all(|seen| seen == name), "{name} saw {seen:?}");
            tx.commit().await?;
            Ok(true)
        }
    }
}

/// A report that PostgreSQL splits over several processes must not fail there, nor show more: each of
/// them takes over the seal, which the module's login could not set.
#[tokio::test]
async fn workers_of_a_parallel_query_see_one_tenant() {
    let one = Home::new(Tier::Schema).await;
    let two = one.neighbour().await;
    let fill = "insert into product (id, name) select n, 'many' from generate_series(1, 2000) n";
    for home in [&one, &two] {
        let mut tx = home.write().await;
        tx.execute(fill, &[]).await.unwrap();
        tx.commit().await.unwrap();
    }
    let mut tx = one.begin(Access::Read).await.unwrap();
    for setting in [
        "parallel_setup_cost = 0",
        "parallel_tuple_cost = 0",
        "min_parallel_table_scan_size = 0",
        "enable_indexscan = off",
        "enable_indexonlyscan = off",
        "enable_bitmapscan = off",
    ] {
        let set = format!("set local {setting}");
        tx.execute(&set, &[]).await.unwrap();
    }
    let count = "select count(*) from product where name <> 'none'";
    let plan = format!("explain (analyze) {count}");
    let plan = tx.query(&plan, &[]).await.unwrap();
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    assert!(
        plan.iter().any(|line| line.contains("Workers Planned")),
        "{plan:#?}"
    );
    let rows = tx.query(count, &[]).await.unwrap();
    assert_eq!(rows[0].get::<_, i64>(0), 2000);
}

/// A request is sent again to where its tenant has gone if nothing of it has happened. If a handler has
/// given up waiting for a write, or waits for it beside another, that would do the write twice.
#[tokio::test]
async fn a_write_that_nobody_has_heard_of_keeps_a_request_from_being_sent_again() {
    let home = Home::new(Tier::Shared).await;
    let context = home.context(Access::Write);
    let begun = Arc::new(AtomicU32::new(0));
    let tx = |begun: &Arc<AtomicU32>| {
        let deadline = Instant::now() + SOON;
        TenantTx::lazy(&home.pools, &context, deadline).of_request(begun)
    };
    // The connection is there, so that what is given up is the write.
    home.stock_up(2, "before").await;
    let sql = "insert into product (id, name) select 1, 'once' from pg_sleep(2)";
    let given_up = timeout(
        Duration::from_millis(700),
        tx(&begun).execute_and_commit(sql, &[]),
    );
    given_up.await.unwrap_err();
    let mover = home.superuser().await;
    let fence = "update waangu.home set state = 'moved', epoch = epoch + 1 where tenant_id = $1";
    mover
        .execute(fence, &[&home.tenant.number()])
        .await
        .unwrap();
    let mut after = tx(&begun);
    // It waits for as long as it may.
    assert_ne!(code(after.query("select 1", &[]).await), "tenant-moved");
    // Another request, of which nothing has happened, also after it was refused.
    let fresh = Arc::default();
    for _time in 0..2 {
        let mut one = tx(&fresh);
        assert_eq!(code(one.query("select 1", &[]).await), "tenant-moved");
    }
}
