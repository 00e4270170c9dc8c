//! The control plane dies while a client is being onboarded.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::stock::holds;
use crate::support::{Folder, Platform, Session, Shop, until};

/// Onboarding a dedicated tenant takes about this long, in milliseconds, when its database is made.
const MADE: u64 = 250;

/// When its database is taken out of the stock.
const TAKEN: u64 = 60;

/// Rounds; each has its own stretch of the span. More than five would meet the supervisor's long
/// pauses.
const ROUNDS: u64 = 5;

/// A client who was promised a place gets it, once, whatever dies on the way: no second database, no
/// tenant that is half there, nobody who has to be called.
#[tokio::test]
async fn an_onboarding_survives_the_death_of_the_control_plane() {
    let platform = Platform::start(Folder::new(), &["--http-port", "0", "--stock", "0"]).await;
    let interrupted = rounds(&platform, "made", MADE).await;
    assert!(interrupted > 0, "every onboarding was over before the kill");
}

/// The same where the database is there already: nobody gets one that another tenant has, and none is
/// lost between stock and tenant.
#[tokio::test]
async fn so_does_one_that_takes_its_database_out_of_the_stock() {
    let platform = Platform::start(Folder::new(), &["--http-port", "0", "--stock", "5"]).await;
    in_stock(&platform, 5).await;
    let interrupted = rounds(&platform, "taken", TAKEN).await;
    println!("{interrupted} of {ROUNDS} were interrupted");
    in_stock(&platform, 5).await;
}

async fn in_stock(platform: &Platform, count: i64) {
    for cell in &platform.ready.cells {
        holds(platform, &cell.id, count).await;
    }
}

/// Onboards tenants, each time with a kill somewhere in the span; says how many kills came before the
/// tenant stood.
async fn rounds(platform: &Platform, name: &str, span: u64) -> i32 {
    let mut interrupted = 0;
    for round in 0..ROUNDS {
        let stretch = span / ROUNDS;
        let delay = round * stretch + RandomState::new().hash_one(round) % stretch;
        let slug = format!("{name}-{round}");
        println!("round {round}: killed after {delay} ms");
        let (operation, reached) = onboard(platform, &slug, Duration::from_millis(delay)).await;
        interrupted += i32::from(!reached);
        check(platform, &slug, &operation).await;
    }
    let left = "select count(*) from registry.tenant where generation > observed_generation";
    let registry = Session::open(&platform.ready.control_dsn).await;
    assert_eq!(registry.number(left).await, 0);
    interrupted
}

/// Asks for the tenant, kills the control plane after `delay`, and follows the operation to its end;
/// says also whether the tenant stood already when the kill came.
async fn onboard(platform: &Platform, slug: &str, delay: Duration) -> (Value, bool) {
    let registry = Session::open(&platform.ready.control_dsn).await;
    let victim = until(
        "there is a control plane",
        Duration::from_secs(10),
        async || platform.control(),
    )
    .await;
    let killing = async {
        sleep(delay).await;
        victim.signal(Signal::KILL);
        let stands = format!(
            "select count(*) from registry.tenant
              where slug = '{slug}' and observed_generation = generation"
        );
        registry.number(&stands).await == 1
    };
    let (first, reached) = tokio::join!(ask(platform, slug), killing);
    // It may have died with the answer on its lips: the key makes asking again safe.
    let accepted = if let Some(accepted) = first {
        accepted
    } else {
        let again = async || ask(platform, slug).await;
        until("it is asked again", Duration::from_secs(15), again).await
    };
    let path = format!("/operations/{}", accepted["id"].as_str().unwrap());
    let operation = until("the operation ends", Duration::from_secs(20), async || {
        let url = platform.admin(&path);
        let call = platform.http().get(&url).token(&platform.ready.admin.token);
        let answer = call.attempt().await.ok()?;
        if answer.status == 503 {
            answer.problem();
            return None;
        }
        let operation = answer.expect(200);
        let over = ["succeeded", "failed"].map(|status| operation["status"] == status);
        over.contains(&true).then_some(operation)
    })
    .await;
    println!("stood already: {reached}");
    (operation, reached)
}

async fn ask(platform: &Platform, slug: &str) -> Option<Value> {
    let wish = json!({ "slug": slug, "name": slug, "country": "SN", "tier": "dedicated" });
    let call = platform.http().post(&platform.admin("/tenants"));
    let call = call.token(&platform.ready.admin.token).json(&wish);
    let answer = call.header("idempotency-key", slug).attempt().await.ok()?;
    if answer.status == 503 {
        answer.problem();
        return None;
    }
    Some(answer.expect(202))
}

async fn check(platform: &Platform, slug: &str, operation: &Value) {
    assert_eq!(operation["status"], "succeeded", "{operation}");
    let registry = Session::open(&platform.ready.control_dsn).await;
    let count = format!(
        "select count(*) from registry.operation o join registry.tenant t on t.id = o.tenant_id
          where t.slug = '{slug}'"
    );
    assert_eq!(registry.number(&count).await, 1, "{slug}");
    let audited = format!(
        "select count(*) from registry.audit_event where slug = '{slug}' and action = 'tenant.create'"
    );
    assert_eq!(registry.number(&audited).await, 1, "{slug}");

    let tenants = "select count(*) from registry.tenant where tier = 'dedicated'";
    let tenants = registry.number(tenants).await;
    let mut databases = 0;
    for cell in &platform.ready.cells {
        let server = Session::open(&cell.superuser_dsn).await;
        let sql = "select count(*) from pg_database where datname like 'waangu\\_t\\_%'";
        databases += server.number(sql).await;
    }
    assert_eq!(
        databases, tenants,
        "a database for each tenant and no other"
    );

    platform.user(slug, "root", &["tenant-admin"]).await;
    let shop = Shop::open(platform, slug).await;
    shop.product("FIRST").await;
    assert_eq!(shop.skus().await, ["FIRST"]);
}
