//! Products and places, and who may see them.
use waangu_testkit::{Method, StatusCode, Tier, Value, json};

use crate::support::World;

const NOBODY: &str = "00000000-0000-4000-8000-000000000001";

/// A product is found again as it was created, and changes only where it was asked to.
#[tokio::test]
async fn a_product_is_created_read_and_changed() {
    let world = World::new().await;
    let home = world.tenant(Tier::Shared).await;
    let shop = world.shop(&home, "manager");
    let body = json!({
        "sku": "RIZ-25", "name": "Riz brisé 25 kg", "unit": "sac",
        "price_minor": 17_500, "currency": "XOF",
    });
    let created = shop.post("/products", &body).await;
    let id = created.id();
    let path = format!("/products/{id}");
    let location = format!("/api/inventory{path}");
    assert_eq!(created.location, Some(location));
    for field in ["sku", "name", "unit", "price_minor", "currency"] {
        assert_eq!(created.body[field], body[field], "{field}");
    }
    assert_eq!(shop.get(&path).await.body, created.body);

    let change = json!({ "name": "Riz 25 kg", "price_minor": 18_000 });
    let changed = shop.patch(&path, &change).await;
    assert_eq!(changed.status, StatusCode::OK);
    let mut expected = created.body;
    expected["name"] = json!("Riz 25 kg");
    expected["price_minor"] = json!(18_000);
    assert_eq!(changed.body, expected);
    assert_eq!(shop.get(&path).await.body, expected);
    let half = shop.patch(&path, &json!({ "price_minor": null })).await;
    half.refused("422 invalid-field currency");
    let free = json!({ "price_minor": null, "currency": null });
    let free = shop.patch(&path, &free).await;
    assert_eq!(free.body["price_minor"], Value::Null, "{free:?}");
    let gone = shop.patch(&format!("/products/{NOBODY}"), &change).await;
    gone.refused("404 inventory.product-not-found");
    let gone = shop.get(&format!("/products/{NOBODY}")).await;
    gone.refused("404 inventory.product-not-found");
}

/// A mistake is taken back; a product that was moved stays, or the journal would name nobody.
#[tokio::test]
async fn only_a_product_without_a_history_is_deleted() {
    let world = World::new().await;
    let home = world.tenant(Tier::Shared).await;
    let shop = world.shop(&home, "manager");
    let mistake = format!("/products/{}", shop.product("TYPO").await);
    assert_eq!(shop.delete(&mistake).await.status, StatusCode::NO_CONTENT);
    let again = shop.delete(&mistake).await;
    again.refused("404 inventory.product-not-found");
    shop.product("TYPO").await;

    let moved = shop.product("RIZ").await;
    let place = shop.place("HQ").await;
    let receipt = json!({ "product": moved, "to": place, "quantity": 1, "reason": "receipt" });
    shop.post("/moves", &receipt).await.id();
    let moved = format!("/products/{moved}");
    let kept = shop.delete(&moved).await;
    kept.refused("409 inventory.product-in-use");
    assert_eq!(shop.get(&moved).await.status, StatusCode::OK);
    let reader = world.shop(&home, "viewer").delete(&moved).await;
    reader.refused("403 permission-denied");
}

/// Each mistake is named by code and field; none becomes an internal error.
#[tokio::test]
async fn mistakes_are_named() {
    let world = World::new().await;
    let home = world.tenant(Tier::Shared).await;
    let shop = world.shop(&home, "manager");
    shop.product("A").await;
    shop.place("HQ").await;
    let products = [
        (
            json!({ "sku": "A", "name": "b" }),
            "409 inventory.sku-taken sku",
        ),
        (json!({ "sku": "", "name": "b" }), "422 invalid-field sku"),
        (
            json!({ "sku": "a\u{0}b", "name": "b" }),
            "422 invalid-field sku",
        ),
        (
            json!({ "sku": "b", "name": "b", "price_minor": 1 }),
            "422 invalid-field currency",
        ),
        (
            json!({ "sku": "b", "name": "b", "price_minor": -1, "currency": "XOF" }),
            "422 invalid-field price_minor",
        ),
        (
            json!({ "sku": "b", "name": "b", "price_minor": 1, "currency": "xof" }),
            "422 invalid-field currency",
        ),
        (
            json!({ "sku": "b", "name": "b", "color": 1 }),
            "400 unknown-field color",
        ),
        (json!({ "sku": 1, "name": "b" }), "400 malformed-json sku"),
    ];
    for (body, expected) in products {
        let answer = shop.post("/products", &body).await;
        answer.refused(expected);
    }
    let taken = json!({ "code": "HQ", "name": "b", "kind": "store" });
    let taken = shop.post("/places", &taken).await;
    taken.refused("409 inventory.place-code-taken code");
    let kind = json!({ "code": "b", "name": "b", "kind": "moon" });
    let kind = shop.post("/places", &kind).await;
    kind.refused("400 malformed-json kind");
    let gone = shop.get(&format!("/places/{NOBODY}")).await;
    gone.refused("404 inventory.place-not-found");

    let bad = shop.get("/products/42").await;
    assert_eq!(bad.body["code"], "invalid-field");
    let queries = [
        ("/products?limit=0", "limit"),
        ("/products?limit=201", "limit"),
        ("/products?limit=ten", "limit"),
        ("/products?color=red", "color"),
        ("/products?after=%00", "after"),
        ("/stock?after=x", "after"),
        ("/stock?product=x", "product"),
        ("/moves?after=x", "after"),
    ];
    for (path, field) in queries {
        let answer = shop.get(path).await;
        answer.refused(&format!("422 invalid-field {field}"));
    }
    shop.get("/nowhere").await.refused("404 route-not-found");
    let method = shop.patch("/places", &json!({})).await;
    method.refused("405 method-not-allowed");
}

