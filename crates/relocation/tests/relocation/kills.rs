//! Real processes, really killed: the worker, which is this test binary run again, and both servers.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use waangu_kernel::{Placement, TenantId};
use waangu_relocation::{Error, Options, Request, Side, debris, stranded};
use waangu_tenancy::CellAdminConfig;
use waangu_testkit::{Cell, Tier, connect, private_cell};

use crate::support::{Spot, TABLES, Traveller, package, run};
use crate::writers::{Writers, found};

/// What the worker process is told, one word each.
const ORDER: &str = "WAANGU_TEST_MOVE";

/// Moves one tenant, again and again until it has arrived; only for the test below.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the worker process of another test"]
async fn worker() {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test that runs itself has nothing else to be told by"
    )]
    let order = std::env::var(ORDER).expect("an order");
    let request = read_order(&order);
    loop {
        match run(request.clone()).await {
            Ok(_arrived) => return,
            Err(Error::Busy | Error::Pause(_) | Error::Database(_) | Error::Cell(_)) => {
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            Err(other) => unreachable!("{other}"),
        }
    }
}

fn write_order(tenant: &Traveller<'_>, to: Spot<'_>) -> String {
    let place = |cell: &Cell, placement: &Placement| {
        let config = cell.admin_config();
        format!(
            "{} {} {} {} {} {} {}",
            config.host,
            config.port,
            config.user,
            config.password,
            placement.tier,
            placement.bucket,
            placement.epoch
        )
    };
    format!(
        "{} {} {}",
        tenant.tenant.number(),
        place(tenant.cell, &tenant.placement),
        place(to.0, &tenant.placement_at(to.1))
    )
}

fn read_order(order: &str) -> Request {
    let mut words = order.split(' ');
    let mut word = || words.next().expect("a whole order").to_owned();
    let number: i64 = word().parse().expect("a number");
    let mut side = || {
        let cell = CellAdminConfig {
            id: "test-cell".parse().expect("a cell's id"),
            host: word(),
            port: word().parse().expect("a port"),
            user: word(),
            password: word(),
        };
        let placement = Placement {
            cell: cell.id.clone(),
            tier: word().parse().expect("a tier"),
            bucket: word().parse().expect("a bucket"),
            epoch: word().parse().expect("an epoch"),
        };
        Side { cell, placement }
    };
    let (source, target) = (side(), side());
    Request {
        tenant: TenantId::new(number).expect("a positive number"),
        source,
        target,
        packages: vec![package(TABLES)],
        lineage: vec![number],
        options: Options {
            max_pause: Duration::from_secs(3),
            ..Options::default()
        },
    }
}

fn start(order: &str) -> Child {
    let program = std::env::current_exe().expect("this program");
    Command::new(program)
        .args(["--exact", "kills::worker", "--ignored", "--nocapture"])
        .env(ORDER, order)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("start a worker")
}

/// A worker or a server killed at the wrong moment would lose acknowledged writes, leave the tenant
/// without a place, or leave something behind that fills a disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_survives_the_death_of_workers_and_servers() {
    let (a, b) = (private_cell().await, private_cell().await);
    for cell in [&a, &b] {
        let superuser = connect(&cell.superuser_dsn("postgres"))
            .await
            .expect("connect");
        for sql in [
            "alter system set synchronous_commit = on",
            "select pg_reload_conf()",
        ] {
            superuser
                .batch_execute(sql)
                .await
                .expect("what is acknowledged is kept");
        }
    }
    let mut tenant = Traveller::settle(Spot(&a, Tier::Shared), TABLES).await;
    let writers = Writers::start(&tenant, 2);
    let (mut random, mut kills, mut crashes) = (20_261_123_u64, 0, 0);
    for (number, to) in [Spot(&b, Tier::Schema), Spot(&a, Tier::Dedicated)]
        .into_iter()
        .enumerate()
    {
        let order = write_order(&tenant, to);
        // Later each time, so that every phase is met, and then left alone.
        for attempt in 0_u64..6 {
            let mut worker = start(&order);
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let wait = Duration::from_millis(100 + attempt * 100 + (random >> 33) % 200);
            if let Ok(ended) = tokio::time::timeout(wait, worker.wait()).await {
                assert!(ended.expect("wait for a worker").success());
                break;
            }
            match (attempt, number) {
                (1, 0) | (3, 1) => tenant.cell.crash().await,
                (3, 0) | (1, 1) => to.0.crash().await,
                _ => {}
            }
            crashes += u32::from(attempt == 1 || attempt == 3);
            worker.kill().await.expect("kill a worker");
            kills += 1;
        }
        let last = tokio::time::timeout(Duration::from_mins(1), start(&order).wait()).await;
        let last = last.expect("in time").expect("wait for a worker");
        assert!(last.success(), "the last worker finishes");
        tenant.placement = tenant.placement_at(to.1);
        tenant.cell = to.0;
        writers.follow(&tenant);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (ledger, _) = writers.end().await;
    assert!(
        kills >= 4 && crashes >= 1,
        "{kills} kills, {crashes} crashes"
    );
    assert_eq!(found(&tenant).await, ledger);
    for cell in [&a, &b] {
        let config = cell.admin_config();
        let left = debris(&config).await.expect("look for debris");
        assert!(left.is_empty(), "{left:?}");
        let left = stranded(&config).await.expect("look for the stranded");
        assert!(left.is_empty(), "{left:?}");
    }
}
