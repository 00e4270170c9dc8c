//! Moves under writers, and what happens without their protections.

use std::time::Duration;

use waangu_relocation::{Relocation, Safety, Step, debris};
use waangu_testkit::{Access, Tier, cell, connect, context, private_cell};

use crate::support::{Spot, TABLES, Traveller, run, stock};
use crate::writers::{Writers, found};

/// Acknowledged writes would be lost or doubled on one of the ways between tiers and cells.
#[tokio::test(flavor = "multi_thread")]
async fn every_pair_of_tiers_keeps_every_acknowledged_write() {
    let (a, b) = (cell().await, private_cell().await);
    let mut tenant = Traveller::settle(Spot(&a, Tier::Shared), TABLES).await;
    let writers = Writers::start(&tenant, 8);
    tokio::time::sleep(Duration::from_millis(300)).await;
    // All nine pairs, one after the other.
    let way = [
        Spot(&a, Tier::Schema),
        Spot(&a, Tier::Shared),
        Spot(&a, Tier::Dedicated),
        Spot(&a, Tier::Schema),
        Spot(&b, Tier::Schema),
        Spot(&b, Tier::Dedicated),
        Spot(&a, Tier::Dedicated),
        Spot(&a, Tier::Shared),
        Spot(&b, Tier::Shared),
    ];
    for to in way {
        let relocation = run(tenant.request(to)).await.expect("a move");
        tenant.placement = tenant.placement_at(to.1);
        tenant.cell = to.0;
        writers.follow(&tenant);
        tokio::time::sleep(Duration::from_millis(100)).await;
        relocation
            .empty_source(100, Duration::ZERO)
            .await
            .expect("the old place is emptied");
    }
    let (ledger, worst) = writers.end().await;
    let here = found(&tenant).await;
    assert!(ledger.len() > 50, "writers worked: {}", ledger.len());
    assert_eq!(
        here, ledger,
        "every acknowledged write once, and nothing else"
    );
    assert_eq!(
        tenant.rows("movement").await.len(),
        here.len(),
        "cascades and keys"
    );
    assert!(worst < Duration::from_secs(8), "a write took {worst:?}");
    let mine = format!("waangu_move_{}_", tenant.tenant.number());
    for cell in [&a, &b] {
        let left = debris(&cell.admin_config()).await.expect("look for debris");
        assert!(!format!("{left:?}").contains(&mine), "{left:?}");
    }
}

/// Of a row that changes often only its last state is applied; if that were another row's, or came too early,
/// the tenant would arrive with rows that it never had.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_change_again_and_again_arrive_as_they_are() {
    const HOT: &str = "create table hot (
        tenant_id bigint not null, id bigint not null, name text, many text, primary key (tenant_id, id))";
    let a = private_cell().await;
    let mut tenant = Traveller::settle(Spot(&a, Tier::Dedicated), HOT).await;
    let to = Spot(&a, Tier::Schema);
    let mut relocation = Relocation::begin(tenant.request(to)).await.expect("begin");
    relocation.apply(&Step::Copy).await.expect("copy");
    let schema = tenant.placement.schema(tenant.tenant, &stock());
    let number = tenant.tenant.number();
    let changes = format!(
        "do $$ declare n bigint; begin
         for i in 1 .. 4000 loop
             n := floor(random() * 8);
             case floor(random() * 8)::int
             when 0 then delete from {schema}.hot where tenant_id = {number} and id = n;
             when 1 then
                 update {schema}.hot set id = 8 + i where tenant_id = {number} and id = n;
                 update {schema}.hot set id = n where tenant_id = {number} and id = 8 + i - (i % 3);
             when 2 then
                 update {schema}.hot set many = repeat(md5(i::text), 400) where tenant_id = {number} and id = n;
             when 3 then
                 update {schema}.hot set many = null, name = 'n' where tenant_id = {number} and id = n;
             else
                 insert into {schema}.hot values ({number}, n, i)
                 on conflict (tenant_id, id) do update set name = excluded.name;
             end case;
             if i % 50 = 0 then commit; end if;
         end loop; end $$"
    );
    let superuser = tenant.superuser().await;
    let seeded = superuser.batch_execute("select setseed(0.36)").await;
    seeded.expect("a seed");
    superuser.batch_execute(&changes).await.expect("changes");
    let before = tenant.rows("hot").await;
    assert!(before.len() > 100, "{}", before.len());
    relocation
        .apply(&Step::CutOver)
        .await
        .expect("both ends are equal");
    relocation.apply(&Step::Open).await.expect("open");
    relocation.apply(&Step::Finish).await.expect("clean up");
    tenant.placement = tenant.placement_at(to.1);
    assert_eq!(tenant.rows("hot").await, before);
}

/// The test above would prove nothing if it did not see lost writes.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_lock_a_write_is_lost() {
    let a = cell().await;
    let mut tenant = Traveller::settle(Spot(&a, Tier::Shared), TABLES).await;
    tenant.options.safety = Safety::WithoutLock;
    let to = Spot(&a, Tier::Dedicated);
    let mut relocation = Relocation::begin(tenant.request(to)).await.expect("begin");
    relocation.apply(&Step::Copy).await.expect("copy");
    // A transaction that is open while the move ends. With the lock, the move waits for it or backs
    // off (`a_long_transaction_makes_the_move_back_off`).
    let dsn = a.module_dsn(&stock(), &tenant.placement.database(tenant.tenant));
    let client = connect(&dsn).await.expect("connect");
    let proof = context(
        tenant.tenant,
        &tenant.placement,
        &stock(),
        Access::Write,
        &a.key,
    )
    .proof;
    let write = format!(
        "begin; select waangu.enter('{}', {}, '{}'); insert into stock.product (id, name) values (1, 'x')",
        proof.claims, proof.kid, proof.mac
    );
    client.batch_execute(&write).await.expect("write");
    relocation.apply(&Step::CutOver).await.expect("cut over");
    client.batch_execute("commit").await.expect("acknowledged");
    relocation.apply(&Step::Open).await.expect("open");
    relocation.apply(&Step::Finish).await.expect("clean up");
    tenant.placement = tenant.placement_at(to.1);
    assert!(
        tenant.rows("product").await.is_empty(),
        "the write would be there"
    );
}

/// As above, with routers that learn late.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_fence_writes_are_lost() {
    let a = cell().await;
    let mut tenant = Traveller::settle(Spot(&a, Tier::Shared), TABLES).await;
    tenant.options.safety = Safety::WithoutFence;
    let writers = Writers::start(&tenant, 8);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let to = Spot(&a, Tier::Dedicated);
    let mut relocation = Relocation::begin(tenant.request(to)).await.expect("begin");
    for step in [Step::Copy, Step::CutOver, Step::Open] {
        relocation.apply(&step).await.expect("a step");
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    tenant.placement = tenant.placement_at(to.1);
    writers.follow(&tenant);
    let (ledger, _) = writers.end().await;
    relocation.apply(&Step::Finish).await.expect("clean up");
    assert_ne!(found(&tenant).await, ledger);
}
