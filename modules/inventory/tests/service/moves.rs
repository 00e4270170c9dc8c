//! Moves on their own.
use waangu_testkit::{StatusCode, Tier, Value, json};

use crate::support::World;

const NOBODY: &str = "00000000-0000-4000-8000-000000000001";

/// Stock follows from moves, in every tier alike.
#[tokio::test]
async fn moves_change_stock_in_every_tier() {
    let world = World::new().await;
    for tier in Tier::ALL {
        let home = world.tenant(tier).await;
        let shop = world.shop(&home, "manager");
        let product = shop.product("A").await;
        let (depot, store) = (shop.place("DEPOT").await, shop.place("STORE").await);
        let body = json!({
            "product": product, "from": null, "to": depot, "quantity": 10, "reason": "receipt",
            "reference": "PO-1", "moved_at": "2026-01-31T23:30:00.5+01:00",
        });
        let received = shop.post("/moves", &body).await;
        let path = format!("/moves/{}", received.id());
        assert_eq!(received.location, Some(format!("/api/inventory{path}")));
        assert_eq!(received.body["moved_at"], "2026-01-31T22:30:00.5Z");
        assert!(received.body["actor"].as_str().unwrap().starts_with("usr_"));
        assert_eq!(shop.get(&path).await.body, received.body);
        let transfer = json!({
            "product": product, "from": depot, "to": store, "quantity": 4, "reason": "transfer",
        });
        shop.post("/moves", &transfer).await.id();
        let sale = json!({ "product": product, "from": store, "quantity": 3, "reason": "sale" });
        shop.post("/moves", &sale).await.id();

        let stock = shop.all("/stock", 1).await;
        let shown = |level: &Value| (level["code"].clone(), level["on_hand"].clone());
        let shown: Vec<_> = stock.iter().map(shown).collect();
        assert_eq!(
            shown,
            [(json!("DEPOT"), json!(6)), (json!("STORE"), json!(1))],
            "{tier}"
        );
        assert_eq!(
            shop.all(&format!("/stock?product={product}"), 1).await,
            stock
        );
        let there = shop.all(&format!("/stock?place={store}"), 1).await;
        assert_eq!(there, stock[1..]);
        assert_eq!(shop.on_hand(&product, &depot).await, Some(6));
        assert_eq!(shop.on_hand(NOBODY, &depot).await, None);

        let journal = shop.all("/moves", 2).await;
        let quantities: Vec<_> = journal.iter().map(|entry| &entry["quantity"]).collect();
        assert_eq!(quantities, [3, 4, 10], "the latest comes first");
        assert_eq!(
            shop.all(&format!("/moves?product={product}"), 1).await,
            journal
        );
        let none = shop.all(&format!("/moves?product={NOBODY}"), 1).await;
        assert_eq!(none, [Value::Null; 0]);
        shop.check_books().await;
    }
}

/// Each refusal says why, and moves nothing.
#[tokio::test]
async fn what_cannot_move_is_refused() {
    let world = World::new().await;
    let home = world.tenant(Tier::Shared).await;
    let shop = world.shop(&home, "manager");
    let product = shop.product("A").await;
    let (depot, store) = (shop.place("DEPOT").await, shop.place("STORE").await);
    shop.receive(&product, &depot, 5).await;
    let full = json!({
        "product": product, "from": depot, "to": store, "quantity": 5, "reason": "transfer",
    });
    let with = |changes: Value| {
        let mut body = full.clone();
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    let refusals = [
        (
            json!({ "quantity": 6 }),
            "409 inventory.insufficient-stock quantity",
        ),
        (
            json!({ "from": store, "to": null }),
            "409 inventory.insufficient-stock quantity",
        ),
        (
            json!({ "product": NOBODY }),
            "422 inventory.product-unknown product",
        ),
        (
            json!({ "from": NOBODY }),
            "422 inventory.place-unknown from",
        ),
        (json!({ "to": NOBODY }), "422 inventory.place-unknown to"),
        (json!({ "from": null, "to": null }), "422 invalid-field to"),
        (json!({ "to": depot }), "422 invalid-field to"),
        (json!({ "quantity": 0 }), "422 invalid-field quantity"),
        (
            json!({ "quantity": i64::MAX }),
            "422 invalid-field quantity",
        ),
        (json!({ "quantity": 1.5 }), "400 malformed-json quantity"),
        (json!({ "reason": "theft" }), "400 malformed-json reason"),
        (json!({ "reference": "" }), "422 invalid-field reference"),
        (
            json!({ "moved_at": "yesterday" }),
            "400 malformed-json moved_at",
        ),
        (
            json!({ "moved_at": "0026-01-01T00:00:00Z" }),
            "422 invalid-field moved_at",
        ),
    ];
    for (changes, expected) in refusals {
        let answer = shop.post("/moves", &with(changes)).await;
        answer.refused(expected);
    }
    let short = shop.post("/moves", &with(json!({ "quantity": 6 }))).await;
    assert_eq!(
        short.body["detail"],
        "product `A` at place `DEPOT`: 5 on hand, 6 asked for"
    );
    assert_eq!(shop.on_hand(&product, &depot).await, Some(5));
    assert_eq!(shop.all("/moves", 50).await.len(), 1);
    shop.check_books().await;
}

/// The same key gives the same answer and moves nothing twice; another body is not swallowed.
#[tokio::test]
async fn one_key_moves_once() {
    let world = World::new().await;
    let home = world.tenant(Tier::Shared).await;
    let shop = world.shop(&home, "manager");
    let (product, place) = (shop.product("A").await, shop.place("A").await);
    let body = json!({
        "product": product, "to": place, "quantity": 3, "reason": "receipt",
        "moved_at": "2026-01-31T00:00:00.123456789Z",
    });
    let first = shop.post_with_key("/moves", "k", &body).await;
    let again = shop.post_with_key("/moves", "k", &body).await;
    assert_eq!(again.status, StatusCode::CREATED);
    assert_eq!(
        (&again.body, &again.location),
        (&first.body, &first.location)
    );
    assert_eq!(shop.on_hand(&product, &place).await, Some(3));

    let mut other = body.clone();
    other["quantity"] = json!(4);
    let reused = shop.post_with_key("/moves", "k", &other).await;
    reused.refused("422 idempotency-key-reused");
    let reused = shop
        .post_with_key("/moves/batch", "k", &json!([body]))
        .await;
    reused.refused("422 idempotency-key-reused");
    assert_eq!(shop.on_hand(&product, &place).await, Some(3));

    // The last piece is sold: the repeat is no second sale of what is not there any more.
    let sale = json!({ "product": product, "from": place, "quantity": 3, "reason": "sale" });
    let first = shop.post_with_key("/moves", "s", &sale).await;
    let again = shop.post_with_key("/moves", "s", &sale).await;
    assert_eq!(again.id(), first.id());
    shop.check_books().await;
}
