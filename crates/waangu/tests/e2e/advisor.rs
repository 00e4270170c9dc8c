//! The advisor on a running platform: real volume, real traffic, a changed profile.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Folder, Platform, Shop, until};

mod acting;

/// Products of the busy tenant: as many rows, and as many requests.
const PRODUCTS: usize = 300;

async fn world(platform: &Platform, change: Value) {
    let mut world = json!({ "version": 1 });
    world
        .as_object_mut()
        .unwrap()
        .extend(change.as_object().unwrap().clone());
    let answer = platform.operate("PUT", "/world", Some(&world)).await;
    answer.expect(200);
}

fn threshold(rows: i64) -> Value {
    json!({ "thresholds": [{
        "id": "schema", "rows": rows, "requests_per_minute": 2, "database_ms_per_minute": 1,
        "window_hours": 1, "hold_minutes": 0,
    }] })
}

/// A fresh look, and what follows from it.
async fn look(platform: &Platform) -> Value {
    let ran = platform
        .cli(&["advisor", "--look", "--output", "json"])
        .await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    serde_json::from_str(&ran.stdout).unwrap()
}

fn advised<'v>(view: &'v Value, slug: &str) -> Option<&'v Value> {
    let items = view["items"].as_array().unwrap();
    items.iter().find(|advice| advice["tenant"] == slug)
}

async fn figure(platform: &Platform, slug: &str, name: &str) -> i64 {
    let path = format!("/tenants/{slug}/advice");
    let view = platform.operate("GET", &path, None).await.expect(200);
    let figures = view["figures"].as_array().unwrap();
    let found = figures
        .iter()
        .find(|figure| figure["tier"] == "schema" && figure["name"] == name);
    found.map_or(-1, |figure| figure["value"].as_i64().unwrap())
}

async fn trail(platform: &Platform, slug: &str) -> Vec<String> {
    let path = format!("/audit?tenant={slug}");
    let events = platform.operate("GET", &path, None).await.expect(200);
    let events = events["items"].as_array().unwrap();
    let actions = events.iter().map(|event| event["action"].as_str().unwrap());
    actions
        .filter(|action| action.starts_with("advice."))
        .map(str::to_owned)
        .collect()
}

/// An operator with a thousand tenants would learn who needs a better place from their complaints; or
/// would be told without being told why.
#[tokio::test]
async fn who_outgrows_its_place_gets_a_proposal_with_evidence() {
    let platform = Platform::start(Folder::new(), &["--http-port", "0"]).await;
    world(&platform, threshold(200)).await;
    platform.tenant("quiet", "shared").await;
    platform.tenant("busy", "shared").await;
    let wish = json!({ "slug": "bank", "name": "Bank", "country": "SN", "profile": "sme" });
    platform.change("POST", "/tenants", Some(&wish)).await;
    let busy = Shop::open(&platform, "busy").await;
    busy.sees(200, None).await;
    for number in 0..PRODUCTS {
        busy.product(&format!("SKU-{number}")).await;
    }
    let quiet = Shop::open(&platform, "quiet").await;
    quiet.sees(200, None).await;
    quiet.product("ONE").await;

    // Gateways report every 15 seconds.
    let limit = Duration::from_secs(40);
    until("the gateway has reported", limit, async || {
        (figure(&platform, "busy", "requests_per_minute").await >= 2).then_some(())
    })
    .await;
    let view = look(&platform).await;
    let advice = advised(&view, "busy").unwrap_or_else(|| panic!("{view}"));
    assert_eq!(
        (&advice["tier"], &advice["cell"], &advice["state"]),
        (&json!("schema"), &advice["cell_now"], &json!("open")),
        "{advice}"
    );
    assert_eq!(advice["criteria"], json!(["volume", "traffic"]), "{advice}");
    let evidence = advice["evidence"].to_string();
    for said in ["300 rows", "requests per minute", "database ms per minute"] {
        assert!(evidence.contains(said), "{said}: {evidence}");
    }
    assert_eq!(view["items"].as_array().unwrap().len(), 1, "{view}");
    let cost = &view["round"]["cost"];
    assert!(cost["queries"].as_i64().unwrap() < 40, "{cost}");
    assert_eq!((&cost["cells"], &cost["tenants"]), (&json!(2), &json!(3)));
    assert_eq!(trail(&platform, "busy").await, ["advice.open"]);

    let ran = platform.cli(&["advisor", "busy"]).await;
    assert!(
        ran.stdout.contains("300 rows; tier schema from 200 on"),
        "{ran:?}"
    );
    assert!(
        ran.stdout.contains("waangu tenant move busy --to schema"),
        "{ran:?}"
    );
    let ran = platform.cli(&["advisor", "nobody"]).await;
    assert_eq!(ran.code, Some(4), "{ran:?}");

    // The sector's rule changes: that needs no figures. What was asked for by name stays.
    let now = platform.operate("GET", "/world", None).await.expect(200);
    let mut profiles = now["profiles"].as_array().unwrap().clone();
    profiles.retain(|profile| profile["id"] == "sme");
    profiles[0]["tier"] = json!("dedicated");
    world(&platform, json!({ "profiles": profiles })).await;
    // And the busy one moves as proposed: nothing is left to say.
    let ran = platform
        .cli(&["tenant", "move", "busy", "--to", "schema"])
        .await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let view = look(&platform).await;
    let advice = advised(&view, "bank").unwrap_or_else(|| panic!("{view}"));
    assert_eq!(
        (&advice["tier"], &advice["criteria"]),
        (&json!("dedicated"), &json!(["compliance"])),
        "{advice}"
    );
    assert!(advised(&view, "busy").is_none(), "{view}");
    let trail = trail(&platform, "busy").await;
    assert_eq!(trail, ["advice.withdraw", "advice.open"]);
}

/// A bound that makes no sense would propose a database of its own to everybody.
#[tokio::test]
async fn thresholds_are_checked() {
    let platform = crate::support::shared().await;
    for (change, field) in [
        (json!({ "id": "shared" }), "thresholds.shared.id"),
        (
            json!({ "id": "schema", "rows": 0 }),
            "thresholds.schema.rows",
        ),
        (
            json!({ "id": "schema", "release_percent": 101 }),
            "thresholds.schema.release_percent",
        ),
        (
            json!({ "id": "schema", "window_hours": 0 }),
            "thresholds.schema.window_hours",
        ),
    ] {
        let world = json!({ "version": 1, "thresholds": [change] });
        let refused = platform.operate("PUT", "/world", Some(&world)).await;
        let problem = refused.expect(422);
        assert_eq!(problem["field"], field, "{problem}");
    }
}
