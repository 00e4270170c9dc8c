//! Provisioning: steps may be repeated, raced and undone, and tell the truth.

use tokio::task::JoinSet;
use waangu_kernel::placement::Tier;
use waangu_tenancy::HomeState;
use waangu_tenancy::admin::Observed;

use crate::support::{Home, module, package, stock};

/// A control plane that was killed half-way repeats its steps; a second run must neither fail nor
/// change a tenant that works.
#[tokio::test]
async fn steps_can_be_repeated_in_each_tier() {
    for tier in Tier::ALL {
        let home = Home::new(tier).await;
        home.stock_up(1, "first").await;
        home.provision().await.unwrap();
        home.provision().await.unwrap();
        assert_eq!(home.names().await, ["first"], "{tier}");
    }
}

/// A server that is killed in the middle of DROP DATABASE leaves one that nobody can connect to: its tenant
/// would be on its way out for ever, and nobody could look at the cell any more.
#[tokio::test]
async fn a_removal_that_a_crash_interrupted_is_ended() {
    let (home, other) = (
        Home::new(Tier::Dedicated).await,
        Home::new(Tier::Dedicated).await,
    );
    let admin = &home.cell.admin;
    let server = waangu_testkit::connect(&home.cell.superuser_dsn("postgres"))
        .await
        .unwrap();
    let there = async |home: &Home| {
        let sql = "select count(*) from pg_database where datname = $1";
        let row = server.query_one(sql, &[&home.database()]).await.unwrap();
        row.get::<_, i64>(0)
    };
    for home in [&home, &other] {
        let sql = "update pg_database set datconnlimit = -2 where datname = $1";
        server.execute(sql, &[&home.database()]).await.unwrap();
    }
    let seen = admin
        .observe(home.tenant, &home.placement, &[module("stock")])
        .await
        .unwrap();
    assert_eq!(seen, Observed::default());
    assert_eq!((there(&home).await, there(&other).await), (0, 1));
    assert!(admin.finish_drops().await.unwrap() >= 1);
    assert_eq!(there(&other).await, 0);
    home.provision().await.unwrap();
    home.stock_up(1, "made anew").await;
}

/// The reconciler plans from what it observes: a wrong answer would leave a tenant without tables,
/// or change one for ever.
#[tokio::test]
async fn observation_tells_the_truth_in_each_tier() {
    for tier in Tier::ALL {
        let mut home = Home::bare(tier).await;
        let modules = [module("stock"), module("nothing")];
        let look = async |home: &Home| {
            home.cell
                .admin
                .observe(home.tenant, &home.placement, &modules)
                .await
                .unwrap()
        };
        let nothing = look(&home).await;
        assert_eq!(nothing.database, tier == Tier::Shared, "{tier}");
        assert_eq!(nothing.home, None);

        home.provision().await.unwrap();
        let whole = look(&home).await;
        // Another test may have brought the shared tables further.
        let steps = match tier {
            Tier::Shared => whole.modules[0].1.max(1),
            Tier::Schema | Tier::Dedicated => 1,
        };
        let expected = Observed {
            database: true,
            modules: vec![(module("stock"), steps), (module("nothing"), 0)],
            home: Some((HomeState::Active, 1)),
            lineage: whole.lineage.clone(),
        };
        assert_eq!(whole, expected, "{tier}");

        let admin = &home.cell.admin;
        admin
            .put_home(home.tenant, &home.placement, HomeState::Suspended)
            .await
            .unwrap();
        assert_eq!(look(&home).await.home, Some((HomeState::Suspended, 1)));
        home.placement.epoch = 2;
        home.provision().await.unwrap();
        // A control process that is behind must not open the door of an old epoch.
        home.placement.epoch = 1;
        home.provision().await.unwrap();
        assert_eq!(look(&home).await.home, Some((HomeState::Active, 2)));
    }
}

