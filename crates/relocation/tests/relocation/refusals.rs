//! What can't be moved, or not now.

use std::time::Duration;

use waangu_relocation::{Error, Relocation};
use waangu_testkit::{Tier, private_cell};

use crate::support::{Spot, TABLES, Traveller, at, begin, run, stock};

/// Changes of such tables can't be followed: they would be lost, or stop everybody's updates.
#[tokio::test(flavor = "multi_thread")]
async fn tables_whose_changes_cannot_be_followed_are_refused() {
    let a = private_cell().await;
    for (table, why) in [
        (
            "create table x (tenant_id bigint not null, id bigint)",
            "no primary key",
        ),
        (
            "create unlogged table x (tenant_id bigint not null, id bigint, primary key (tenant_id, id))",
            "unlogged",
        ),
        (
            "create table x (tenant_id bigint not null, id bigint, primary key (tenant_id, id)) partition by hash (tenant_id)",
            "partitioned",
        ),
    ] {
        let tenant = Traveller::settle(Spot(&a, Tier::Schema), table).await;
        let begun = Relocation::begin(tenant.request(Spot(&a, Tier::Dedicated))).await;
        let text = begun.expect_err("refused").to_string();
        assert!(text.contains(why), "{text}");
    }
}

/// A tenant would be frozen for as long as one of its own transactions lasts.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_transaction_makes_the_move_back_off() {
    let a = private_cell().await;
    let mut tenant = Traveller::settle(Spot(&a, Tier::Shared), TABLES).await;
    tenant.options.max_pause = Duration::from_millis(300);
    tenant.options.attempts = 2;
    let holder = tenant.superuser().await;
    let hold = format!(
        "begin; select pg_advisory_xact_lock_shared({})",
        tenant.tenant.number()
    );
    holder.batch_execute(&hold).await.expect("hold the tenant");
    let moved = run(tenant.request(Spot(&a, Tier::Schema))).await;
    assert!(matches!(moved, Err(Error::Pause(300))), "{moved:?}");
    let sql = format!(
        "select pg_try_advisory_xact_lock_shared({})",
        tenant.tenant.number()
    );
    let row = tenant
        .superuser()
        .await
        .query_one(&sql, &[])
        .await
        .expect("ask");
    assert!(row.get::<_, bool>(0), "others may write again");
    holder.batch_execute("commit").await.expect("let go");
    // The first worker's session may need a moment to end.
    for _wait in 0..100 {
        let later = run(tenant.request(Spot(&a, Tier::Schema))).await;
        if !matches!(later, Err(Error::Busy)) {
            later.expect("a later worker finishes");
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unreachable!("the first worker's claim never ended");
}

/// Damage done to the copy on its way would be served.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_copy_is_found_before_the_fence() {
    let a = private_cell().await;
    let tenant = Traveller::settle(Spot(&a, Tier::Shared), TABLES).await;
    let schema = stock();
    let sql = format!(
        "insert into {schema}.product (tenant_id, id, name) select {}, g, 'x' from generate_series(1, 50) g",
        tenant.tenant.number()
    );
    tenant
        .superuser()
        .await
        .batch_execute(&sql)
        .await
        .expect("rows");
    let to = Spot(&a, Tier::Dedicated);
    let mut relocation = Relocation::begin(tenant.request(to)).await.expect("begin");
    let step = relocation.next().await.expect("a step");
    relocation.apply(&step).await.expect("copy");
    let target = at(&a, tenant.tenant, &tenant.placement_at(to.1)).await;
    let damage = "update stock.product set name = 'y' where id = 7";
    target.batch_execute(damage).await.expect("damage");
    let step = relocation.next().await.expect("a step");
    let text = relocation
        .apply(&step)
        .await
        .expect_err("found")
        .to_string();
    assert!(text.contains("product") && text.contains("\"7\""), "{text}");
    assert_eq!(relocation.next().await.expect("a step"), step, "not fenced");
    relocation.abort().await.expect("abort");
}

/// Whoever empties a place that a tenant has left may have lost its claim without noticing: a tenant that
/// comes back meanwhile would lose the rows it has just brought.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_being_emptied_is_not_moved_into_nor_the_other_way_round() {
    let a = private_cell().await;
    let tenant = Traveller::settle(Spot(&a, Tier::Schema), TABLES).await;
    let request = || tenant.request(Spot(&a, Tier::Shared));
    let there = tenant.placement_at(Tier::Shared);
    let cleaner = at(&a, tenant.tenant, &there).await;
    let sql = "select pg_advisory_lock(-5, hashint8($1))";
    let number = tenant.tenant.number();
    cleaner.execute(sql, &[&number]).await.expect("keep it");
    let begun = Relocation::begin(request()).await;
    assert!(matches!(begun, Err(Error::Busy)), "{begun:?}");
    drop(cleaner);
    let mut begun = begin(request).await;
    let empty = || {
        let rest = Duration::from_millis(1);
        a.admin.empty_place(tenant.tenant, &there, &[], (1, rest))
    };
    empty().await.expect_err("a move is at work there");
    begun.abort().await.expect("undone");
    drop(begun);
    run(request()).await.expect("moved");
}

/// Rows that a comparison has kept are the tenant's: whoever deletes it is told that all its data is gone.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_kept_as_evidence_goes_with_its_tenant() {
    let a = private_cell().await;
    for tier in [Tier::Shared, Tier::Schema] {
        let tenant = Traveller::settle(Spot(&a, tier), TABLES).await;
        let to = Spot(&a, Tier::Dedicated);
        let mut begun = Relocation::begin(tenant.request(to)).await.expect("begin");
        begun.abort().await.expect("undone");
        let place = tenant.superuser().await;
        let sql = "insert into waangu_relocation.evidence (tenant_id, attempt, table_name, key)
                   values ($1, 'a', 'product', '{1}')";
        let number = tenant.tenant.number();
        place.execute(sql, &[&number]).await.expect("evidence");
        let removed = a
            .admin
            .remove_tenant(tenant.tenant, &tenant.placement)
            .await;
        removed.expect("removed");
        let sql = "select count(*) from waangu_relocation.evidence where tenant_id = $1";
        let row = place.query_one(sql, &[&number]).await.expect("look");
        assert_eq!(row.get::<_, i64>(0), 0, "{tier}");
    }
}
