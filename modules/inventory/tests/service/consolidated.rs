//! A head office's view of its group: over all tiers, page by page, and honest about who is missing.
use waangu_testkit::{GONE, Place, Placement, StatusCode, TenantId, Tier, Value, json};

use crate::support::World;

type Home = (TenantId, Placement);

fn slug(home: &Home) -> String {
    format!("t{}", home.0.number())
}

/// Where the gateway would say that they are.
fn places(homes: &[&Home]) -> Vec<Place> {
    let place = |home: &&Home| Place {
        cell: home.1.cell.clone(),
        tier: home.1.tier,
        bucket: home.1.bucket,
        tenants: vec![(home.0, slug(home).parse().unwrap())],
    };
    homes.iter().map(place).collect()
}

/// A head office in the shared tier, a shop in each of the others, and a stranger beside the head
/// office; all have the product `TV` (1, 10, 100 and 1000 of it) and each a product of its own.
async fn group(world: &World) -> [Home; 4] {
    let tiers = [Tier::Shared, Tier::Schema, Tier::Dedicated, Tier::Shared];
    let mut homes = Vec::new();
    for (tier, quantity) in tiers.into_iter().zip([1, 10, 100, 1000]) {
        let home = world.tenant(tier).await;
        let manager = world.shop(&home, "manager");
        let place = manager.place("MAIN").await;
        for sku in ["TV".to_owned(), format!("OWN-{quantity}")] {
            let product = manager.product(&sku).await;
            manager.receive(&product, &place, quantity).await;
        }
        homes.push(home);
    }
    let homes: [Home; 4] = homes.try_into().unwrap();
    let [head, schema, dedicated, stranger] = &homes;
    world.below(head, &[]).await;
    world.below(schema, &[head.0]).await;
    world.below(dedicated, &[head.0]).await;
    world.below(stranger, &[]).await;
    homes
}

/// The sum over a group is what a board of directors reads; it has to be the sum of the shops.
#[tokio::test]
async fn stock_is_the_sum_over_all_tiers_and_pages() {
    let world = World::new().await;
    let homes = group(&world).await;
    let [head, schema, dedicated, stranger] = &homes;
    let office = world.shop(head, "consolidator");
    let all = places(&[head, schema, dedicated, stranger]);
    let answer = office.consolidated("/consolidated/stock", &all[..3]).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.body["tenants"], 3);
    assert_eq!(answer.body["partial"], Value::Null);
    assert_eq!(answer.body["next"], Value::Null);
    let line = |sku: &str, on_hand: i64, tenants: i64| {
        json!({ "sku": sku, "name": format!("Product {sku}"), "unit": "piece",
                "on_hand": on_hand, "tenants": tenants })
    };
    let sums = json!([
        line("OWN-1", 1, 1),
        line("OWN-10", 10, 1),
        line("OWN-100", 100, 1),
        line("TV", 111, 3),
    ]);
    assert_eq!(answer.body["items"], sums);

    let mut items = Vec::new();
    let mut after = String::new();
    for page in 1.. {
        let path = format!("/consolidated/stock?limit=1{after}");
        let answer = office.consolidated(&path, &all[..3]).await;
        items.extend(answer.body["items"].as_array().unwrap().clone());
        let Some(next) = answer.body["next"].as_str() else {
            assert_eq!(page, 4);
            break;
        };
        after = format!("&after={next}");
    }
    assert_eq!(Value::from(items), sums);

    // A place that should not be on the list gives nothing, and is named.
    let answer = office.consolidated("/consolidated/stock", &all).await;
    assert_eq!(answer.body["items"], sums);
    let failed = json!({ "failed": [{ "tenants": [slug(stranger)], "why": "tenant-moving" }] });
    assert_eq!(answer.body["partial"], failed);
    // A shop's own view ends with itself.
    let shop = world.shop(schema, "consolidator");
    let answer = shop.consolidated("/consolidated/stock", &all).await;
    assert_eq!(answer.body["tenants"], 1);
    assert_eq!(
        answer.body["items"],
        json!([line("OWN-10", 10, 1), line("TV", 10, 1)])
    );
}

