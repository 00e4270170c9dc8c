//! Newer versions for all tenants at once, through failures, kills and outages.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::db::in_database;
use crate::support::{Folder, Platform, Session, Shop, until, waangu};

const ARGS: [&str; 3] = ["--http-port", "0", "--hold-upgrades"];

/// Longest wait for a rollout on a busy machine.
const ROLLOUT: Duration = Duration::from_mins(1);

/// The bucket database's schemas that have the newer table, and each of the migrations once.
const SCHEMAS: &str = "select count(*) from (
    select schema_name from waangu.migration
     where module = 'inventory' and not starts_with(schema_name, 'stock_')
     group by 1 having count(*) = max(number) + 1 and count(*) filter (where name like '9.%') = 1) m
      join pg_class c on c.relnamespace = to_regnamespace(m.schema_name) and c.relname = 'product'
      join pg_attribute a on a.attrelid = c.oid and a.attname = 'note'";

async fn platform() -> Platform {
    Platform::start(Folder::new(), &ARGS).await
}

/// Tenants of the schema tier, all in one bucket.
async fn tenants(platform: &Platform, number: usize) {
    for chunk in (0..number).collect::<Vec<_>>().chunks(4) {
        let made = chunk.iter().map(|number| {
            let slug = format!("own-{number}");
            let wish = json!({ "slug": slug, "name": slug, "country": "SN", "tier": "schema" });
            async move { platform.change("POST", "/tenants", Some(&wish)).await }
        });
        futures_util::future::join_all(made).await;
    }
}

/// Gives the control plane a newer package of the inventory module, as a deployment does.
pub(crate) async fn deploy(platform: &Platform, version: &str, sql: &str) {
    let path = platform.folder.state().join("packages/inventory.json");
    let mut package: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    package["manifest"]["version"] = version.into();
    let migrations = package["migrations"].as_array_mut().unwrap();
    migrations.push(json!({ "name": version, "sql": sql }));
    fs::write(&path, package.to_string()).unwrap();
    restart(platform).await;
    until(
        "the module is deployed",
        Duration::from_secs(20),
        async || {
            let answer = platform.operate("GET", "/modules", None).await;
            let found = answer.status == 200 && answer.json()["items"][0]["version"] == version;
            found.then_some(())
        },
    )
    .await;
}

async fn restart(platform: &Platform) {
    let limit = Duration::from_secs(20);
    let control = until("there is a control plane", limit, async || {
        platform.control()
    })
    .await;
    control.signal(Signal::KILL);
}

pub(crate) async fn begin(platform: &Platform, more: Value) -> Value {
    let mut wish = json!({ "module": "inventory" });
    wish.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    platform
        .operate("POST", "/rollouts", Some(&wish))
        .await
        .expect(202)
}

pub(crate) fn id(rollout: &Value) -> &str {
    rollout["id"].as_str().unwrap()
}

/// Waits until nothing goes on by itself.
pub(crate) async fn settled(platform: &Platform, id: &str) -> Value {
    let path = format!("/rollouts/{id}");
    until("the rollout is over", ROLLOUT, async || {
        let answer = platform.operate("GET", &path, None).await;
        if answer.status != 200 {
            return None;
        }
        let rollout = answer.json();
        (rollout["state"] != "running").then_some(rollout)
    })
    .await
}

pub(crate) async fn versions(platform: &Platform) -> Vec<(String, String)> {
    let tenants = platform.tenants().await;
    let version = |tenant: &Value| {
        let slug = tenant["slug"].as_str().unwrap().to_owned();
        let version = tenant["modules"][0]["version"].as_str().unwrap().to_owned();
        (slug, version)
    };
    tenants.iter().map(version).collect()
}

async fn bucket(platform: &Platform) -> Session {
    let registry = Session::open(&platform.ready.control_dsn).await;
    let cell = registry
        .texts("select cell from registry.tenant where tier = 'schema'")
        .await;
    let cells = &platform.ready.cells;
    let dsn = &cells
        .iter()
        .find(|known| known.id == cell[0])
        .unwrap()
        .superuser_dsn;
    Session::open(&in_database(dsn, "waangu_schema_1")).await
}

