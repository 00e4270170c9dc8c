//! Moves that would cost their neighbours too much.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use waangu_relocation::{Error, Relocation, Request, Step, debris, undo};
use waangu_tenancy::HomeState;
use waangu_testkit::{Cell, Tier, connect, private_cell};

use crate::support::{Spot, TABLES, Traveller, fill};

/// Somebody else on the server, who writes some megabytes of log in a second.
async fn neighbour(cell: &Cell) -> JoinHandle<()> {
    let client = connect(&cell.superuser_dsn("postgres")).await;
    let client = client.expect("connect");
    let table = client.batch_execute("create table noise (t text)").await;
    table.expect("a table");
    Handle::current().spawn(async move {
        loop {
            let sql =
                "insert into noise select repeat(md5(g::text), 20) from generate_series(1, 500) g";
            client.batch_execute(sql).await.expect("write");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}

/// The copy, until it is given up; then all that it has made is taken back.
async fn given_up(request: Request) -> Error {
    let mut relocation = Relocation::begin(request.clone()).await.expect("begin");
    let limit = Duration::from_secs(20);
    let done = tokio::time::timeout(limit, relocation.apply(&Step::Copy)).await;
    let error = done.expect("within its bounds").expect_err("given up");
    drop(relocation);
    for _ in 0..100 {
        match undo(&request).await {
            Err(Error::Busy) => tokio::time::sleep(Duration::from_millis(50)).await,
            other => {
                other.expect("take it back");
                break;
            }
        }
    }
    error
}

/// The slot of a long copy would fill the disk with its neighbours' log, or its snapshot their tables with
/// dead rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_holds_back_too_much_is_given_up() {
    let a = private_cell().await;
    let mut tenant = Traveller::settle(Spot(&a, Tier::Shared), TABLES).await;
    fill(&tenant, 20_000).await;
    // So slow that it would take minutes.
    tenant.options.rate = Some(10_000);
    let noise = neighbour(&a).await;

    tenant.options.max_held = 2 << 20;
    let error = given_up(tenant.request(Spot(&a, Tier::Dedicated))).await;
    let bound = 2 << 20;
    assert!(
        matches!(error, Error::Held { held, bound: b } if held > bound && b == bound),
        "{error}"
    );

    tenant.options.max_held = i64::MAX;
    tenant.options.max_copy = Duration::from_secs(1);
    let error = given_up(tenant.request(Spot(&a, Tier::Schema))).await;
    assert!(matches!(error, Error::Old(1)), "{error}");
    noise.abort();

    let left = debris(&a.admin_config()).await.expect("look");
    assert!(left.is_empty(), "{left:?}");
    let superuser = tenant.superuser().await;
    let sql = "select count(*) from pg_stat_activity
                where application_name = 'waangu-relocation' and backend_xmin is not null";
    let row = superuser.query_one(sql, &[]).await.expect("look");
    assert_eq!(row.get::<_, i64>(0), 0, "no snapshot is left");
    let seen = a.admin.observe(tenant.tenant, &tenant.placement, &[]).await;
    let home = seen.expect("look").home;
    assert_eq!(home, Some((HomeState::Active, 1)), "served as before");
}
