//! A request that is sent again because its answer was lost.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Answer, Platform, Session, shared};

async fn create(platform: &Platform, key: &str, wish: &Value) -> Answer {
    platform
        .http()
        .post(&platform.admin("/tenants"))
        .token(&platform.ready.admin.token)
        .header("idempotency-key", key)
        .header("prefer", "wait=15")
        .json(wish)
        .send()
        .await
}

/// An impatient button, eight times: the client is onboarded, and billed, once.
#[tokio::test]
async fn one_key_makes_one_tenant_however_often_it_is_sent() {
    let platform = shared().await;
    let wish = json!({ "slug": "once", "name": "Once", "country": "SN", "tier": "dedicated" });
    let copies = (0..8).map(|_| create(platform, "one-key", &wish));
    let mut operations = BTreeSet::new();
    let mut bodies = BTreeSet::new();
    for answer in join_all(copies).await {
        let accepted = answer.expect(202);
        assert_eq!(accepted["status"], "succeeded", "{accepted}");
        let id = accepted["id"].as_str().unwrap();
        let location = format!("/admin/v1/operations/{id}");
        assert_eq!(answer.header("location"), Some(location.as_str()));
        operations.insert(id.to_owned());
        bodies.insert(answer.text.clone());
    }
    assert_eq!((operations.len(), bodies.len()), (1, 1), "{bodies:?}");

    // Later, and for a client that does not wait, the answer is the same.
    let later = create(platform, "one-key", &wish).await;
    later.expect(202);
    assert_eq!(Some(&later.text), bodies.first());

    let registry = Session::open(&platform.ready.control_dsn).await;
    let count = "select count(*) from registry.tenant where slug = 'once'";
    assert_eq!(registry.number(count).await, 1);
    let count = "select count(*) from registry.operation o
                   join registry.tenant t on t.id = o.tenant_id where t.slug = 'once'";
    assert_eq!(registry.number(count).await, 1);
    let audited = platform.operate("GET", "/audit?tenant=once", None).await;
    let audited = audited.expect(200);
    assert_eq!(audited["items"].as_array().unwrap().len(), 1, "{audited}");
}

/// Without a key the second request is a mistake, and must not look like a success.
#[tokio::test]
async fn without_a_key_the_second_is_refused() {
    let platform = shared().await;
    let wish = json!({ "slug": "twice", "name": "Twice", "country": "SN" });
    let copies = (0..6).map(|_| platform.operate("POST", "/tenants", Some(&wish)));
    let answers = join_all(copies).await;
    let (accepted, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == 202);
    assert_eq!(accepted.len(), 1, "{answers:?}");
    for answer in refused {
        answer.refused(409, "slug-taken");
    }
}

/// A repeated "create user" whose first answer was lost must not fail, and must not show the password
/// again that somebody may have overheard.
#[tokio::test]
async fn a_made_password_is_answered_once() {
    let platform = shared().await;
    platform.tenant("keys", "shared").await;
    let user = json!({ "username": "made", "roles": ["inventory.viewer"] });
    let send = || async {
        let url = platform.admin("/tenants/keys/users");
        let call = platform.http().post(&url);
        let call = call.token(&platform.ready.admin.token).json(&user);
        call.header("idempotency-key", "user-1")
            .send()
            .await
            .expect(201)
    };
    let (first, second) = (send().await, send().await);
    let password = first["password"].as_str().unwrap();
    assert_eq!(first["id"], second["id"]);
    assert!(second["password"].is_null(), "{second}");
    platform.sign_in("made@keys", password).await;
}
