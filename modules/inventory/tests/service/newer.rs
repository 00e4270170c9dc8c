//! Today's program on the tables of a release to come: expand is fine, contract is seen.

use waangu_testkit::Tier;
use waangu_testkit::contract::{Migration, Released, withstand_newer};

use crate::isolation::seed;

const PROGRAM: &str = env!("CARGO_BIN_EXE_waangu-inventory");

/// What a next release may do while this one is running.
const EXPAND: &str = "
alter table product add column barcode text;
alter table product add column weight_g integer not null default 0;
create unique index product_barcode_key on product (tenant_id, barcode) where barcode is not null;
create table supplier (
    tenant_id bigint not null default waangu.tenant()
  , id uuid not null
  , name text not null
  , constraint supplier_pkey primary key (tenant_id, id)
)";

/// What it may not, and how the catalogues tell. Each would be an outage for every tenant that is
/// upgraded before its module's processes are.
const CONTRACT: [(&str, &str); 5] = [
    (
        "alter table product drop column unit",
        "column product.unit is gone",
    ),
    (
        "alter table product rename column name to label",
        "column product.name is gone",
    ),
    ("alter table place rename to site", "relation place is gone"),
    (
        "update product set price_minor = 1, currency = 'XOF' where price_minor is null;
         alter table product alter column price_minor set not null",
        "product.price_minor may not be null any more",
    ),
    (
        "alter table place add column city text not null default '';
         alter table place alter column city drop default",
        "place.city is new, may not be null, and has no default",
    ),
];

/// An author who drops a column would learn of it from the first tenant that is upgraded.
#[tokio::test]
async fn a_release_that_only_expands_passes_and_one_that_contracts_is_seen() {
    let released = Released::start(PROGRAM).await;
    let with = |sql: &str| {
        let mut newer = released.package().clone();
        newer.migrations.push(Migration {
            name: "next".to_owned(),
            sql: sql.to_owned(),
        });
        newer
    };
    for (sql, said) in CONTRACT {
        let newer = with(sql);
        let found = released.incompatibilities(&newer).await;
        assert!(found.iter().any(|one| one == said), "{said}: {found:?}");
        let failing = released.failing(Tier::Schema, &newer, seed).await;
        assert!(!failing.is_empty(), "no example notices: {said}");
    }
    let newer = with(EXPAND);
    assert_eq!(
        released.incompatibilities(&newer).await,
        Vec::<String>::new()
    );
    for tier in Tier::ALL {
        let failing = released.failing(tier, &newer, seed).await;
        assert_eq!(failing, Vec::<String>::new());
    }
}

/// The call that a release pipeline makes, with the released program and the one to be released.
#[tokio::test]
async fn a_program_withstands_its_own_tables() {
    withstand_newer(PROGRAM, PROGRAM, seed).await;
}
