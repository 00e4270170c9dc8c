//! Idempotent requests and the login gate.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use waangu_kernel::Fault;
use waangu_registry::{LoginGate, Registry, StoredReply};
use waangu_testkit::{Control, connect};

use crate::support::{code, new_tenant, session, world};

/// A client that repeats a request after a time-out must not get two tenants, nor two bills.
#[tokio::test]
async fn one_key_is_carried_out_once() {
    let control = world().await;
    let (tell, mut done) = mpsc::unbounded_channel();
    let mut requests = JoinSet::new();
    for _ in 0..6 {
        let (registry, tell) = (control.registry.clone(), tell.clone());
        requests.spawn(async move {
            let (executed, reply) = request(&registry, "fingerprint").await?;
            tell.send(executed).expect("the test listens");
            Ok::<_, Fault>(reply)
        });
    }
    drop(tell);
    let mut replies = Vec::new();
    while let Some(reply) = requests.join_next().await {
        replies.push(reply.unwrap().unwrap());
    }
    replies.dedup();
    assert_eq!(replies.len(), 1, "{replies:?}");
    let mut executed = 0;
    while let Some(one) = done.recv().await {
        executed += i32::from(one);
    }
    assert_eq!(executed, 1);
}

/// A key used again for something else is a client's mistake that must not pass for success.
#[tokio::test]
async fn another_fingerprint_is_refused() {
    let control = world().await;
    request(&control.registry, "one").await.unwrap();
    let result = request(&control.registry, "two").await;
    assert_eq!(code(result), "idempotency-key-reused");
}

/// A request that failed must be repeatable with the same key.
#[tokio::test]
async fn a_failed_request_leaves_its_key_free() {
    let control = world().await;
    let mut session = session(&control).await;
    let tx = session.begin().await.unwrap();
    let first = tx.begin_idempotent("op", "key", "fingerprint").await;
    assert_eq!(first.unwrap(), None);
    drop(tx);
    let (executed, _) = request(&control.registry, "fingerprint").await.unwrap();
    assert!(executed);
}

/// Guessing passwords must become slow; the owner who remembers must get in at once.
#[tokio::test]
async fn the_gate_closes_with_doubling_pauses_and_opens_again() {
    let control = world().await;
    for _ in 0..5 {
        fail(&control).await;
        assert_eq!(gate(&control).await, LoginGate::Open);
    }
    for pause in [1, 2, 4, 8, 16] {
        fail(&control).await;
        assert_eq!(gate(&control).await, LoginGate::Closed(pause));
    }
    for _ in 0..15 {
        fail(&control).await;
    }
    assert_eq!(gate(&control).await, LoginGate::Closed(900), "the longest");

    // A day later the past is forgotten, in the gate as in the count.
    let admin = connect(&control.dsn).await.unwrap();
    let later = "update registry.login_attempt
                    set last_at = last_at - interval '25 hours'
                      , blocked_until = blocked_until - interval '25 hours'";
    admin.execute(later, &[]).await.unwrap();
    fail(&control).await;
    assert_eq!(gate(&control).await, LoginGate::Open);

    for _ in 0..6 {
        fail(&control).await;
    }
    assert_ne!(gate(&control).await, LoginGate::Open);
    let mut session = session(&control).await;
    let tx = session.begin().await.unwrap();
    tx.clear_login_failures("subject").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(gate(&control).await, LoginGate::Open);
}

/// Creates a tenant under the key `key`; says whether it did so itself.
async fn request(registry: &Registry, fingerprint: &str) -> Result<(bool, StoredReply), Fault> {
    let mut session = registry.session().await?;
    let tx = session.begin().await?;
    if let Some(reply) = tx.begin_idempotent("op", "key", fingerprint).await? {
        return Ok((false, reply));
    }
    // Long enough for the others to arrive.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let id = tx.create_tenant(&new_tenant("acme"), 0).await?;
    let reply = StoredReply {
        status: 202,
        location: Some(id.to_string()),
        body: id.to_string().into(),
    };
    tx.finish_idempotent("op", "key", &reply).await?;
    tx.commit().await?;
    Ok((true, reply))
}

async fn fail(control: &Control) {
    let mut session = session(control).await;
    let tx = session.begin().await.expect("begin");
    tx.record_login_failure("subject").await.expect("count");
    tx.commit().await.expect("commit");
}

async fn gate(control: &Control) -> LoginGate {
    let mut session = session(control).await;
    let tx = session.begin().await.expect("begin");
    tx.login_gate("subject").await.expect("ask the gate")
}
