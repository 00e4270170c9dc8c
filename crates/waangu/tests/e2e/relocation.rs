//! Tenants that move while their people work.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::db::in_database;
use crate::support::{Folder, Platform, Session, until};

mod asked;
mod hold;
mod ledger;
mod phases;

use ledger::Ledger;

/// What moves leave behind goes at once: the test looks at it.
const ARGS: [&str; 5] = ["--http-port", "0", "--hold-upgrades", "--move-grace", "1"];

/// Longest move on a busy machine.
const MOVE: Duration = Duration::from_mins(2);

async fn platform() -> Platform {
    Platform::start(Folder::new(), &ARGS).await
}

/// The way back is open for as long as the test takes.
const KEPT: [&str; 5] = ["--http-port", "0", "--hold-upgrades", "--move-grace", "600"];

/// Whoever takes a tenant back has been told that it will be quick, and until when: it must be, and all that
/// was written at the new place must be there; nothing may fill a disk afterwards.
#[tokio::test]
async fn a_tenant_is_taken_back_without_a_copy() {
    let platform = Platform::start(Folder::new(), &KEPT).await;
    platform.tenant("mover", "schema").await;
    let ledger = Ledger::open(&platform, "mover").await;
    ledger.write(40).await;
    let there = moved(&platform, "mover", json!({ "tier": "dedicated" })).await;
    assert_eq!(there["way_back"]["brings"], "changes", "{there:#}");
    assert_eq!(there["adopted"], false, "{there:#}");
    ledger.write(20).await;

    let wish = json!({ "back": true, "dry_run": true });
    let plan = platform
        .operate("POST", &path("mover"), Some(&wish))
        .await
        .expect(200);
    assert_eq!(
        (&plan["adopted"], &plan["total_bytes"]),
        (&json!(true), &json!(0)),
        "{plan:#}"
    );
    let shown = platform.cli(&["tenant", "moves", "mover"]).await;
    assert!(
        shown.stdout.contains("changes alone, until"),
        "{}",
        shown.stdout
    );

    let work = async {
        let back = platform.cli(&["tenant", "move", "mover", "--back"]).await;
        assert_eq!(back.code, Some(0), "{}{}", back.stdout, back.stderr);
        assert!(back.stdout.contains("were there"), "{}", back.stdout);
    };
    ledger.during(work).await;
    let place = placement(&platform, "mover").await;
    assert_eq!(
        (&place["tier"], &place["epoch"]),
        (&json!("schema"), &json!(3)),
        "{place}"
    );
    ledger.write(10).await;

    // And forth again, into rows that were left there.
    let forth = moved(&platform, "mover", json!({ "tier": "dedicated" })).await;
    assert_eq!(forth["adopted"], true, "{forth:#}");
    ledger.write(10).await;
    ledger.check().await;

    // A slot that is gone is noticed, and said.
    let cell = &platform
        .ready
        .cells
        .iter()
        .find(|cell| place["cell"] == cell.id.as_str())
        .unwrap();
    let server = Session::open(&cell.superuser_dsn).await;
    server
        .texts("select pg_drop_replication_slot(slot_name)::text from pg_replication_slots")
        .await;
    until(
        "the platform knows that a move back would copy",
        MOVE,
        async || {
            let list = platform
                .operate("GET", &path("mover"), None)
                .await
                .expect(200);
            (list["items"][0]["way_back"]["brings"] == "copy").then_some(())
        },
    )
    .await;
    let plan = platform
        .operate("POST", &path("mover"), Some(&wish))
        .await
        .expect(200);
    assert_eq!(plan["adopted"], false, "{plan:#}");
    let back = moved(&platform, "mover", json!({ "back": true })).await;
    assert_eq!(back["adopted"], false, "{back:#}");
    ledger.check().await;

    // Who is deleted leaves no way back, and nothing else.
    platform.change("DELETE", "/tenants/mover", None).await;
    no_debris(&platform).await;
}

fn path(slug: &str) -> String {
    format!("/tenants/{slug}/relocations")
}

/// Begins a move; returns its address.
async fn begin(platform: &Platform, slug: &str, wish: Value) -> String {
    let answer = platform.operate("POST", &path(slug), Some(&wish)).await;
    let id = answer.expect(202)["id"].as_str().unwrap().to_owned();
    format!("{}/{id}", path(slug))
}

/// Waits for a move's end; the control plane may be away meanwhile.
async fn ended(platform: &Platform, path: &str) -> Value {
    until("the move is over", MOVE, async || {
        let answer = platform.operate("GET", path, None).await;
        let moved = (answer.status == 200).then(|| answer.json())?;
        let phase = moved["phase"].as_str().unwrap();
        ["done", "cancelled", "failed"]
            .contains(&phase)
            .then_some(moved)
    })
    .await
}

async fn moved(platform: &Platform, slug: &str, wish: Value) -> Value {
    let path = begin(platform, slug, wish).await;
    let end = ended(platform, &path).await;
    assert_eq!(end["phase"], "done", "{end:#}");
    end
}