/// A list over several tenants that skips a line, or shows one twice, is worse than none.
#[tokio::test]
async fn levels_come_page_by_page_with_their_tenant() {
    let world = World::new().await;
    let homes = group(&world).await;
    let [head, schema, dedicated, _] = &homes;
    let office = world.shop(head, "consolidator");
    let all = places(&[head, schema, dedicated]);
    let mut expected = Vec::new();
    for home in [head, schema, dedicated] {
        for mut level in world.shop(home, "viewer").all("/stock", 50).await {
            level["tenant"] = Value::from(slug(home));
            expected.push(level);
        }
    }
    expected.sort_by_key(|level| level["product"].as_str().unwrap().to_owned());
    for limit in [1, 2, 5, 50] {
        let mut items = Vec::new();
        let mut after = String::new();
        loop {
            let path = format!("/consolidated/levels?limit={limit}{after}");
            let answer = office.consolidated(&path, &all).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            let found = answer.body["items"].as_array().unwrap();
            assert!(found.len() <= limit);
            items.extend(found.iter().cloned());
            match answer.body["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        assert_eq!(items, expected, "limit {limit}");
    }
}

/// A sum without a country must say so: somebody decides by it.
#[tokio::test]
async fn who_cannot_answer_is_named() {
    let world = World::new().await;
    let homes = group(&world).await;
    let [head, schema, dedicated, _] = &homes;
    let office = world.shop(head, "consolidator");
    let mut all = places(&[head, schema, dedicated]);
    let abroad: TenantId = "ten_900000001".parse().unwrap();
    all.push(Place {
        cell: GONE.parse().unwrap(),
        tier: Tier::Shared,
        bucket: 0,
        tenants: vec![(abroad, "abroad".parse().unwrap())],
    });
    world.stop(dedicated).await;
    let answer = office.consolidated("/consolidated/stock", &all).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.body["tenants"], 2);
    assert_eq!(
        answer.body["items"].as_array().unwrap().last().unwrap()["on_hand"],
        11
    );
    let failed = answer.body["partial"]["failed"].as_array().unwrap();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0]["why"], "database-unavailable");
    let mut missing: Vec<&str> = failed[0]["tenants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|slug| slug.as_str().unwrap())
        .collect();
    missing.sort_unstable();
    let mut expected = vec!["abroad".to_owned(), slug(dedicated)];
    expected.sort_unstable();
    assert_eq!(missing, expected);
    // Nothing at all is not an empty list.
    let answer = office.consolidated("/consolidated/stock", &all[2..]).await;
    answer.refused("503 database-unavailable");
}

/// The permission is one of its own, and the two scopes don't mix.
#[tokio::test]
async fn the_scope_has_its_own_permission_and_context() {
    let world = World::new().await;
    let head = world.tenant(Tier::Shared).await;
    world.below(&head, &[]).await;
    let here = places(&[&head]);
    for role in ["viewer", "clerk", "manager", "nobody"] {
        let answer = world.shop(&head, role);
        let answer = answer.consolidated("/consolidated/stock", &here).await;
        answer.refused("403 permission-denied");
    }
    let office = world.shop(&head, "consolidator");
    office
        .get("/consolidated/stock")
        .await
        .refused("403 context-refused");
    office
        .consolidated("/stock", &here)
        .await
        .refused("403 context-refused");
    for (query, field) in [
        ("limit=0", "limit"),
        ("after=x", "after"),
        ("place=x", "place"),
    ] {
        let path = format!("/consolidated/stock?{query}");
        let answer = office.consolidated(&path, &here).await;
        assert_eq!(answer.body["field"], field, "{answer:?}");
    }
}

/// The longest context that the gateway sends must fit through the module's door.
#[tokio::test]
async fn a_context_of_32_kib_is_taken() {
    let world = World::new().await;
    let head = world.tenant(Tier::Shared).await;
    world.below(&head, &[]).await;
    let mut here = places(&[&head]);
    for number in 0..700 {
        let id = TenantId::new(900_000_000 + number).unwrap();
        let slug = format!("a-shop-{number}").parse().unwrap();
        here[0].tenants.push((id, slug));
    }
    let office = world.shop(&head, "consolidator");
    let answer = office.consolidated("/consolidated/stock", &here).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let failed = &answer.body["partial"]["failed"][0]["tenants"];
    assert_eq!(failed.as_array().unwrap().len(), 700);
}
