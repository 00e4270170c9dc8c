//! Upgrades of many namespaces: quick where nothing is wrong, and never at the price of a rule.

use tokio_postgres::Client;
use waangu_kernel::placement::Tier;
use waangu_tenancy::admin::{UpgradeLimits, Upgraded};
use waangu_tenancy::{ModulePackage, Rules, inspect};

use crate::support::{Home, code, package};

const FIRST: &str = "
create table product (
    tenant_id bigint not null default waangu.tenant()
  , id bigint not null
  , name text not null
  , primary key (tenant_id, id)
);
create table movement (
    tenant_id bigint not null default waangu.tenant()
  , id bigint not null
  , primary key (tenant_id, id)
);
create view named with (security_invoker = true) as select tenant_id, id, name from product";

fn with(second: &str) -> ModulePackage {
    package("stock", &["movement"], &[FIRST, second])
}

/// A schema-tier tenant that has the first migration.
async fn first() -> Home {
    let home = Home::bare(Tier::Schema).await;
    let (admin, tenant, placement) = (&home.cell.admin, home.tenant, &home.placement);
    let package = package("stock", &["movement"], &[FIRST]);
    admin.ensure_place(tenant, placement).await.unwrap();
    admin
        .ensure_module(tenant, placement, &package)
        .await
        .unwrap();
    home
}

async fn upgrade(home: &Home, package: &ModulePackage) -> Result<Upgraded, waangu_kernel::Fault> {
    let limits = UpgradeLimits {
        lock: std::time::Duration::from_millis(100),
        ..UpgradeLimits::default()
    };
    let admin = &home.cell.admin;
    let mut upgrader = admin.upgrader(&home.database(), package, limits).await?;
    upgrader.upgrade(&home.schema(), 1).await
}

/// What has drifted in the home's own schema.
async fn drifts(client: &Client, home: &Home, package: &ModulePackage) -> Vec<String> {
    let rules = Rules::new([&package.manifest]);
    let found = inspect::inspect(client, &rules).await.unwrap();
    let own = found
        .iter()
        .filter(|drift| drift.object.contains(&home.schema()));
    own.map(|drift| format!("{}: {}", drift.object, drift.found))
        .collect()
}

/// The quick way must leave what the slow way leaves, whatever a migration does to a table on the way:
/// one that keeps its own policy or gives a right away would be a hole in one tenant of thousands.
#[tokio::test]
async fn every_rule_holds_after_an_upgrade() {
    let plain = "alter table product add column note text; create index product_note on product (tenant_id, note)";
    let bent = [
        plain,
        "create table extra (tenant_id bigint not null, id bigint not null, primary key (tenant_id, id))",
        "drop policy tenant on product",
        "drop policy tenant on product; create policy tenant on product for select using (true)",
        "drop policy tenant on product; create policy tenant on product for select
           using (tenant_id = (select waangu.tenant() as tenant) or id = 7)",
        "alter policy tenant_insert on product with check (tenant_id > 0)",
        "alter policy tree on product to waangu_owner",
        "alter table product disable row level security",
        "grant truncate on product to public",
        "grant update on movement to waangu_stock",
        "grant insert (id) on named to waangu_stock",
        "revoke select on product from waangu_stock",
        "grant select on product to waangu_stock with grant option",
        "drop view named; create view named with (security_invoker = true) as select 1 as one",
        "update product set name = 'x'",
    ];
    for second in bent {
        let home = first().await;
        let package = with(second);
        let done = upgrade(&home, &package).await;
        let done = done.unwrap_or_else(|fault| panic!("{second}: {fault:?}"));
        assert_eq!(done, Upgraded::Migrated(1), "{second}");
        let client = home.superuser().await;
        let none: [&str; 0] = [];
        assert_eq!(drifts(&client, &home, &package).await, none, "{second}");
        let again = upgrade(&home, &package).await.unwrap();
        assert_eq!(again, Upgraded::AlreadyThere);
        let older = package_of_one();
        assert_eq!(upgrade(&home, &older).await.unwrap(), Upgraded::Newer);
    }
}

fn package_of_one() -> ModulePackage {
    package("stock", &["movement"], &[FIRST])
}

/// A namespace whose migration fails keeps its version whole, and the connection goes on with the next.
#[tokio::test]
async fn a_failed_upgrade_leaves_everything_as_it_was() {
    let cases = [
        (
            "alter table product add column note text; select 1 / 0",
            "internal",
        ),
        (
            "create index bare on product (name)",
            "module-manifest-invalid",
        ),
        (
            "create policy mine on product using (true)",
            "module-manifest-invalid",
        ),
    ];
    for (second, refused) in cases {
        let home = first().await;
        let package = with(second);
        let admin = &home.cell.admin;
        let limits = UpgradeLimits::default();
        let mut upgrader = admin
            .upgrader(&home.database(), &package, limits)
            .await
            .unwrap();
        for _ in 0..2 {
            assert_eq!(code(upgrader.upgrade(&home.schema(), 1).await), refused);
        }
        let client = home.superuser().await;
        let sql = "select (select count(*) from waangu.migration where schema_name = $1)
                        , (select count(*) from pg_attribute
                            where attrelid = to_regclass($1 || '.product') and attnum > 0)";
        let row = client.query_one(sql, &[&home.schema()]).await.unwrap();
        assert_eq!(
            (row.get::<_, i64>(0), row.get::<_, i64>(1)),
            (1, 3),
            "{second}"
        );
        let none: [&str; 0] = [];
        assert_eq!(drifts(&client, &home, &package).await, none, "{second}");
        let lost = upgrader.upgrade("t_0_stock", 1).await;
        assert_eq!(code(lost), "namespace-lost");
    }
}

/// A long report holds its tables; an upgrade that waited for it would make every other request of the
/// tenant wait behind it.
#[tokio::test]
async fn an_upgrade_gives_up_soon_when_the_tenant_is_busy() {
    let home = first().await;
    let mut client = home.superuser().await;
    let report = client.transaction().await.unwrap();
    let sql = format!("select count(*) from {}.product", home.schema());
    report.query_one(&sql, &[]).await.unwrap();
    let package = with("alter table product add column note text");
    let begun = tokio::time::Instant::now();
    assert_eq!(code(upgrade(&home, &package).await), "database-unavailable");
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    report.commit().await.unwrap();
    assert_eq!(
        upgrade(&home, &package).await.unwrap(),
        Upgraded::Migrated(1)
    );
}