async fn placement(platform: &Platform, slug: &str) -> Value {
    let path = format!("/tenants/{slug}");
    let answer = platform.operate("GET", &path, None).await;
    answer.expect(200)["placement"].clone()
}

/// Slots, publications, schemas and databases of tenants that nobody has any more.
async fn debris(platform: &Platform) -> Vec<String> {
    let mut found = Vec::new();
    let registry = Session::open(&platform.ready.control_dsn).await;
    let homes = registry
        .texts(
            "select cell || ' ' || tier || ' ' || bucket || ' ' || id
               from registry.tenant where state <> 'deleted'",
        )
        .await;
    for cell in &platform.ready.cells {
        let server = Session::open(&cell.superuser_dsn).await;
        found.extend(
            server
                .texts("select slot_name::text from pg_replication_slots")
                .await,
        );
        let databases = "select datname::text from pg_database
                          where datname ~ '^waangu(_t_|_schema_|$)' and datallowconn";
        for database in server.texts(databases).await {
            let dsn = in_database(&cell.superuser_dsn, &database);
            // It may be dropped just now, or in the middle of the look.
            let Ok(held) = held(&dsn).await else {
                found.push(format!("database {database} in {}", cell.id));
                continue;
            };
            for (kind, name) in held {
                let number = name.split('_').nth(1).unwrap_or_default();
                let bucket = database.strip_prefix("waangu_schema_").unwrap_or("0");
                let tier = match database.as_str() {
                    "waangu" => "shared",
                    name if name.starts_with("waangu_t_") => "dedicated",
                    _ => "schema",
                };
                let is_at_home = match kind.as_str() {
                    "home" => homes.contains(&format!("{} {tier} {bucket} {name}", cell.id)),
                    "schema" => homes.iter().any(|home| {
                        home.starts_with(&format!("{} schema", cell.id))
                            && home.ends_with(&format!(" {number}"))
                    }),
                    _ => false,
                };
                if !is_at_home {
                    found.push(format!("{kind} {name} in {database} of {}", cell.id));
                }
            }
            if let Some(number) = database.strip_prefix("waangu_t_")
                && !homes.contains(&format!("{} dedicated 0 {number}", cell.id))
            {
                found.push(format!("database {database} in {}", cell.id));
            }
        }
    }
    found
}

