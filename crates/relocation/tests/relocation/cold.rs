//! Old rows that must not be trusted: a move back copies then, and nothing of the way back is left.

use std::time::Duration;

use tokio_postgres::Client;
use waangu_relocation::{Error, Step, close_way_back, debris, ways_back};
use waangu_testkit::{Cell, Tier, private_cell};

use crate::support::travel::{COPIED, arrive, fill, rows, settle, travel, write};
use crate::support::{Spot, Traveller, at, begin, run};

/// Somebody who relied on rows that nobody can bring up to date would serve old ones.
#[tokio::test(flavor = "multi_thread")]
async fn without_its_slot_a_move_back_copies() {
    let (a, b) = (private_cell().await, private_cell().await);
    let (home, away) = (Spot(&a, Tier::Schema), Spot(&b, Tier::Dedicated));
    let mut tenant = settle(home).await;
    fill(&tenant, 1, 50).await;
    travel(&mut tenant, away).await;
    let ways = ways_back(&b.admin_config()).await.expect("look");
    assert_eq!(ways.len(), 1, "{ways:?}");
    assert!(
        !ways[0].lost && !ways[0].read && ways[0].held >= 0,
        "{ways:?}"
    );
    close_way_back(&b.admin_config(), &ways[0])
        .await
        .expect("close");
    let left = debris(&b.admin_config()).await.expect("look");
    assert!(left.is_empty(), "{left:?}");
    write(
        &tenant,
        "delete from product where tenant_id = $1 and id = 3",
    )
    .await;
    let before = rows(&tenant).await;
    assert_eq!(travel(&mut tenant, home).await, COPIED);
    assert_eq!(rows(&tenant).await, before);
    // Nor with a slot that was begun only when writers were there already.
    let mut late = tenant.request(away);
    late.options.way_back = false;
    let mut relocation = begin(|| late.clone()).await;
    for step in [Step::Copy, Step::CutOver, Step::Open] {
        relocation.apply(&step).await.expect("a step");
    }
    drop(relocation);
    arrive(&mut tenant, away);
    let there = tenant.superuser().await;
    let sql = "select attempt from waangu_relocation.progress";
    let attempt: String = there.query_one(sql, &[]).await.expect("a note").get(0);
    let name = format!(
        "waangu_move_{}_w{}_{attempt}",
        tenant.tenant.number(),
        tenant.placement.epoch
    );
    let script = format!(
        "create publication {name} for table stock.product, stock.movement, stock.nothing;
         select pg_create_logical_replication_slot('{name}', 'pgoutput')"
    );
    write(
        &tenant,
        "delete from product where tenant_id = $1 and id = 5",
    )
    .await;
    for statement in script.split(';') {
        there.batch_execute(statement).await.expect("a late slot");
    }
    drop(there);
    late.options.way_back = true;
    run_when_free(late).await;
    assert!(ways_back(&b.admin_config()).await.expect("look").is_empty());
    let before = rows(&tenant).await;
    assert_eq!(travel(&mut tenant, home).await, COPIED);
    assert_eq!(rows(&tenant).await, before);
}

async fn run_when_free(request: waangu_relocation::Request) {
    drop(begin(|| request.clone()).await);
    for _try in 0..100 {
        match run(request.clone()).await {
            Err(Error::Busy) => tokio::time::sleep(Duration::from_millis(50)).await,
            done => return drop(done.expect("a move")),
        }
    }
    unreachable!("somebody is always at it");
}

