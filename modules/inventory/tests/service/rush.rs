//! Many at once.

use std::collections::{BTreeMap, HashSet};

use futures_util::future::join_all;
use waangu_testkit::{Answer, Tier, Value, json};

use crate::support::World;

fn statuses(answers: &[Answer]) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry(answer.status.as_u16()).or_insert(0) += 1;
    }
    counts
}

/// A hundred want one of sixty: sixty get it.
#[tokio::test]
async fn a_hundred_at_once_never_go_below_zero() {
    let world = World::new().await;
    for tier in Tier::ALL {
        let home = world.tenant(tier).await;
        let shop = world.shop(&home, "manager");
        let (product, place) = (shop.product("A").await, shop.place("A").await);
        shop.receive(&product, &place, 60).await;
        let sale = json!({ "product": product, "from": place, "quantity": 1, "reason": "sale" });
        let sales = (0..100).map(|_| shop.with_role("clerk").post("/moves", &sale));
        let answers = join_all(sales).await;
        let expected = BTreeMap::from([(201, 60), (409, 40)]);
        assert_eq!(statuses(&answers), expected, "{tier}: {answers:?}");
        assert_eq!(shop.on_hand(&product, &place).await, Some(0));
        assert_eq!(shop.all("/moves", 200).await.len(), 61);
        shop.check_books().await;
    }
}

/// Transfers and batches that cross each other, over levels that partly do not exist yet: none ends
/// in a deadlock, and nothing is lost on the way.
#[tokio::test]
async fn opposite_moves_do_not_block_each_other() {
    let world = World::new().await;
    let home = world.tenant(Tier::Shared).await;
    let shop = world.shop(&home, "manager");
    let mut products = Vec::new();
    let mut places = Vec::new();
    for number in 0..4 {
        products.push(shop.product(&format!("P{number}")).await);
        places.push(shop.place(&format!("L{number}")).await);
    }
    for product in &products {
        shop.receive(product, &places[0], 1000).await;
    }
    let transfer = |seed: usize| {
        let (from, to) = (seed % 4, (seed / 4) % 4);
        let to = if from == to { (to + 1) % 4 } else { to };
        json!({
            "product": products[(seed / 16) % 4], "from": places[from], "to": places[to],
            "quantity": 1 + seed % 3, "reason": "transfer",
        })
    };
    let rush = (0..120_usize).map(|round| async move {
        // 7 and 64 have no common factor: the batches cross the levels in many orders.
        let batch: Value = (0..20)
            .map(|step| transfer(round * 11 + step * 7))
            .collect();
        if round % 3 == 0 {
            shop.post("/moves", &transfer(round)).await
        } else {
            shop.post("/moves/batch", &batch).await
        }
    });
    let answers = join_all(rush).await;
    let counts = statuses(&answers);
    assert!(
        counts.keys().all(|status| [201, 409].contains(status)),
        "{counts:?}: {answers:?}"
    );
    assert!(counts.contains_key(&201), "{counts:?}");
    let stock = shop.all("/stock", 200).await;
    let total: i64 = stock
        .iter()
        .filter_map(|level| level["on_hand"].as_i64())
        .sum();
    assert_eq!(total, 4000, "transfers change no total");
    shop.check_books().await;
}

/// Thirty copies of one request, the first ever for its level: one move.
#[tokio::test]
async fn one_key_at_once_moves_once() {
    let world = World::new().await;
    let home = world.tenant(Tier::Shared).await;
    let shop = world.shop(&home, "manager");
    let (product, place) = (shop.product("A").await, shop.place("A").await);
    let receipt = json!({ "product": product, "to": place, "quantity": 7, "reason": "receipt" });
    let sale = json!({ "product": product, "from": place, "quantity": 7, "reason": "sale" });
    for (key, body, left) in [("in", receipt, 7), ("out", sale, 0)] {
        let copies = (0..30).map(|_| shop.post_with_key("/moves", key, &body));
        let answers = join_all(copies).await;
        let ids: HashSet<String> = answers.iter().map(Answer::id).collect();
        assert_eq!(ids.len(), 1, "{key}");
        assert_eq!(shop.on_hand(&product, &place).await, Some(left), "{key}");
    }
    let new = json!({ "sku": "B", "name": "b" });
    let copies = (0..30).map(|_| shop.post_with_key("/products", "new", &new));
    let ids: HashSet<String> = join_all(copies).await.iter().map(Answer::id).collect();
    assert_eq!(ids.len(), 1);
    shop.check_books().await;
}

/// One key for ten different requests, which share no level and so do not wait for each other: one is
/// done, the others are told so.
#[tokio::test]
async fn one_key_for_many_requests_serves_one() {
    let world = World::new().await;
    let home = world.tenant(Tier::Shared).await;
    let shop = world.shop(&home, "manager");
    let place = shop.place("A").await;
    let mut receipts = Vec::new();
    for number in 0..10 {
        let product = shop.product(&format!("P{number}")).await;
        shop.receive(&product, &place, 1).await;
        receipts.push(json!({
            "product": product, "to": place, "quantity": 1, "reason": "receipt",
        }));
    }
    let posts = receipts
        .iter()
        .map(|body| shop.post_with_key("/moves", "k", body));
    let answers = join_all(posts).await;
    let expected = BTreeMap::from([(201, 1), (422, 9)]);
    assert_eq!(statuses(&answers), expected, "{answers:?}");
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        answer.refused("422 idempotency-key-reused");
    }
    let total: i64 = shop
        .all("/stock", 50)
        .await
        .iter()
        .filter_map(|level| level["on_hand"].as_i64())
        .sum();
    assert_eq!(total, 11);
    shop.check_books().await;
}