/// Publications, homes and tenants' schemas of one database. A home that says that its tenant has left stays
/// for good.
async fn held(dsn: &str) -> Result<Vec<(String, String)>, tokio_postgres::Error> {
    let sql = "select 'publication', pubname::text from pg_publication
                union all
               select 'home', tenant_id::text from waangu.home where state <> 'moved'
                union all
               select 'schema', nspname::text from pg_namespace where nspname ~ '^t_[0-9]+_'";
    let rows = Session::try_open(dsn).await?.try_rows(sql, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Housekeeping comes round every 15 seconds.
async fn no_debris(platform: &Platform) {
    let mut last = Vec::new();
    let clean = until("nothing is left behind", MOVE, async || {
        last = debris(platform).await;
        if last.is_empty() {
            return Some(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        None
    });
    clean.await;
}

/// The other cell's id.
async fn other_cell(platform: &Platform, slug: &str) -> String {
    let here = placement(platform, slug).await["cell"].clone();
    let cells = platform.ready.cells.iter();
    let other = cells.map(|cell| cell.id.clone()).find(|id| *id != here);
    other.unwrap()
}

/// People at work must not notice that their tenant moves: no request fails, nothing is lost or done
/// twice, wherever it goes; a neighbour in the shared tables keeps what is his; nothing is left behind.
#[tokio::test]
async fn a_tenant_moves_through_all_tiers_while_its_people_work() {
    let platform = platform().await;
    platform.tenant("mover", "shared").await;
    platform.tenant("stayer", "shared").await;
    let ledger = Ledger::open(&platform, "mover").await;
    let neighbour = Ledger::open(&platform, "stayer").await;
    let journey = async {
        for tier in ["schema", "dedicated", "shared"] {
            let end = moved(&platform, "mover", json!({ "tier": tier })).await;
            assert_eq!(end["to"]["tier"], tier);
            let place = placement(&platform, "mover").await;
            assert_eq!(place["tier"], tier, "{place}");
        }
    };
    tokio::join!(ledger.during(journey), neighbour.write(20));
    assert!(ledger.acknowledged() > 30, "{}", ledger.acknowledged());
    ledger.check().await;
    neighbour.check().await;
    let place = placement(&platform, "mover").await;
    assert_eq!(place["epoch"], 4, "{place}");
    no_debris(&platform).await;
}

/// What is asked for in the middle of a move, or against a move, must neither break it nor be lost.
#[tokio::test]
async fn moves_are_checked_cancelled_and_taken_back() {
    let platform = platform().await;
    platform.tenant("mover", "shared").await;
    let ledger = Ledger::open(&platform, "mover").await;
    ledger.write(40).await;

    let wish = json!({ "tier": "dedicated", "dry_run": true });
    let plan = platform
        .operate("POST", &path("mover"), Some(&wish))
        .await
        .expect(200);
    assert_eq!(
        (&plan["phase"], &plan["id"]),
        (&json!("draft"), &Value::Null)
    );
    let checks = plan["checks"].as_array().unwrap();
    assert!(
        checks.len() >= 5 && checks.iter().all(|check| check["fine"] == true),
        "{plan:#}"
    );
    assert!(plan["total_bytes"].as_i64().unwrap() > 0, "{plan:#}");

    for (wish, code, field) in [
        (json!({ "tier": "castle" }), "tier-unknown", "tier"),
        (json!({ "tier": "shared" }), "already-there", ""),
        (json!({ "cell": "nowhere" }), "cell-not-found", "cell"),
        (json!({ "region": "nowhere" }), "no-placement", "region"),
        (json!({ "back": true }), "relocation-not-found", "back"),
        (
            json!({ "tier": "schema", "max_pause_ms": 1 }),
            "invalid-field",
            "max_pause_ms",
        ),
    ] {
        let answer = platform.operate("POST", &path("mover"), Some(&wish)).await;
        let problem = answer.json();
        assert_eq!(problem["code"], code, "{wish}: {problem}");
        assert_eq!(problem["field"].as_str().unwrap_or(""), field, "{problem}");
    }

    // So slow that it can be caught.
    let wish = json!({ "tier": "schema", "rate": 1024, "why": "a test" });
    let slow = begin(&platform, "mover", wish).await;
    let second = platform
        .operate(
            "POST",
            &path("mover"),
            Some(&json!({ "tier": "dedicated" })),
        )
        .await;
    assert_eq!(second.problem().1, "relocation-open");
    let caught = format!("{slow}/cancel");
    platform.operate("POST", &caught, None).await.expect(202);
    let end = ended(&platform, &slow).await;
    assert_eq!(end["phase"], "cancelled", "{end:#}");
    assert_eq!(placement(&platform, "mover").await["tier"], "shared");
    let late = platform.operate("POST", &caught, None).await;
    assert_eq!(late.problem().1, "relocation-past");
    ledger.write(5).await;

    moved(&platform, "mover", json!({ "tier": "dedicated" })).await;
    let back = platform.cli(&["tenant", "move", "mover", "--back"]).await;
    // The grace time is a second here: it may be over.
    if back.code == Some(0) {
        assert_eq!(placement(&platform, "mover").await["tier"], "shared");
    }
    ledger.write(5).await;
    ledger.check().await;
    no_debris(&platform).await;
}

/// A control plane that dies in the middle of a move, at whatever point, must leave the tenant served at
/// exactly one place and nothing lost; whoever starts next finishes the move.
#[tokio::test]
async fn a_move_survives_the_death_of_the_control_plane() {
    let platform = platform().await;
    platform.tenant("mover", "shared").await;
    let ledger = Ledger::open(&platform, "mover").await;
    ledger.write(30).await;
    let kills = async {
        for (tier, pause) in [("schema", 60), ("shared", 250), ("dedicated", 600)] {
            let path = begin(&platform, "mover", json!({ "tier": tier })).await;
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if let Some(control) = platform.control() {
                control.signal(Signal::KILL);
            }
            let end = ended(&platform, &path).await;
            assert_eq!(end["phase"], "done", "{end:#}");
        }
    };
    ledger.during(kills).await;
    ledger.check().await;
    assert_eq!(placement(&platform, "mover").await["tier"], "dedicated");
    no_debris(&platform).await;
}

/// A cell is emptied by moving everybody out; the command line shows how.
#[tokio::test]
async fn a_tenant_moves_to_another_cell_by_command() {
    let platform = platform().await;
    platform.tenant("mover", "schema").await;
    let ledger = Ledger::open(&platform, "mover").await;
    let cell = other_cell(&platform, "mover").await;
    let plan = platform
        .cli(&["tenant", "move", "mover", "--cell", &cell, "--dry-run"])
        .await;
    if plan.code != Some(0) {
        // The only other cell may be closed to this country.
        assert!(plan.stderr.contains("no-placement"), "{}", plan.stderr);
        return;
    }
    let work = async {
        let args = [
            "tenant",
            "move",
            "mover",
            "--cell",
            &cell,
            "--max-pause",
            "1s",
        ];
        let ran = platform.cli(&args).await;
        assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains("done"), "{}", ran.stdout);
    };
    ledger.during(work).await;
    assert_eq!(placement(&platform, "mover").await["cell"], cell.as_str());
    let list = platform.cli(&["tenant", "moves", "mover"]).await;
    assert!(list.stdout.contains("done"), "{}", list.stdout);
    ledger.check().await;
    no_debris(&platform).await;
}