/// One client's broken table must not stop thirty others' upgrade, nor be changed itself, nor be
/// forgotten.
#[tokio::test]
async fn one_tenant_of_thirty_fails_alone() {
    let platform = platform().await;
    tenants(&platform, 28).await;
    platform.tenant("sharing", "shared").await;
    platform.tenant("apart", "dedicated").await;
    let cells = bucket(&platform).await;
    let registry = Session::open(&platform.ready.control_dsn).await;
    let number = "select id from registry.tenant where slug = 'own-7'";
    let broken = format!("t_{}_inventory", registry.number(number).await);
    cells
        .rows(
            &format!("create index extra on {broken}.product (tenant_id)"),
            &[],
        )
        .await;
    let second = "alter table product add column note text;
         create index product_note on product (tenant_id, note);
         create table extra (tenant_id bigint not null default waangu.tenant(), id bigint not null
                           , primary key (tenant_id, id))";
    deploy(&platform, "9.1.0", second).await;
    assert!(
        versions(&platform)
            .await
            .iter()
            .all(|(_, version)| version != "9.1.0")
    );
    // Touched for another reason, a tenant keeps its version.
    platform
        .change("POST", "/tenants/own-1/suspend", None)
        .await;
    platform.change("POST", "/tenants/own-1/resume", None).await;
    assert_eq!(cells.number(SCHEMAS).await, 0);
    // A new one gets the newest.
    let wish = json!({ "slug": "new", "name": "new", "country": "SN", "tier": "schema" });
    platform.change("POST", "/tenants", Some(&wish)).await;
    assert_eq!(cells.number(SCHEMAS).await, 1);

    let wish = json!({ "module": "inventory", "waves": [10, 100], "dry_run": true });
    let draft = platform
        .operate("POST", "/rollouts", Some(&wish))
        .await
        .expect(200);
    assert_eq!((&draft["total"], &draft["id"]), (&json!(30), &Value::Null));

    let rollout = begin(
        &platform,
        json!({ "waves": [10, 100], "canaries": ["own-3"], "stop_on": 50 }),
    )
    .await;
    let over = settled(&platform, id(&rollout)).await;
    assert_eq!(over["state"], "partial", "{over}");
    assert_eq!((&over["done"], &over["failed"]), (&json!(29), &json!(1)));
    assert_eq!(over["waves"][0]["namespaces"], 1, "the canary: {over}");
    assert_eq!(over["failures"][0]["tenant"], "own-7");
    assert!(
        over["failures"][0]["error"]
            .as_str()
            .unwrap()
            .contains("extra"),
        "{over}"
    );
    for (slug, version) in versions(&platform).await {
        assert_eq!(version == "9.1.0", slug != "own-7", "{slug}: {version}");
    }
    assert_eq!(cells.number(SCHEMAS).await, 28);
    platform.user("own-7", "root", &["tenant-admin"]).await;
    Shop::open(&platform, "own-7")
        .await
        .product("STILL-SERVED")
        .await;

    cells.rows(&format!("drop index {broken}.extra"), &[]).await;
    let path = format!("/rollouts/{}/retry", id(&rollout));
    platform.operate("POST", &path, None).await.expect(200);
    let over = settled(&platform, id(&rollout)).await;
    assert_eq!(over["state"], "succeeded", "{over}");
    let nothing = platform
        .operate("POST", "/rollouts", Some(&json!({ "module": "inventory" })))
        .await;
    assert_eq!(nothing.problem().1, "rollout-empty");
    let shown = platform.cli(&["fleet", "status"]).await;
    assert!(
        shown.stdout.contains("9.1.0") && shown.code == Some(0),
        "{shown:?}"
    );
}

/// Another control process beside the platform's own, ended with the test.
struct Second(Child);

