//! What a tenant's plan allows.
use std::collections::BTreeMap;

use futures_util::future::join_all;
use waangu_testkit::{Answer, StatusCode, Tier, Value, Values, json};

use crate::support::{Shop, World};

fn values(pairs: &[(&str, Value)]) -> Values {
    let owned = pairs.iter().cloned();
    owned.map(|(key, value)| (key.to_owned(), value)).collect()
}

async fn product(shop: Shop<'_>, number: usize) -> Answer {
    let body = json!({ "sku": format!("P{number}"), "name": "P" });
    let key = format!("k{number}");
    shop.post_with_key("/products", &key, &body).await
}

/// A client would get more than it pays for by asking for several at once; or could not repeat a
/// request whose answer was lost.
#[tokio::test]
async fn the_last_place_is_given_once() {
    let world = World::new().await;
    let five = values(&[("inventory.products", json!(5))]);
    let ten = values(&[("inventory.products", json!(10))]);
    for tier in Tier::ALL {
        let home = world.tenant(tier).await;
        let neighbour = world.neighbour(&home).await;
        let small = world.shop(&home, "manager").with_flags(&five);
        let large = world.shop(&neighbour, "manager").with_flags(&ten);
        let (few, many) = tokio::join!(
            join_all((0..12).map(|number| product(small, number))),
            join_all((0..12).map(|number| product(large, number))),
        );
        for (answers, limit) in [(&few, 5), (&many, 10)] {
            let mut counts = BTreeMap::new();
            for answer in answers {
                *counts.entry(answer.status.as_u16()).or_insert(0) += 1;
            }
            assert_eq!(
                counts,
                BTreeMap::from([(201, limit), (409, 12 - limit)]),
                "{tier}"
            );
        }
        // Repeated, each gets its first answer.
        for (number, first) in few.iter().enumerate() {
            let again = product(small, number).await;
            assert_eq!(
                (again.status, &again.body),
                (first.status, &first.body),
                "{tier}"
            );
        }
        let full = few
            .iter()
            .find(|answer| answer.status == StatusCode::CONFLICT);
        full.unwrap().refused("409 limit-reached sku");
        // Without the limit there is room again.
        let free = world.shop(&home, "manager");
        free.product("MORE").await;
    }
}

/// What is off must be off at the module too, not only out of sight.
#[tokio::test]
async fn a_flag_switches_a_route_off() {
    let world = World::new().await;
    let home = world.tenant(Tier::Shared).await;
    let shop = world.shop(&home, "manager");
    let (product, place) = (shop.product("A").await, shop.place("A").await);
    let one = json!({ "product": product, "to": place, "quantity": 1, "reason": "receipt" });
    let off = values(&[("inventory.batch_moves", json!(false))]);
    let limited = shop.with_flags(&off);
    let refused = limited.post("/moves/batch", &json!([one])).await;
    refused.refused("403 inventory.batch-off");
    assert_eq!(
        limited.post("/moves", &one).await.status,
        StatusCode::CREATED
    );
    let batch = shop.post("/moves/batch", &json!([one])).await;
    assert_eq!(batch.status, StatusCode::CREATED);
}