/// Rows of an older version of the tables would be taken for those of a newer one.
#[tokio::test(flavor = "multi_thread")]
async fn after_an_upgrade_a_move_back_copies() {
    let (a, b) = (private_cell().await, private_cell().await);
    let (home, away) = (Spot(&a, Tier::Schema), Spot(&b, Tier::Schema));
    let mut tenant = settle(home).await;
    fill(&tenant, 1, 50).await;
    travel(&mut tenant, away).await;
    let mut newer = tenant.package.clone();
    newer.migrations.push(waangu_tenancy::admin::Migration {
        name: "kind".to_owned(),
        sql: "alter table product add column kind text default 'plain'; update product set kind = 'old'".to_owned(),
    });
    tenant.package = newer;
    let upgraded = b
        .admin
        .ensure_module(tenant.tenant, &tenant.placement, &tenant.package)
        .await;
    upgraded.expect("upgrade");
    fill(&tenant, 100, 120).await;
    let before = rows(&tenant).await;
    assert_eq!(travel(&mut tenant, home).await, COPIED);
    assert_eq!(rows(&tenant).await, before);
}

/// The position at which the new place was opened is all that tells the tenant's writes from those of the
/// move itself: were it wrong, the comparison must find out, and the rows be copied.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_wrong_position_nothing_is_served() {
    let (a, b) = (private_cell().await, private_cell().await);
    let (home, away) = (Spot(&a, Tier::Shared), Spot(&b, Tier::Dedicated));
    for wrong in [
        // What the move applied is taken for the tenant's.
        "(select confirmed_flush_lsn from slots)",
        // What the tenant wrote is taken for the move's.
        "pg_lsn '7fffffff/0'",
    ] {
        let mut tenant = settle(home).await;
        tenant.options.attempts = 1;
        tenant.options.max_pause = Duration::from_millis(500);
        fill(&tenant, 1, 50).await;
        let mut relocation = begin(|| tenant.request(away)).await;
        relocation.apply(&Step::Copy).await.expect("copy");
        let holder = tenant.superuser().await;
        let hold = format!(
            "begin; select pg_advisory_xact_lock_shared({})",
            tenant.tenant.number()
        );
        holder.batch_execute(&hold).await.expect("hold the tenant");
        tokio::time::sleep(Duration::from_millis(200)).await;
        let late = relocation.apply(&Step::CutOver).await;
        assert!(matches!(late, Err(Error::Pause(_))), "{late:?}");
        drop(holder);
        // By now the slot stands, and the move applies these at the new place.
        fill(&tenant, 100, 150).await;
        relocation.apply(&Step::CutOver).await.expect("cut over");
        for step in [Step::Open, Step::Finish] {
            relocation.apply(&step).await.expect("a step");
        }
        assert!(relocation.way_back().await.expect("look").is_some());
        drop(relocation);
        arrive(&mut tenant, away);
        fill(&tenant, 200, 250).await;
        let before = rows(&tenant).await;
        spoil(&a, &tenant, wrong).await;
        let mut relocation = begin(|| tenant.request(home)).await;
        assert_eq!(relocation.next().await.expect("a step"), Step::Adopt);
        relocation.apply(&Step::Adopt).await.expect("adopt");
        let cold = relocation.apply(&Step::CutOver).await;
        assert!(matches!(cold, Err(Error::Cold(_))), "{cold:?}");
        assert_eq!(relocation.next().await.expect("a step"), Step::Copy);
        drop(relocation);
        assert_eq!(travel(&mut tenant, home).await, COPIED);
        assert_eq!(rows(&tenant).await, before);
    }
}

/// Writes another position into the note at the old place, which is shared.
async fn spoil(old: &Cell, tenant: &Traveller<'_>, wrong: &str) {
    let server = tenant.superuser().await;
    let sql = format!(
        "with slots as (select confirmed_flush_lsn from pg_replication_slots
                         where slot_name ~ '^waangu_move_{}_w')
         select ({wrong})::text",
        tenant.tenant.number()
    );
    let lsn: String = server
        .query_one(&sql, &[])
        .await
        .expect("a position")
        .get(0);
    let place = waangu_testkit::connect(&old.superuser_dsn("waangu")).await;
    let sql = format!(
        "update waangu_relocation.kept set lsn = '{lsn}' where tenant_id = {}",
        tenant.tenant.number()
    );
    let place = place.expect("connect");
    assert_eq!(place.execute(&sql, &[]).await.expect("spoil"), 1);
}

