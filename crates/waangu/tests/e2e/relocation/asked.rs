//! What is asked for while a tenant moves, and moves of tenants that are not as usual.

use std::time::Duration;

use serde_json::json;

use super::hold::Stage;
use super::{Ledger, MOVE, begin, ended, moved, no_debris, placement, platform};
use crate::fleet::{deploy, id, settled, versions};
use crate::support::{Session, Shop, until};

/// An upgrade that ran into a move would change tables under the copy; one that was forgotten would leave the
/// tenant on the old version for good, and nobody would know why.
#[tokio::test]
async fn an_upgrade_that_is_asked_for_during_a_move_waits_for_its_end() {
    let platform = platform().await;
    platform.tenant("mover", "schema").await;
    let ledger = Ledger::open(&platform, "mover").await;
    let stage = Stage::of(&platform, "mover").await;
    ledger.write(10).await;
    let hold = stage.keep_from_freezing().await;
    let path = begin(&platform, "mover", json!({ "tier": "dedicated" })).await;
    stage.reaches("following").await;
    deploy(
        &platform,
        "9.1.0",
        "alter table product add column note text",
    )
    .await;
    let rollout = crate::fleet::begin(&platform, json!({})).await;
    let address = format!("/rollouts/{}", id(&rollout));
    let told = async || {
        let answer = platform.operate("GET", &address, None).await;
        let waits = answer.status == 200
            && answer.json()["failures"][0]["error"] == "waits for the end of a move";
        waits.then_some(())
    };
    until(
        "the rollout says why it waits",
        Duration::from_secs(20),
        told,
    )
    .await;
    assert_ne!(versions(&platform).await[0].1, "9.1.0");
    drop(hold);
    let end = ended(&platform, &path).await;
    assert_eq!(end["phase"], "done", "{end:#}");
    let over = settled(&platform, id(&rollout)).await;
    assert_eq!(over["state"], "succeeded", "{over:#}");
    assert_eq!(versions(&platform).await[0].1, "9.1.0");
    ledger.write(3).await;
    ledger.check().await;
    no_debris(&platform).await;
}

/// A tenant that was closed for not paying would be open again at its new place.
#[tokio::test]
async fn a_suspended_tenant_moves_and_stays_suspended() {
    let platform = platform().await;
    platform.tenant("mover", "shared").await;
    let ledger = Ledger::open(&platform, "mover").await;
    let stage = Stage::of(&platform, "mover").await;
    ledger.write(10).await;
    let change = |what: &str| format!("/tenants/mover/{what}");
    platform.change("POST", &change("suspend"), None).await;
    for tier in ["dedicated", "schema", "shared"] {
        moved(&platform, "mover", json!({ "tier": tier })).await;
        let tenant = platform.operate("GET", "/tenants/mover", None).await;
        assert_eq!(tenant.expect(200)["state"], "suspended");
        assert_eq!(stage.open_doors().await, 0, "{tier}");
    }
    platform.change("POST", &change("resume"), None).await;
    assert_eq!(stage.open_doors().await, 1);
    ledger.check().await;
    no_debris(&platform).await;
}

/// A cell is emptied before its server is switched off: whoever is forgotten there is lost, and whoever may
/// not leave has to be known by name.
#[tokio::test]
async fn a_drained_cell_is_left_by_everybody_who_may_leave() {
    let platform = platform().await;
    let tiers = ["shared", "schema", "dedicated"];
    let mut ledgers = Vec::new();
    for tier in tiers {
        platform.tenant(tier, tier).await;
        ledgers.push(Ledger::open(&platform, tier).await);
    }
    let wish =
        json!({ "slug": "ministry", "name": "ministry", "country": "SN", "profile": "government" });
    platform.change("POST", "/tenants", Some(&wish)).await;
    let cell = placement(&platform, "ministry").await["cell"].clone();
    for ledger in &ledgers {
        ledger.write(5).await;
    }
    let drain = format!("/cells/{}/drain", cell.as_str().unwrap());
    let answer = platform.operate("POST", &drain, None).await.expect(200);
    assert_eq!(answer["remaining"], 4, "{answer:#}");
    for one in answer["tenants"].as_array().unwrap() {
        let stays = one["tenant"] == "ministry";
        assert_eq!(one["target"].is_null(), stays, "{one:#}");
        assert!(!one["reasons"].as_array().unwrap().is_empty(), "{one:#}");
    }
    for slug in tiers {
        let path = format!("/tenants/{slug}/relocations");
        let list = platform.operate("GET", &path, None).await.expect(200);
        let id = list["items"][0]["id"].as_str().unwrap();
        let end = ended(&platform, &format!("{path}/{id}")).await;
        assert_eq!(end["phase"], "done", "{end:#}");
        let place = placement(&platform, slug).await;
        assert_ne!(place["cell"], cell, "{place}");
        assert_eq!(place["tier"], slug, "the tier stays: {place}");
    }
    assert_eq!(placement(&platform, "ministry").await["cell"], cell);
    let again = platform.operate("POST", &drain, None).await.expect(200);
    assert_eq!(again["remaining"], 1, "{again:#}");
    assert_eq!(again["tenants"][0]["tenant"], "ministry");
    for ledger in &ledgers {
        ledger.write(2).await;
        ledger.check().await;
    }
    no_debris(&platform).await;
}

/// A control database that is restored from before a move knows the old place only. Opened again, it would
/// be an empty shop beside the real one, and what is written there would be lost.
#[tokio::test]
async fn a_registry_that_is_older_than_a_move_opens_nothing() {
    let platform = platform().await;
    platform.tenant("mover", "shared").await;
    let ledger = Ledger::open(&platform, "mover").await;
    let stage = Stage::of(&platform, "mover").await;
    ledger.write(5).await;
    moved(&platform, "mover", json!({ "tier": "dedicated" })).await;
    let registry = Session::open(&platform.ready.control_dsn).await;
    let sql = "select count(*) from registry.relocation where cleaned_at is not null";
    until("the old place is emptied", MOVE, async || {
        (registry.number(sql).await == 1).then_some(())
    })
    .await;
    // As it was then, but for what does not matter here.
    let forget = "update registry.tenant
                     set tier = 'shared', bucket = 0, epoch = 1, generation = generation + 1
                   where slug = 'mover'";
    registry.rows(forget, &[]).await;
    let refused = async || {
        let sql = "select coalesce(last_error, '') from registry.tenant where slug = 'mover'";
        let said = registry.texts(sql).await;
        said[0].contains("has left").then_some(())
    };
    until("the reconciler says why not", MOVE, refused).await;
    assert_eq!(stage.open_doors().await, 1, "at the real place");
    let answer = Shop::open(&platform, "mover").await.get("/products").await;
    assert_ne!(answer.status, 200, "no empty shop is shown");

    let restored = "update registry.tenant
                       set tier = 'dedicated', epoch = 2, generation = generation + 1
                     where slug = 'mover'";
    registry.rows(restored, &[]).await;
    Shop::open(&platform, "mover").await.sees(200, None).await;
    ledger.check().await;
}
