//! The issuer's keys: rotation, outage, made-up key ids.

use std::sync::atomic::Ordering;
use std::time::Duration;

use waangu_gateway::Rate;
use waangu_identity::TokenIssuer;

use crate::stage::{self, Stage, signing_key};

const PRODUCTS: &str = "/api/inventory/products";

/// While the directory is down at our start, nobody is told that his token is bad; and when it comes
/// up, people get in within a moment.
#[tokio::test]
async fn a_late_directory_is_waited_for() {
    let stage = Stage::bare(|_limits| {}).await;
    let key = stage.published.lock().unwrap().take();
    stage.load();
    let got = stage.get(PRODUCTS).await;
    if got.status != 200 {
        assert_eq!(
            (got.status.as_u16(), got.code().as_str()),
            (503, "overloaded")
        );
    }
    *stage.published.lock().unwrap() = key;
    for _ in 0..50 {
        if stage.get(PRODUCTS).await.status == 200 {
            return stage.end().await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never let in");
}

/// Keys that were fetched once are served while the directory is down.
#[tokio::test]
async fn known_keys_survive_an_outage_of_the_directory() {
    let stage = Stage::new().await;
    assert_eq!(stage.get(PRODUCTS).await.status, 200);
    *stage.published.lock().unwrap() = None;
    let fresh = stage.token(stage.people.viewer, "acme");
    assert_eq!(
        stage.as_user(&fresh, "GET", "acme", PRODUCTS).await.status,
        200
    );
    stage.end().await;
}

/// Made-up key ids must not turn the gateway into a hammer on the directory, and their sender waits.
#[tokio::test]
async fn made_up_key_ids_cause_one_fetch_at_most() {
    let stage = Stage::with(|limits| limits.failed_token_rate = Rate::new(1, 20)).await;
    assert_eq!(stage.get(PRODUCTS).await.status, 200);
    let before = stage.control_seen.key_sets.load(Ordering::SeqCst);
    let claims = stage::claims(stage.people.admin, "acme");
    let mut limited = 0;
    for _ in 0..40 {
        let forged = TokenIssuer::new(signing_key()).issue(&claims).unwrap();
        let got = stage.as_user(&forged, "GET", "acme", PRODUCTS).await;
        match got.code().as_str() {
            "unauthenticated" => {}
            "rate-limited" => limited += 1,
            other => panic!("{other}"),
        }
    }
    assert!(limited >= 10, "{limited}");
    assert!(stage.control_seen.key_sets.load(Ordering::SeqCst) <= before + 1);
    // Known tokens of the same address are not held up.
    let known = stage.token(stage.people.admin, "acme");
    let got = stage.as_user(&known, "GET", "acme", PRODUCTS).await;
    assert!(matches!(got.status.as_u16(), 200 | 429), "{got:?}");
    stage.end().await;
}
