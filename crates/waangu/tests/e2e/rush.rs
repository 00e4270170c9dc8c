//! Many at once, through the whole platform.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Shop, shared};

/// Two tills that sell the last bag: one customer would go home with nothing but a receipt.
#[tokio::test]
async fn a_hundred_sales_of_ten_bags_sell_ten() {
    let platform = shared().await;
    for tier in ["shared", "schema", "dedicated"] {
        let slug = format!("rush-{tier}");
        platform.tenant(&slug, tier).await;
        let shop = Shop::open(platform, &slug).await;
        let (product, place) = (shop.product("BAG").await, shop.place("SHOP").await);
        let receipt =
            json!({ "product": product, "to": place, "quantity": 10, "reason": "receipt" });
        shop.post("/moves", &receipt).await.expect(201);
        let sale = json!({ "product": product, "from": place, "quantity": 1, "reason": "sale" });
        let mut counts = BTreeMap::new();
        for answer in join_all((0..100).map(|_| shop.post("/moves", &sale))).await {
            if answer.status != 201 {
                answer.refused(409, "inventory.insufficient-stock");
            }
            *counts.entry(answer.status).or_insert(0) += 1;
        }
        assert_eq!(counts, BTreeMap::from([(201, 10), (409, 90)]), "{tier}");
        let stock = shop.get("/stock").await.expect(200);
        assert_eq!(stock["items"][0]["on_hand"], 0, "{tier}: {stock}");
        let moves = shop.get("/moves?limit=200").await.expect(200);
        assert_eq!(moves["items"].as_array().unwrap().len(), 11, "{tier}");
    }
}
