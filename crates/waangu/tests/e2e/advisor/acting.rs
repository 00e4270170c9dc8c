//! The advisor on a running platform follows its own proposals, as far as the policy lets it.

use std::time::Duration;

use serde_json::{Value, json};

use super::{advised, look, world};
use crate::support::{Folder, Platform, Shop, until};

/// From how many rows on the schema tier is proposed.
const BOUND: usize = 20;

/// Longest wait for something that is done by itself.
const LIMIT: Duration = Duration::from_mins(1);

/// Longer than from one look for something to do to the next.
const IDLE: Duration = Duration::from_secs(7);

fn policy(change: &Value) -> Value {
    let mut policy = json!({ "id": "global", "act": "move", "quiet_hours": 24 });
    let fields = policy.as_object_mut().unwrap();
    fields.extend(change.as_object().unwrap().clone());
    json!({ "advisor": [policy] })
}

/// Tenants of the shared tier, two of whom are above the bound.
async fn platform() -> Platform {
    let platform = Platform::start(Folder::new(), &["--http-port", "0"]).await;
    let volume = json!({ "thresholds": [{ "id": "schema", "rows": BOUND, "hold_minutes": 0 }] });
    world(&platform, volume).await;
    for (slug, products) in [("large", 2 * BOUND), ("big", 2 * BOUND), ("small", 1)] {
        platform.tenant(slug, "shared").await;
        let shop = Shop::open(&platform, slug).await;
        shop.sees(200, None).await;
        for number in 0..products {
            shop.product(&format!("SKU-{number}")).await;
        }
    }
    platform
}

async fn moves(platform: &Platform, slug: &str) -> Vec<Value> {
    let path = format!("/tenants/{slug}/relocations");
    let list = platform.operate("GET", &path, None).await.expect(200);
    list["items"].as_array().unwrap().clone()
}

async fn view(platform: &Platform) -> Value {
    platform.operate("GET", "/advisor", None).await.expect(200)
}

fn acts(view: &Value) -> Vec<&Value> {
    view["acts"].as_array().unwrap().iter().collect()
}

/// The first of the two large tenants whose move is done.
async fn first(platform: &Platform) -> Value {
    until("somebody has been moved by itself", LIMIT, async || {
        for slug in ["large", "big"] {
            let all = moves(platform, slug).await;
            let done = all.into_iter().find(|one| one["phase"] == "done");
            if done.is_some() {
                return done;
            }
        }
        None
    })
    .await
}

/// Whoever allows it sees in the diff what it is that is allowed.
async fn shown_before_it_is_allowed(platform: &Platform, policy: &Value) {
    let mut declared = policy.clone();
    declared["version"] = json!(1);
    let path = "/world?dry_run=true";
    let dry = platform.operate("PUT", path, Some(&declared)).await;
    let dry = dry.expect(200);
    let changes = dry["changes"].as_array().unwrap();
    let change = changes.iter().find(|change| change["kind"] == "policy");
    let change = change.unwrap_or_else(|| panic!("{dry}"));
    let [action, id] = ["action", "id"].map(|field| &change[field]);
    assert_eq!((action, id), (&json!("add"), &json!("global")), "{change}");
}

/// Why somebody has moved is told to who asks later.
async fn explained(platform: &Platform, slug: &str) {
    let ran = platform.cli(&["tenant", "explain", slug]).await;
    for said in [
        "tier schema: moved by advisor",
        "40 rows; tier schema from 20 on",
    ] {
        assert!(ran.stdout.contains(said), "{said}: {ran:?}");
    }
    let ran = platform.cli(&["tenant", "moves", slug]).await;
    for said in ["advisor", "volume: 40"] {
        assert!(ran.stdout.contains(said), "{said}: {ran:?}");
    }
}

