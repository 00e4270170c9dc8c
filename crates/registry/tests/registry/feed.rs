//! The change feed: gateways miss nothing, whatever order transactions commit in.
//!
//! A row may come twice: any open transaction on the server (here, of other tests) holds the mark
//! back. So the tests say what must be read, and not how often.

use std::collections::BTreeMap;
use std::time::Duration;

use waangu_registry::{Desired, Feed, RouteChange, State};

use crate::support::{create, parsed, session, stock, world};

/// A transaction that commits late would be overtaken, and a suspended client served for ever.
#[tokio::test]
async fn nothing_is_missed_when_commits_overtake_each_other() {
    let control = world().await;
    let (mut a, mut b) = (session(&control).await, session(&control).await);
    let mut feed = Feed::connect(&control.gateway_dsn).await.unwrap();
    let one = create(&mut a, "one").await.unwrap();
    let two = create(&mut a, "two").await.unwrap();
    let tx = a.begin().await.unwrap();
    for id in [one, two] {
        tx.record_reached(id, 1, State::Active, &[], &[])
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
    let all = active(&mut feed).await;
    assert!(all["one"] && all["two"]);

    let early = a.begin().await.unwrap();
    early.want_tenant(one, Desired::Suspended).await.unwrap();
    let late = b.begin().await.unwrap();
    late.want_tenant(two, Desired::Suspended).await.unwrap();
    late.commit().await.unwrap();
    assert!(!active(&mut feed).await["two"]);
    // Still open: read again, so that the mark has every chance to run past it.
    feed.read().await.unwrap();
    early.commit().await.unwrap();
    assert!(!active(&mut feed).await["one"], "overtaken and lost");
}

/// Roles, modules and users change what a gateway allows; a revoked role must not live on.
#[tokio::test]
async fn everything_that_a_route_shows_marks_it() {
    let control = world().await;
    let mut session = session(&control).await;
    let id = create(&mut session, "acme").await.unwrap();
    let mut feed = Feed::connect(&control.gateway_dsn).await.unwrap();
    assert!(!active(&mut feed).await["acme"]);

    let tx = session.begin().await.unwrap();
    let user = tx
        .create_user(id, &parsed("awa"), "Awa", "hash")
        .await
        .unwrap();
    tx.put_roles(id, user, &[parsed("stock.clerk")])
        .await
        .unwrap();
    tx.put_activation(id, &stock(), true).await.unwrap();
    tx.record_reached(id, 1, State::Active, &[stock()], &[])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let changes = feed.read().await.unwrap();
    let [RouteChange::Put(route)] = changes.as_slice() else {
        panic!("{changes:?}");
    };
    assert!(route.active);
    assert_eq!(route.modules, [stock()]);
    assert_eq!(route.grants[&user], [parsed("stock.clerk")]);

    let tx = session.begin().await.unwrap();
    tx.put_roles(id, user, &[]).await.unwrap();
    tx.commit().await.unwrap();
    let changes = feed.read().await.unwrap();
    let [RouteChange::Put(route)] = changes.as_slice() else {
        panic!("{changes:?}");
    };
    assert!(route.grants.is_empty());

    let tx = session.begin().await.unwrap();
    tx.record_reached(id, 2, State::Deleted, &[], &[])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let changes = feed.read().await.unwrap();
    assert_eq!(changes, [RouteChange::Gone(id, parsed("acme"))]);
}

/// A gateway hears of a change when it happens, not at the next poll, and of nothing rolled back. Of a
/// tenant on its way it is not told, or it would read at each step of each onboarding.
#[tokio::test]
async fn a_commit_wakes_the_reader() {
    let control = world().await;
    let mut session = session(&control).await;
    let mut feed = Feed::connect(&control.gateway_dsn).await.unwrap();
    feed.read().await.unwrap();
    create(&mut session, "acme").await.unwrap();
    let woken = async |feed: &mut Feed, longest| {
        let changed = tokio::time::timeout(longest, feed.changed()).await;
        changed.map(Result::unwrap).is_ok()
    };
    assert!(!woken(&mut feed, Duration::from_millis(200)).await);
    let id = feed
        .read()
        .await
        .unwrap()
        .iter()
        .find_map(|change| match change {
            RouteChange::Put(route) => Some(route.id),
            RouteChange::Gone(..) => None,
        });
    let tx = session.begin().await.unwrap();
    tx.record_reached(id.unwrap(), 1, State::Active, &[], &[])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert!(woken(&mut feed, Duration::from_secs(2)).await);
    assert!(active(&mut feed).await["acme"]);
    let tx = session.begin().await.unwrap();
    tx.want_tenant(id.unwrap(), Desired::Suspended)
        .await
        .unwrap();
    drop(tx);
    assert!(active(&mut feed).await.values().all(|active| *active));
}

/// A gateway that starts reads for a while; who is suspended meanwhile must not be served until the next
/// restart.
#[tokio::test]
async fn what_changes_during_a_whole_read_is_not_missed() {
    let control = world().await;
    let mut session = session(&control).await;
    let one = create(&mut session, "one").await.unwrap();
    create(&mut session, "two").await.unwrap();
    let mut feed = Feed::connect(&control.gateway_dsn).await.unwrap();
    let part = feed.read_part().await.unwrap().unwrap();
    assert_eq!(part.len(), 2);
    let tx = session.begin().await.unwrap();
    tx.record_reached(one, 1, State::Active, &[], &[])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(feed.read_part().await.unwrap(), None);
    assert!(active(&mut feed).await["one"]);
}

/// The tenants that the feed tells of, and whether they are served.
async fn active(feed: &mut Feed) -> BTreeMap<String, bool> {
    feed.read()
        .await
        .expect("read the feed")
        .into_iter()
        .map(|change| match change {
            RouteChange::Put(route) => (route.slug.to_string(), route.active),
            RouteChange::Gone(_, slug) => (slug.to_string(), false),
        })
        .collect()
}