impl Second {
    fn start(platform: &Platform) -> Self {
        let config = platform.folder.state().join("run/control.toml");
        let child = Command::new(waangu())
            .args(["control", "--listen", "127.0.0.1:0", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A machine that dies in the middle of the night's upgrade must cost at most the tenant in hand, and
/// nobody's sleep: whoever starts next goes on, and nothing is done twice.
#[tokio::test]
async fn a_rollout_survives_kills_and_two_control_planes() {
    let platform = platform().await;
    tenants(&platform, 24).await;
    let slow = "select pg_sleep(0.2); alter table product add column note text";
    deploy(&platform, "9.2.0", slow).await;
    let second = Second::start(&platform);
    let rollout = begin(&platform, json!({ "waves": [25, 100] })).await;
    let cells = bucket(&platform).await;
    for _ in 0..3 {
        sleep(Duration::from_millis(400)).await;
        restart(&platform).await;
    }
    // The other has nothing to lean on but the registry, and it dies, too.
    drop(second);
    let seen = cells.number(SCHEMAS).await;
    println!("upgraded when the last one was killed: {seen}");
    let over = settled(&platform, id(&rollout)).await;
    assert_eq!(over["state"], "succeeded", "{over}");
    assert_eq!(cells.number(SCHEMAS).await, 24);
    let registry = Session::open(&platform.ready.control_dsn).await;
    let behind =
        "select count(*) from registry.namespace n join registry.module m on m.id = n.module
                   where n.package_hash <> m.package_hash";
    assert_eq!(registry.number(behind).await, 0);
}

/// An operator who sees something odd holds the rollout; nobody else begins another meanwhile, and a
/// corrected version takes its place.
#[tokio::test]
async fn a_rollout_is_held_resumed_and_overtaken() {
    let platform = platform().await;
    tenants(&platform, 12).await;
    deploy(
        &platform,
        "9.3.0",
        "select pg_sleep(0.3); alter table product add column note text",
    )
    .await;
    let rollout = begin(&platform, json!({ "waves": [100] })).await;
    let act = |what: &'static str| {
        let path = format!("/rollouts/{}/{what}", id(&rollout));
        let platform = &platform;
        async move { platform.operate("POST", &path, None).await }
    };
    sleep(Duration::from_millis(400)).await;
    assert_eq!(act("pause").await.expect(200)["state"], "paused");
    sleep(Duration::from_millis(1500)).await;
    let held = settled(&platform, id(&rollout)).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(settled(&platform, id(&rollout)).await["done"], held["done"]);
    assert!(held["done"].as_i64().unwrap() < 12, "{held}");
    let wish = json!({ "module": "inventory" });
    let other = platform.operate("POST", "/rollouts", Some(&wish)).await;
    assert_eq!(other.problem().1, "rollout-open");
    assert_eq!(act("pause").await.problem().1, "rollout-state");
    assert_eq!(act("resume").await.expect(200)["state"], "running");

    deploy(
        &platform,
        "9.3.1",
        "alter table product add column label text",
    )
    .await;
    let newer = begin(&platform, json!({ "waves": [100] })).await;
    let over = settled(&platform, id(&newer)).await;
    assert_eq!(over["state"], "succeeded", "{over}");
    let first = settled(&platform, id(&rollout)).await;
    assert!(
        ["superseded", "succeeded"]
            .map(|s| first["state"] == s)
            .contains(&true),
        "{first}"
    );
    assert!(
        versions(&platform)
            .await
            .iter()
            .all(|(_, version)| version == "9.3.1")
    );
}

/// A cell whose server hangs must not keep the clients of the others waiting, and must be served again
/// without anybody's doing.
#[tokio::test]
async fn a_silent_cell_delays_nobody_else() {
    let platform = platform().await;
    let french = platform
        .ready
        .cells
        .iter()
        .position(|cell| cell.id != "sn-dakar-a");
    let server = platform.postgres(french.unwrap()).unwrap();
    server.signal(Signal::STOP);
    let wish = json!({ "slug": "paris", "name": "Paris", "country": "FR", "tier": "shared" });
    let call = platform.http().post(&platform.admin("/tenants"));
    let call = call.token(&platform.ready.admin.token).json(&wish);
    let asked = call.send().await.expect(202);
    until("the circuit opens", Duration::from_secs(30), async || {
        let fleet = platform.operate("GET", "/fleet", None).await.expect(200);
        let cells = fleet["cells"].as_array().unwrap().clone();
        cells
            .iter()
            .any(|cell| cell["circuit"] == "open")
            .then_some(())
    })
    .await;
    for number in 0..6 {
        let begun = Instant::now();
        let slug = format!("dakar-{number}");
        let wish = json!({ "slug": slug, "name": slug, "country": "SN", "tier": "shared" });
        platform.change("POST", "/tenants", Some(&wish)).await;
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
    }
    server.signal(Signal::CONT);
    let path = format!("/operations/{}", asked["id"].as_str().unwrap());
    until("paris is served", Duration::from_secs(20), async || {
        let operation = platform.operate("GET", &path, None).await.expect(200);
        (operation["status"] == "succeeded").then_some(())
    })
    .await;
    let fleet = platform.operate("GET", "/fleet", None).await.expect(200);
    assert_eq!(
        (&fleet["behind"], &fleet["failing"]),
        (&json!(0), &json!([]))
    );
}

/// A policy dropped by hand is a hole until somebody looks; a home row changed by hand is an outage. Both
/// are found and mended without a person, what would lose data is not, and a dry run changes nothing.
#[tokio::test]
async fn drift_made_by_hand_is_found_and_mended() {
    let platform = platform().await;
    tenants(&platform, 3).await;
    platform.tenant("sharing", "shared").await;
    let clean = platform.cli(&["fleet", "repair"]).await;
    assert_eq!(clean.code, Some(0), "{clean:?}");
    let cells = bucket(&platform).await;
    let schemas = cells
        .texts("select nspname::text from pg_namespace where nspname ~ '^t_' order by nspname")
        .await;
    for sql in [
        format!("drop policy tenant on {}.product", schemas[0]),
        format!("grant truncate on {}.product to public", schemas[1]),
        "update waangu.home set state = 'suspended' where tenant_id = (select min(tenant_id) from waangu.home)".to_owned(),
        "insert into waangu.closure select 99, min(tenant_id) from waangu.home".to_owned(),
        "create schema t_4711_inventory".to_owned(),
    ] {
        cells.rows(&sql, &[]).await;
    }
    let told = platform
        .cli(&["--output", "json", "fleet", "repair", "--dry-run"])
        .await;
    assert_eq!(told.code, Some(1), "{told:?}");
    let count = |text: &str| {
        let repair: Value = serde_json::from_str(text).unwrap();
        let findings = repair["findings"].as_array().unwrap().clone();
        let mended = findings
            .iter()
            .filter(|found| found["mended"] == true)
            .count();
        (findings.len(), mended)
    };
    let (found, mended) = count(&told.stdout);
    assert!(found >= 5 && mended == 0, "{}", told.stdout);
    let policies = "select count(*) from pg_policy where polname = 'tenant'";
    let before = cells.number(policies).await;
    platform.cli(&["fleet", "repair"]).await;
    assert_eq!(cells.number(policies).await, before + 1);
    let open = "select count(*) from waangu.home where state = 'active'";
    until("the door is open", Duration::from_secs(10), async || {
        (cells.number(open).await == 3).then_some(())
    })
    .await;
    until(
        "what is left is the stray schema",
        Duration::from_secs(10),
        async || {
            let left = platform
                .cli(&["--output", "json", "fleet", "repair", "--dry-run"])
                .await;
            (left.code == Some(1) && count(&left.stdout).0 <= 2).then_some(())
        },
    )
    .await;
    let left = cells
        .number("select count(*) from pg_namespace where nspname = 't_4711_inventory'")
        .await;
    assert_eq!(left, 1, "nobody drops what may be somebody's");
}

/// To make an empty schema in the place of one that was lost is to tell a client that its stock is zero.
#[tokio::test]
async fn lost_tables_are_reported_and_not_made_anew() {
    let platform = platform().await;
    tenants(&platform, 1).await;
    let cells = bucket(&platform).await;
    let schema = cells
        .texts("select nspname::text from pg_namespace where nspname ~ '^t_[0-9]+_inventory$'")
        .await;
    cells
        .rows(&format!("drop schema {} cascade", schema[0]), &[])
        .await;
    cells
        .rows(
            "delete from waangu.migration where module = 'inventory'",
            &[],
        )
        .await;
    let accepted = platform
        .operate("POST", "/tenants/own-0/suspend", None)
        .await
        .expect(202);
    assert_ne!(accepted["status"], "succeeded", "{accepted}");
    let fleet = platform.operate("GET", "/fleet", None).await.expect(200);
    let error = fleet["failing"][0]["error"].as_str().unwrap();
    assert!(error.contains("not there any more"), "{fleet}");
    let left = cells
        .number("select count(*) from pg_namespace where nspname ~ '^t_'")
        .await;
    assert_eq!(left, 0);
}
