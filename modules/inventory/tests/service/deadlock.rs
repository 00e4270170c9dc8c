//! Somebody outside the module locks in another order.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use waangu_testkit::{StatusCode, Tier, connect, json};

use crate::support::World;

/// Longest wait for anything here; PostgreSQL looks for deadlocks after a second.
const PATIENCE: Duration = Duration::from_secs(20);

/// Somebody repairs levels by hand and crosses a request: PostgreSQL rolls the request back, and its
/// user should get what was asked for all the same, once.
#[tokio::test]
async fn a_move_that_was_rolled_back_for_anothers_sake_is_done() {
    let world = World::new().await;
    let home = world.tenant(Tier::Shared).await;
    let shop = world.shop(&home, "manager");
    let (place, mut products) = (shop.place("A").await, Vec::new());
    for sku in ["P1", "P2"] {
        let product = shop.product(sku).await;
        shop.receive(&product, &place, 10).await;
        products.push(product);
    }
    // The order of the module's locks; ours is the other one.
    products.sort();
    let dsn = world.cell.superuser_dsn(&home.1.database(home.0));
    let (repair, onlooker) = (connect(&dsn).await.unwrap(), connect(&dsn).await.unwrap());
    let lock = |product: &str, more: &str| {
        format!(
            "select from inventory.stock_level
              where tenant_id = {} and product_id = '{product}' for update {more}",
            home.0.number()
        )
    };
    // The module is the one that looks for a circle, so it is the one that is rolled back.
    let begin = "begin; set local deadlock_timeout = '60s'; ";
    let begin = format!("{begin}{}", lock(&products[1], ""));
    repair.batch_execute(&begin).await.unwrap();

    let sale = |product| {
        json!({
            "product": product, "from": place, "quantity": 1, "reason": "sale",
        })
    };
    let batch = json!([sale(&products[0]), sale(&products[1])]);
    let cross = async {
        let taken = lock(&products[0], "nowait");
        while onlooker.batch_execute(&taken).await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
        // The module has the first and waits for the second. This is granted when it gives up.
        let wanted = lock(&products[0], "");
        repair.batch_execute(&wanted).await.unwrap();
        repair.batch_execute("commit").await.unwrap();
    };
    let both = async { tokio::join!(shop.post("/moves/batch", &batch), cross) };
    let (answer, ()) = timeout(PATIENCE, both).await.unwrap();
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    for product in &products {
        assert_eq!(shop.on_hand(product, &place).await, Some(9));
    }
    shop.check_books().await;
}