/// A move back that is given up would leave rows that nobody vouches for, a slot that fills the disk, or
/// the tenant without its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_back_that_is_given_up_leaves_nothing() {
    let (a, b) = (private_cell().await, private_cell().await);
    for tier in [Tier::Shared, Tier::Dedicated] {
        let (home, away) = (Spot(&a, tier), Spot(&b, Tier::Schema));
        let mut tenant = settle(home).await;
        fill(&tenant, 1, 50).await;
        travel(&mut tenant, away).await;
        fill(&tenant, 100, 120).await;
        let before = rows(&tenant).await;
        let mut relocation = begin(|| tenant.request(home)).await;
        relocation.apply(&Step::Adopt).await.expect("adopt");
        let by_hand = tier == Tier::Shared;
        if by_hand {
            relocation.abort().await.expect("abort");
            drop(relocation);
        } else {
            drop(relocation);
            while let Err(Error::Busy) = waangu_relocation::undo(&tenant.request(home)).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        for cell in [&a, &b] {
            // The tenant of the round before has a way back.
            let left = debris(&cell.admin_config()).await.expect("look");
            let mine = format!("waangu_move_{}_", tenant.tenant.number());
            assert!(!format!("{left:?}").contains(&mine), "{left:?}");
        }
        assert_eq!(rows(&tenant).await, before);
        assert_eq!(travel(&mut tenant, home).await, COPIED);
        assert_eq!(rows(&tenant).await, before);
    }
}

/// Moves need slots, too: tenants that could go back at once must not keep others from going anywhere.
#[tokio::test(flavor = "multi_thread")]
async fn ways_back_leave_half_of_the_slots_to_moves() {
    let (a, b) = (private_cell().await, private_cell().await);
    let server = waangu_testkit::connect(&b.superuser_dsn("postgres"))
        .await
        .expect("connect");
    let most = count(
        &server,
        "select current_setting('max_replication_slots')::bigint",
    )
    .await;
    let sql = format!(
        "select count(pg_create_physical_replication_slot('other_' || n)) from generate_series(1, {}) n",
        (most + 1) / 2
    );
    count(&server, &sql).await;
    let (home, away) = (Spot(&a, Tier::Shared), Spot(&b, Tier::Shared));
    let mut tenant = settle(home).await;
    fill(&tenant, 1, 10).await;
    assert_eq!(travel(&mut tenant, away).await, COPIED);
    assert!(ways_back(&b.admin_config()).await.expect("look").is_empty());
    let place = at(&a, tenant.tenant, &tenant.placement).await;
    assert_eq!(
        count(&place, "select count(*) from waangu_relocation.kept").await,
        0
    );
    assert_eq!(travel(&mut tenant, home).await, COPIED);
}

async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.expect("count").get(0)
}

/// A slot of a place that its tenant has left for good would fill the disk there, and rows from before would be
/// taken for those of the last departure.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_to_a_third_place_ends_the_way_back() {
    let (a, b) = (private_cell().await, private_cell().await);
    let (home, away) = (Spot(&a, Tier::Shared), Spot(&b, Tier::Shared));
    let mut tenant = settle(home).await;
    fill(&tenant, 1, 20).await;
    travel(&mut tenant, away).await;
    assert_eq!(travel(&mut tenant, Spot(&a, Tier::Schema)).await, COPIED);
    let left = debris(&b.admin_config()).await.expect("look");
    assert!(left.is_empty(), "{left:?}");
    let ways = ways_back(&a.admin_config()).await.expect("look");
    assert_eq!(ways.len(), 1, "the one of the last move: {ways:?}");
    fill(&tenant, 100, 110).await;
    let before = rows(&tenant).await;
    assert_eq!(travel(&mut tenant, home).await, COPIED);
    assert_eq!(rows(&tenant).await, before);
}
