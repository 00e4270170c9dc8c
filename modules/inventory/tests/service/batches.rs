//! Batches: all or nothing, by their net effect.
use waangu_testkit::{StatusCode, Tier, Value, json};

use crate::support::World;

/// The largest batch, over many levels, twice with one key.
#[tokio::test]
async fn five_hundred_moves_are_one_event() {
    let world = World::new().await;
    let home = world.tenant(Tier::Shared).await;
    let shop = world.shop(&home, "manager");
    let mut products = Vec::new();
    for number in 0..50 {
        products.push(shop.product(&format!("P{number}")).await);
    }
    let (depot, store) = (shop.place("DEPOT").await, shop.place("STORE").await);
    let receipts = (0..250).map(|number| {
        json!({
            "product": products[number % 50], "to": depot, "quantity": 2, "reason": "receipt",
        })
    });
    let transfers = (0..250).map(|number| {
        json!({
            "product": products[number % 50], "from": depot, "to": store, "quantity": 1,
            "reason": "transfer", "reference": format!("T{number}"),
        })
    });
    let batch: Value = transfers.chain(receipts).collect();
    let first = shop.post_with_key("/moves/batch", "b", &batch).await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    let items = first.body["items"].as_array().unwrap();
    assert_eq!(items.len(), 500);
    for (number, item) in items.iter().enumerate().take(250) {
        assert_eq!(item["reference"], format!("T{number}"));
    }
    let again = shop.post_with_key("/moves/batch", "b", &batch).await;
    assert_eq!(again.body, first.body);
    let shorter: Value = batch.as_array().unwrap()[..499].iter().cloned().collect();
    let reused = shop.post_with_key("/moves/batch", "b", &shorter).await;
    reused.refused("422 idempotency-key-reused");

    let stock = shop.all("/stock", 33).await;
    assert_eq!(stock.len(), 100);
    assert!(stock.iter().all(|level| level["on_hand"] == 5));
    let journal = shop.all("/moves", 200).await;
    let backwards: Vec<_> = items.iter().rev().cloned().collect();
    assert_eq!(journal, backwards);
    shop.check_books().await;
}

/// One bad move keeps all the others from happening, and is named.
#[tokio::test]
async fn a_batch_is_all_or_nothing() {
    let world = World::new().await;
    let home = world.tenant(Tier::Shared).await;
    let shop = world.shop(&home, "manager");
    let product = shop.product("A").await;
    let (depot, store) = (shop.place("DEPOT").await, shop.place("STORE").await);
    let receipt = |quantity: i64| json!({ "product": product, "to": depot, "quantity": quantity, "reason": "receipt" });
    let sale = |place: &str, quantity: i64| json!({ "product": product, "from": place, "quantity": quantity, "reason": "sale" });
    let nowhere = "00000000-0000-4000-8000-000000000001";
    let refusals = [
        (
            json!([receipt(5), sale(&store, 1)]),
            "409 inventory.insufficient-stock [1].quantity",
        ),
        (
            json!([receipt(5), sale(&depot, 3), sale(&depot, 3)]),
            "409 inventory.insufficient-stock [1].quantity",
        ),
        (
            json!([receipt(5), sale(nowhere, 1)]),
            "422 inventory.place-unknown [1].from",
        ),
        (
            json!([receipt(5), receipt(0)]),
            "422 invalid-field [1].quantity",
        ),
        (
            json!([receipt(5), { "product": product }]),
            "400 malformed-json [1].quantity",
        ),
        (json!([]), "422 invalid-field"),
        (Value::Array(vec![receipt(1); 501]), "422 invalid-field"),
    ];
    for (batch, expected) in refusals {
        let answer = shop.post("/moves/batch", &batch).await;
        answer.refused(expected);
    }
    assert_eq!(shop.all("/moves", 50).await.len(), 0);
    assert!(shop.on_hand(&product, &depot).await.unwrap_or(0) == 0);

    // In this order the first sale would be refused; the day as a whole is in order.
    let day = json!([sale(&depot, 3), receipt(5), sale(&depot, 2)]);
    let day = shop.post("/moves/batch", &day).await;
    assert_eq!(day.status, StatusCode::CREATED, "{day:?}");
    assert_eq!(shop.on_hand(&product, &depot).await, Some(0));
    shop.check_books().await;
}
