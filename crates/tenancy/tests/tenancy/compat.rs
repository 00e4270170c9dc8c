//! What a next release may do to tables while this one's programs are running.

use crate::support::{Home, code, package};
use waangu_kernel::placement::Tier;
use waangu_tenancy::ModulePackage;

const FIRST: &str = "
create type colour as enum ('red', 'green');
create table product (
    tenant_id bigint not null default waangu.tenant()
  , id bigint not null
  , name varchar(20) not null
  , kind text not null default 'plain'
  , colour colour
  , note text
  , constraint product_pkey primary key (tenant_id, id)
  , constraint product_name_key unique (tenant_id, name)
  , constraint product_kind_check check (kind in ('plain', 'fancy'))
);
create table movement (
    tenant_id bigint not null default waangu.tenant()
  , id bigint not null
  , product_id bigint
  , constraint movement_pkey primary key (tenant_id, id)
  , constraint movement_product_fkey foreign key (tenant_id, product_id) references product
);
create index movement_product on movement (tenant_id, product_id);
create view named with (security_invoker = true) as select tenant_id, id, kind from product;
create function twice(n bigint) returns bigint language sql immutable as 'select n * 2'";

fn next(append_only: &[&str], sql: &str) -> ModulePackage {
    package("stock", append_only, &[FIRST, sql])
}

async fn found(home: &Home, after: &ModulePackage) -> Vec<String> {
    let before = package("stock", &[], &[FIRST]);
    let admin = &home.cell.admin;
    admin
        .incompatibilities(&before, after)
        .await
        .expect("a trial")
}

/// A check that cries at honest releases is switched off.
#[tokio::test]
async fn what_only_adds_is_let_through() {
    let home = Home::bare(Tier::Shared).await;
    for sql in [
        "select 1",
        "alter table product add column size integer",
        "alter table product add column size integer not null default 1",
        "alter table product alter column name type varchar(40)",
        "alter table product alter column name drop not null",
        "alter table product drop constraint product_kind_check",
        "alter table product alter column kind set default 'fancy'",
        "alter type colour add value 'blue'",
        "create index product_note on product (tenant_id, note)",
        "drop index movement_product",
        "alter table product add column code text;
         create unique index product_code_key on product (tenant_id, code)",
        "alter table movement add column at_id bigint;
         alter table movement add foreign key (tenant_id, at_id) references product",
        "alter table product add column size integer check (size > 0)",
        "create table extra (tenant_id bigint not null, id bigint not null, name text not null
                           , primary key (tenant_id, id), unique (tenant_id, name))",
        "create or replace view named with (security_invoker = true) as
             select tenant_id, id, kind, note from product",
        "create or replace function twice(n bigint) returns bigint language sql immutable as 'select n + n'",
    ] {
        assert_eq!(
            found(&home, &next(&[], sql)).await,
            Vec::<String>::new(),
            "{sql}"
        );
    }
}

/// Every tenant that is upgraded before its module's processes are would get errors, or lose what it
/// writes.
#[tokio::test]
async fn what_takes_away_or_narrows_is_named() {
    let home = Home::bare(Tier::Shared).await;
    for (sql, said) in [
        ("drop table movement", "relation movement is gone"),
        (
            "alter table movement rename to journal",
            "relation movement is gone",
        ),
        (
            "alter table product drop column note",
            "column product.note is gone",
        ),
        (
            "alter table product rename column note to remark",
            "column product.note is gone",
        ),
        (
            "alter table movement alter column product_id type integer",
            "column movement.product_id has changed from bigint to integer",
        ),
        (
            "alter table product alter column name type varchar(10)",
            "column product.name has become shorter",
        ),
        (
            "alter table product alter column note set not null",
            "product.note may not be null any more",
        ),
        (
            "alter table product add column size integer not null",
            "product.size is new, may not be null, and has no default",
        ),
        (
            "alter table product alter column kind drop default",
            "default product.kind is gone",
        ),
        (
            "alter table product add constraint short check (length(note) < 9)",
            "check product.short is new",
        ),
        (
            "alter table product drop constraint product_kind_check
               , add constraint product_kind_check check (kind = 'plain')",
            "check product.product_kind_check has changed",
        ),
        (
            "create unique index product_note_key on product (tenant_id, note)",
            "unique product.product_note_key is new",
        ),
        (
            "alter table product drop constraint product_name_key",
            "unique product.product_name_key is gone",
        ),
        (
            "alter table product add column code text not null default 'x';
             create unique index product_code_key on product (tenant_id, code)",
            "unique product.product_code_key is new",
        ),
        (
            "alter table product add foreign key (tenant_id, id) references product",
            "foreign key product.product_tenant_id_id_fkey is new",
        ),
        ("drop function twice", "function twice(n bigint) is gone"),
        (
            "drop function twice; create function twice(n bigint) returns text language sql as 'select n::text'",
            "function twice(n bigint) has changed from bigint to text",
        ),
        ("drop view named", "relation named is gone"),
    ] {
        let found = found(&home, &next(&[], sql)).await;
        assert!(
            found.iter().any(|one| one.starts_with(said)),
            "{said}: {found:?}"
        );
    }
    let found = found(&home, &next(&["movement"], "select 1")).await;
    assert_eq!(
        found,
        ["rows of movement could not be changed or deleted any more"]
    );
}

/// A release may take away what nobody uses any more. But tenants of both versions, and both versions'
/// programs, are held to one list of tables that only grow: a change of it would shut out one of them.
#[tokio::test]
async fn what_only_grows_is_so_for_ever() {
    let home = Home::bare(Tier::Shared).await;
    let trial = async |before: &[&str], after: &[&str], sql: &str| {
        let before = package("stock", before, &[FIRST]);
        let mut after = next(after, sql);
        after.manifest.contract = true;
        let admin = &home.cell.admin;
        admin.incompatibilities(&before, &after).await.unwrap()
    };
    let none = Vec::<String>::new();
    let drop = "alter table product drop column note cascade";
    assert_eq!(trial(&["movement"], &["movement"], drop).await, none);
    let gone = "drop table movement";
    assert_eq!(trial(&["movement"], &[], gone).await, none);
    let found = trial(&[], &["movement"], drop).await;
    assert!(
        found[0].starts_with("rows of movement could not be changed"),
        "{found:?}"
    );
    let found = trial(&["movement"], &[], drop).await;
    assert!(
        found[0].starts_with("rows of movement could be changed"),
        "{found:?}"
    );
}

/// An author who has made a list of values longer must be able to say so; a migration that can't run
/// at all must be refused before ten thousand tenants have tried it; and nothing of a trial may stay.
#[tokio::test]
async fn the_author_has_a_word_and_a_trial_leaves_nothing() {
    let home = Home::bare(Tier::Shared).await;
    let wider = "alter table product drop constraint product_kind_check
                   , add constraint product_kind_check check (kind in ('plain', 'fancy', 'odd'))";
    let mut after = next(&[], wider);
    assert_eq!(found(&home, &after).await.len(), 1);
    after.manifest.widened = vec!["product_kind_check".to_owned()];
    assert_eq!(found(&home, &after).await, Vec::<String>::new());
    let before = package("stock", &[], &[FIRST]);
    let broken = next(&[], "alter table nothing add column x text");
    let refused = home.cell.admin.incompatibilities(&before, &broken).await;
    assert_eq!(code(refused), "module-manifest-invalid");
    let sql = "select count(*) from pg_namespace where nspname like 'trial%'";
    let left = home.superuser().await.query_one(sql, &[]).await.unwrap();
    assert_eq!(left.get::<_, i64>(0), 0);
}