/// A page that repeats or skips a row is worse than none.
#[tokio::test]
async fn lists_are_complete_and_in_order() {
    let world = World::new().await;
    let home = world.tenant(Tier::Shared).await;
    let shop = world.shop(&home, "manager");
    for number in (0..12).rev() {
        shop.product(&format!("P{number:02}")).await;
        shop.place(&format!("L{number:02}")).await;
    }
    for limit in [1, 5, 12, 200] {
        let products = shop.all("/products", limit).await;
        let places = shop.all("/places", limit).await;
        for (number, (product, place)) in products.iter().zip(&places).enumerate() {
            assert_eq!(product["sku"], format!("P{number:02}"));
            assert_eq!(place["code"], format!("L{number:02}"));
        }
        assert_eq!((products.len(), places.len()), (12, 12), "limit {limit}");
    }
}

/// A client that lost the answer sends the same POST again.
#[tokio::test]
async fn a_repeated_post_creates_once() {
    let world = World::new().await;
    let home = world.tenant(Tier::Shared).await;
    let shop = world.shop(&home, "manager");
    let posts = [
        ("/products", json!({ "sku": "A", "name": "a" }), "sku"),
        (
            "/places",
            json!({ "code": "A", "name": "a", "kind": "store" }),
            "code",
        ),
    ];
    for (path, body, name) in posts {
        let first = shop.post_with_key(path, "k-1", &body).await;
        let again = shop.post_with_key(path, "k-1", &body).await;
        assert_eq!(again.status, StatusCode::CREATED);
        assert_eq!(
            (&again.body, &again.location),
            (&first.body, &first.location)
        );
        let mut other = body.clone();
        other[name] = json!("B");
        let other = shop.post_with_key(path, "k-1", &other).await;
        other.refused("422 idempotency-key-reused");
        let fresh = shop.post_with_key(path, "k-2", &body).await;
        assert_eq!(fresh.status, StatusCode::CONFLICT);
        assert_eq!(shop.all(path, 50).await.len(), 1);
        let bad = shop.post_with_key(path, "", &body).await;
        bad.refused("400 idempotency-key-invalid Idempotency-Key");
    }
}

/// What a role lacks, and whatever did not come through the gateway, is refused.
#[tokio::test]
async fn roles_and_contexts_are_enforced() {
    let world = World::new().await;
    let home = world.tenant(Tier::Shared).await;
    let manager = world.shop(&home, "manager");
    let (product, place) = (manager.product("A").await, manager.place("A").await);
    let receipt = json!({ "product": product, "to": place, "quantity": 1, "reason": "receipt" });
    let new = json!({ "sku": "B", "name": "b" });
    for (role, may_move) in [("viewer", false), ("clerk", true), ("nobody", false)] {
        let shop = manager.with_role(role);
        let denied = shop.post("/products", &new).await;
        denied.refused("403 permission-denied");
        let moved = shop.post("/moves", &receipt).await;
        assert_eq!(moved.status == StatusCode::CREATED, may_move, "{role}");
        let seen = shop.get("/stock").await;
        assert_eq!(seen.status == StatusCode::OK, role != "nobody", "{role}");
    }
    let bare = world.send(&Method::GET, "/products", &[], None).await;
    bare.refused("403 context-refused");
    let forged = [("waangu-context", "a.b.c")];
    let forged = world.send(&Method::GET, "/products", &forged, None).await;
    forged.refused("403 context-refused");
}

/// Two tenants of one table: the same codes, and nothing of each other.
#[tokio::test]
async fn tenants_do_not_meet() {
    let world = World::new().await;
    let (ours, theirs) = (
        world.tenant(Tier::Shared).await,
        world.tenant(Tier::Shared).await,
    );
    let (ours, theirs) = (world.shop(&ours, "manager"), world.shop(&theirs, "manager"));
    let (product, place) = (ours.product("A").await, ours.place("A").await);
    ours.receive(&product, &place, 5).await;
    let (their_product, their_place) = (theirs.product("A").await, theirs.place("A").await);

    let stolen = theirs.get(&format!("/products/{product}")).await;
    stolen.refused("404 inventory.product-not-found");
    for path in ["/stock", "/moves"] {
        assert_eq!(theirs.all(path, 50).await, [Value::Null; 0], "{path}");
    }
    let sale = |product: &str, place: &str| json!({ "product": product, "from": place, "quantity": 1, "reason": "sale" });
    let stolen = theirs.post("/moves", &sale(&product, &their_place)).await;
    stolen.refused("422 inventory.product-unknown product");
    let stolen = theirs.post("/moves", &sale(&their_product, &place)).await;
    stolen.refused("422 inventory.place-unknown from");
    assert_eq!(ours.on_hand(&product, &place).await, Some(5));
}