/// Who would sleep while a tenant outgrows its place; or wake up because all of them were moved at once,
/// or one again and again.
#[tokio::test]
async fn who_outgrows_its_place_is_moved_by_itself_if_the_policy_says_so() {
    let platform = platform().await;
    let seen = look(&platform).await;
    let advice = advised(&seen, "large").unwrap_or_else(|| panic!("{seen}"));
    assert_eq!(advice["held"], "policy global only proposes", "{advice}");
    tokio::time::sleep(IDLE).await;
    assert!(moves(&platform, "large").await.is_empty());

    let one_a_day = policy(&json!({ "most_per_day": 1 }));
    shown_before_it_is_allowed(&platform, &one_a_day).await;
    world(&platform, one_a_day).await;
    let done = first(&platform).await;
    let [actor, tier] = [&done["actor"], &done["to"]["tier"]];
    assert_eq!(
        (actor, tier),
        (&json!("advisor"), &json!("schema")),
        "{done}"
    );
    let slug = done["tenant"].as_str().unwrap();
    let other = if slug == "large" { "big" } else { "large" };
    explained(&platform, slug).await;
    Shop::open(&platform, slug).await.product("AFTER").await;

    // One a day was said; and there is nothing more to say about who has moved.
    let seen = look(&platform).await;
    assert!(advised(&seen, slug).is_none(), "{seen}");
    let advice = advised(&seen, other).unwrap_or_else(|| panic!("{seen}"));
    assert_eq!(advice["held"], "policy global: 1 of 1 moves within a day");
    assert_eq!((&seen["policy"], acts(&seen).len()), (&json!("move"), 1));
    assert_eq!(acts(&seen)[0]["outcome"], "done", "{seen}");
    for slug in [other, "small"] {
        assert!(moves(&platform, slug).await.is_empty(), "{slug}");
    }
}

/// A refusal that nobody hears of leaves a tenant where it is; one that is repeated each few seconds is
/// heard of by nobody.
#[tokio::test]
async fn a_refusal_is_told_once() {
    let platform = platform().await;
    let seen = look(&platform).await;
    assert!(advised(&seen, "large").is_some(), "{seen}");
    // Closed after the look, so that only the move itself finds it.
    let state = platform.operate("GET", "/world", None).await.expect(200);
    let mut cells = state["cells"].as_array().unwrap().clone();
    for cell in &mut cells {
        cell["state"] = json!("full");
    }
    let mut change = policy(&json!({}));
    change["cells"] = json!(cells);
    world(&platform, change).await;
    until("both refusals are told", LIMIT, async || {
        let view = view(&platform).await;
        let refused = |act: &&&Value| act["outcome"] == "refused";
        (acts(&view).iter().filter(refused).count() == 2).then_some(())
    })
    .await;
    tokio::time::sleep(IDLE).await;
    let seen = view(&platform).await;
    assert_eq!(acts(&seen).len(), 2, "{seen}");
    let held = advised(&seen, "large").unwrap()["held"].to_string();
    assert!(held.contains("tried at"), "{held}");
    assert!(moves(&platform, "large").await.is_empty());
}

/// A policy that is misspelt would move, or hold, somebody else.
#[tokio::test]
async fn policies_are_checked() {
    let platform = crate::support::shared().await;
    for (change, field) in [
        (json!({ "id": "everybody" }), "advisor.everybody.id"),
        (json!({ "id": "cell/nowhere" }), "advisor.cell/nowhere.id"),
        (json!({ "act": "act" }), "advisor.global.act"),
        (json!({ "from_hour": 24 }), "advisor.global.from_hour"),
        (json!({ "most_per_day": 0 }), "advisor.global.most_per_day"),
        (json!({ "quiet_hours": 0 }), "advisor.global.quiet_hours"),
    ] {
        let mut world = policy(&change);
        world["version"] = json!(1);
        let refused = platform.operate("PUT", "/world", Some(&world)).await;
        let problem = refused.expect(422);
        assert_eq!(problem["field"], field, "{problem}");
    }
}
