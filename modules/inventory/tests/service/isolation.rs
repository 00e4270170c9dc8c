//! The isolation contract of the platform, for this module, in all three tiers.

use waangu_testkit::contract::{Example, Seeded, withstand};
use waangu_testkit::{Caller, Method, Value, Values, json};

/// A head office asks one neighbour for another's stock: no answer may tell that it is there.
#[tokio::test]
async fn the_module_withstands_the_contract() {
    withstand(env!("CARGO_BIN_EXE_waangu-inventory"), seed).await;
}

/// A product at two places, brought in and moved on, all named after the secret.
pub(crate) async fn seed(caller: Caller<'_>, secret: &str) -> Seeded {
    let product = json!({ "sku": format!("SKU-{secret}"), "name": format!("Product {secret}") });
    // With a limit, so that the turns are taken, too.
    let limit = Values::from([("inventory.products".to_owned(), json!(1000))]);
    let limited = caller.with_flags(&limit);
    let product = limited.post("/products", &product).await.id();
    let mistake = json!({ "sku": format!("TYPO-{secret}"), "name": format!("Typo {secret}") });
    let mistake = caller.post("/products", &mistake).await.id();
    let place = async |code: &str| {
        let body = json!({ "code": format!("{code}-{secret}"), "name": "Place", "kind": "store" });
        caller.post("/places", &body).await.id()
    };
    let (depot, store) = (place("DEPOT").await, place("STORE").await);
    let receipt = json!({
        "product": product, "to": depot, "quantity": 10, "reason": "receipt", "reference": secret,
    });
    let receipt = caller.post("/moves", &receipt).await.id();
    let transfer = json!({
        "product": product, "from": depot, "to": store, "quantity": 1, "reason": "transfer",
    });
    let write = |route, body: &Value| Example::write(Method::POST, route, route, body.clone());
    let get = |route: &'static str, query: &str| Example::get(route, format!("{route}{query}"));
    let by_id = |route: &'static str, id: &str| Example::get(route, route.replace("{id}", id));
    let examples = vec![
        get("/products", ""),
        get("/places", ""),
        get("/stock", ""),
        get("/stock", &format!("?product={product}&place={depot}")),
        get("/stock", &format!("?place={depot}")),
        get("/moves", ""),
        get("/moves", &format!("?product={product}")),
        get("/consolidated/stock", ""),
        get("/consolidated/levels", ""),
        by_id("/products/{id}", &product),
        by_id("/places/{id}", &depot),
        by_id("/moves/{id}", &receipt),
        write("/products", &json!({ "sku": "NEW", "name": "New" })),
        write(
            "/places",
            &json!({ "code": "NEW", "name": "New", "kind": "store" }),
        ),
        write("/moves", &transfer),
        write("/moves/batch", &json!([transfer])),
        Example::write(
            Method::PATCH,
            "/products/{id}",
            format!("/products/{product}"),
            json!({ "name": "Changed" }),
        ),
        Example::write(
            Method::DELETE,
            "/products/{id}",
            format!("/products/{mistake}"),
            json!({}),
        ),
    ];
    Seeded {
        examples,
        ids: vec![product, mistake, depot, store, receipt],
        secret: secret.to_owned(),
    }
}