/// Deleting one client must not cost another client a row, nor keep one of its own (GDPR art. 17).
#[tokio::test]
async fn removal_takes_exactly_one_tenant_in_each_tier() {
    for tier in Tier::ALL {
        let leaving = Home::new(tier).await;
        let staying = leaving.neighbour().await;
        leaving.stock_up(1, "goes").await;
        staying.stock_up(1, "stays").await;
        let admin = &leaving.cell.admin;
        for _ in 0..2 {
            admin
                .remove_tenant(leaving.tenant, &leaving.placement)
                .await
                .unwrap();
        }
        assert_eq!(staying.names().await, ["stays"], "{tier}");
        assert_eq!(staying.rows().await, [1, 1], "{tier}");
        let left = admin
            .observe(leaving.tenant, &leaving.placement, &[module("stock")])
            .await
            .unwrap();
        assert_eq!(left.home, None, "{tier}");
        if tier == Tier::Shared {
            assert_eq!(leaving.rows().await, [0, 0]);
        } else {
            assert!(left.modules.iter().all(|(_, count)| *count == 0), "{tier}");
        }
        // The number can be given a place again, and it is empty.
        leaving.provision().await.unwrap();
        assert_eq!(leaving.names().await, Vec::<String>::new(), "{tier}");
    }
}

/// A request that is still writing when its tenant is removed would leave rows behind for ever.
#[tokio::test]
async fn removal_waits_for_a_writer_and_lets_no_other_in() {
    let home = Home::new(Tier::Shared).await;
    let mut tx = home.write().await;
    tx.execute("insert into product (id, name) values (1, 'late')", &[])
        .await
        .unwrap();
    let admin = home.cell.another_admin();
    let (tenant, placement) = (home.tenant, home.placement.clone());
    let mut removal = JoinSet::new();
    removal.spawn(async move { admin.remove_tenant(tenant, &placement).await });
    let refused = async {
        while home
            .begin(waangu_identity::proof::Access::Write)
            .await
            .is_ok()
        {}
    };
    // A writer waits five seconds for a tenant that may only be moving; a removal waits ten for it.
    tokio::time::timeout(std::time::Duration::from_secs(8), refused)
        .await
        .expect("the door closes");
    assert!(removal.try_join_next().is_none(), "it did not wait");
    tx.commit().await.unwrap();
    removal.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(home.rows().await, [0, 0]);
}

/// Two workers that onboard tenants at once must not fail each other, nor apply a migration twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_workers_make_the_same_thing_once() {
    for tier in Tier::ALL {
        let home = Home::bare(tier).await;
        let mut workers = JoinSet::new();
        for _ in 0..8 {
            let admin = home.cell.another_admin();
            let (tenant, placement) = (home.tenant, home.placement.clone());
            workers.spawn(async move {
                admin.ensure_place(tenant, &placement).await?;
                admin.ensure_module(tenant, &placement, &stock()).await?;
                let crm = package("crm", &[], &["select 1"; 3]);
                admin.ensure_module(tenant, &placement, &crm).await?;
                admin.put_home(tenant, &placement, HomeState::Active).await
            });
        }
        while let Some(worker) = workers.join_next().await {
            worker
                .unwrap()
                .unwrap_or_else(|fault| panic!("{tier}: {fault:?}"));
        }
        home.stock_up(1, "made once").await;
        assert_eq!(home.names().await, ["made once"], "{tier}");
    }
}

/// A control plane killed just after CREATE DATABASE left it open to every login, with the right to
/// make temporary tables that shadow a module's own.
#[tokio::test]
async fn a_half_made_database_is_closed_by_the_next_attempt() {
    let home = Home::bare(Tier::Dedicated).await;
    let admin = waangu_testkit::connect(&home.cell.superuser_dsn("postgres"))
        .await
        .unwrap();
    let sql = format!(
        "create database {} template waangu_template",
        home.database()
    );
    admin.batch_execute(&sql).await.unwrap();
    home.provision().await.unwrap();
    let sql = "select has_database_privilege('public', $1, 'connect, temporary')";
    let row = admin.query_one(sql, &[&home.database()]).await.unwrap();
    assert!(!row.get::<_, bool>(0));
    home.stock_up(1, "works").await;
}
