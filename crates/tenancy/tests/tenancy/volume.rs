//! What tenants hold is measured rightly, and cheaply.

use waangu_kernel::placement::Tier;

use crate::support::Home;

/// Rows of 900 bytes, in the order of their numbers, so that both tenants have parts of most pages.
async fn fill(home: &Home, other: &Home, rows: i64) {
    let client = home.superuser().await;
    let schema = home.schema();
    let sql = format!(
        "insert into {schema}.product (tenant_id, id, name)
         select case when g % 4 = 0 then $2::bigint else $1::bigint end, g, repeat('x', 900)
           from generate_series(1, $3::bigint) as g"
    );
    let (one, two) = (home.tenant.number(), other.tenant.number());
    client
        .execute(&sql, &[&one, &two, &rows])
        .await
        .expect("insert products");
}

/// The advisor would send the wrong client to an expensive database of its own, or read a terabyte to
/// find out.
#[tokio::test]
async fn each_tier_is_measured_within_bounds() {
    let shared = Home::new(Tier::Shared).await;
    let neighbour = shared.neighbour().await;
    fill(&shared, &neighbour, 24_000).await;
    let schema = Home::new(Tier::Schema).await;
    fill(&schema, &schema, 2_000).await;
    let dedicated = Home::new(Tier::Dedicated).await;
    fill(&dedicated, &dedicated, 2_000).await;

    let volumes = shared.cell.admin.measure_tenants().await.unwrap();
    let held = |home: &Home| volumes.tenants[&home.tenant.number()];

    let (large, small) = (held(&shared), held(&neighbour));
    let near = |value: Option<i64>, wanted: i64| {
        let value = value.unwrap();
        (value - wanted).abs() * 10 < wanted
    };
    assert!(near(large.rows, 18_000), "{large:?}");
    assert!(near(small.rows, 6_000), "{small:?}");
    assert!(large.bytes > 2 * small.bytes && small.bytes > 4_000_000);
    // The table has more pages than are read of it.
    assert!(volumes.pages >= 2_000, "{volumes:?}");
    assert!(volumes.pages < 6_000, "{volumes:?}");

    let own = held(&schema);
    assert!(own.bytes > 1_800_000 && own.bytes < 6_000_000, "{own:?}");
    let own = held(&dedicated);
    assert!(own.bytes > 1_800_000 && own.bytes < 9_000_000, "{own:?}");
    assert_eq!(own.rows, None);

    let client = shared.superuser().await;
    let sql = format!(
        "delete from {}.product where tenant_id = any ($1)",
        shared.schema()
    );
    let both = vec![shared.tenant.number(), neighbour.tenant.number()];
    client.execute(&sql, &[&both]).await.unwrap();
}
