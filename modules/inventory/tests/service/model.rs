//! Random tenants in random tiers do random things with each other's ids, beside a plain model of what
//! should come of it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use waangu_testkit::{Home, Tier, Value, json};

use crate::support::{Shop, World};

const TENANTS: usize = 4;

#[derive(Debug, Clone)]
enum Op {
    /// A product; it has a number instead of a name.
    Create {
        who: usize,
        sku: usize,
    },
    /// The rest takes the product of `whose`, which need not be one's own.
    Rename {
        who: usize,
        whose: usize,
        sku: usize,
        name: u8,
    },
    Look {
        who: usize,
        whose: usize,
        sku: usize,
    },
    Receive {
        who: usize,
        whose: usize,
        sku: usize,
        quantity: i64,
    },
    List {
        who: usize,
    },
}

/// What a tenant should have.
#[derive(Debug, Default)]
struct Books {
    place: String,
    products: BTreeMap<usize, Product>,
}

#[derive(Debug)]
struct Product {
    id: String,
    name: String,
    on_hand: i64,
}

fn op() -> impl Strategy<Value = Op> {
    let (who, whose, sku) = (0..TENANTS, 0..TENANTS, 0..4_usize);
    let named = (who.clone(), whose, sku.clone());
    prop_oneof![
        3 => (who.clone(), sku).prop_map(|(who, sku)| Op::Create { who, sku }),
        2 => (named.clone(), any::<u8>())
            .prop_map(|((who, whose, sku), name)| Op::Rename { who, whose, sku, name }),
        2 => named.clone().prop_map(|(who, whose, sku)| Op::Look { who, whose, sku }),
        3 => (named, 1..100_i64)
            .prop_map(|((who, whose, sku), quantity)| Op::Receive { who, whose, sku, quantity }),
        1 => who.prop_map(|who| Op::List { who }),
    ]
}

fn tier() -> impl Strategy<Value = Tier> {
    prop::sample::select(Tier::ALL.to_vec())
}

/// One row that crosses is the end of the platform. `PROPTEST_RNG_SEED` repeats a run.
#[test]
fn nothing_crosses_whatever_tenants_do() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(World::new());
    let config = Config {
        cases: 12,
        failure_persistence: None,
        ..Config::default()
    };
    let tenants = prop::collection::vec(tier(), TENANTS);
    let ops = prop::collection::vec(op(), 40);
    let result = TestRunner::new(config).run(&(tenants, ops), |(tiers, ops)| {
        runtime.block_on(play(&world, &tiers, &ops));
        Ok(())
    });
    // Before the runtime that drives it.
    drop(world);
    result.unwrap_or_else(|failed| panic!("{failed}"));
}

async fn play(world: &World, tiers: &[Tier], ops: &[Op]) {
    let mut homes: Vec<Home> = Vec::new();
    for tier in tiers {
        let neighbour = homes.iter().find(|home| home.1.tier == *tier);
        let home = match neighbour {
            Some(home) => world.neighbour(home).await,
            None => world.tenant(*tier).await,
        };
        homes.push(home);
    }
    let shops: Vec<Shop<'_>> = homes
        .iter()
        .map(|home| world.shop(home, "manager"))
        .collect();
    let mut books = Vec::new();
    for shop in &shops {
        books.push(Books {
            place: shop.place("HERE").await,
            ..Books::default()
        });
    }
    for op in ops {
        step(&shops, &mut books, op).await;
    }
    for (shop, books) in shops.iter().zip(&books) {
        check(*shop, books).await;
        shop.check_books().await;
    }
}

async fn step(shops: &[Shop<'_>], books: &mut [Books], op: &Op) {
    match *op {
        Op::Create { who, sku } => {
            let name = format!("Product {sku} of {who}");
            let body = json!({ "sku": format!("S{sku}"), "name": name });
            let answer = shops[who].post("/products", &body).await;
            if books[who].products.contains_key(&sku) {
                return answer.refused("409 inventory.sku-taken sku");
            }
            let product = Product {
                id: answer.id(),
                name,
                on_hand: 0,
            };
            books[who].products.insert(sku, product);
        }
        Op::Rename {
            who,
            whose,
            sku,
            name,
        } => {
            let Some(product) = books[whose].products.get_mut(&sku) else {
                return;
            };
            let name = format!("Renamed {name} by {who}");
            let path = format!("/products/{}", product.id);
            let answer = shops[who].patch(&path, &json!({ "name": name })).await;
            if who != whose {
                return answer.refused("404 inventory.product-not-found");
            }
            assert_eq!(answer.body["name"], name, "{answer:?}");
            product.name = name;
        }
        Op::Look { who, whose, sku } => {
            let Some(product) = books[whose].products.get(&sku) else {
                return;
            };
            let answer = shops[who].get(&format!("/products/{}", product.id)).await;
            if who != whose {
                return answer.refused("404 inventory.product-not-found");
            }
            assert_eq!(answer.body["name"], product.name, "{answer:?}");
        }
        Op::Receive {
            who,
            whose,
            sku,
            quantity,
        } => {
            let place = books[who].place.clone();
            let Some(product) = books[whose].products.get_mut(&sku) else {
                return;
            };
            if who == whose {
                shops[who].receive(&product.id, &place, quantity).await;
                product.on_hand += quantity;
                return;
            }
            let body = json!({
                "product": product.id, "to": place, "quantity": quantity, "reason": "receipt",
            });
            let answer = shops[who].post("/moves", &body).await;
            answer.refused("422 inventory.product-unknown product");
        }
        Op::List { who } => check(shops[who], &books[who]).await,
    }
}

/// Everything that a tenant can list, against its books.
async fn check(shop: Shop<'_>, books: &Books) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let seen: Vec<_> = shop.all("/products", 3).await;
    let seen: Vec<_> = seen
        .iter()
        .map(|p| (text(&p["id"]), text(&p["name"])))
        .collect();
    let expected = books.products.values();
    let expected: Vec<_> = expected.map(|p| (p.id.clone(), p.name.clone())).collect();
    assert_eq!(seen, expected);
    let stock = shop.all("/stock", 3).await;
    let stock: BTreeMap<_, _> = stock
        .iter()
        .map(|level| (text(&level["product"]), level["on_hand"].as_i64().unwrap()))
        .collect();
    let expected = books.products.values().filter(|p| p.on_hand > 0);
    let expected: BTreeMap<_, _> = expected.map(|p| (p.id.clone(), p.on_hand)).collect();
    assert_eq!(stock, expected);
}
