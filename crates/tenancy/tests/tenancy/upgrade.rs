//! Upgrades of many namespaces: quick where nothing is wrong, and never at the price of a rule.

use tokio_postgres::Client;
use waangu_kernel::placement::Tier;
use waangu_tenancy::admin::{UpgradeLimits, Upgraded};
use waangu_tenancy::{HomeState, ModulePackage, Rules, inspect};

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
    begin(Home::bare(Tier::Schema).await).await
}

async fn begin(home: Home) -> Home {
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

/// A control process that is killed leaves its server a whole upgrade, which ends in a commit. Who comes
/// next has looked before that, and must not fail the tenant for what is done already.
#[tokio::test]
async fn an_upgrade_that_another_has_done_is_done() {
    let home = first().await;
    let limits = UpgradeLimits::default();
    let package = package(
        "stock",
        &["movement"],
        &[FIRST, "create table late (tenant_id bigint not null)"],
    );
    let mut both = Vec::new();
    for _ in 0..2 {
        let database = home.database();
        let upgrader = home.cell.admin.upgrader(&database, &package, limits).await;
        both.push(upgrader.unwrap());
    }
    let done = both[0].upgrade(&home.schema(), 1).await.unwrap();
    assert_eq!(done, Upgraded::Migrated(1));
    let done = both[1].upgrade(&home.schema(), 1).await.unwrap();
    assert_eq!(done, Upgraded::AlreadyThere);
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
        "do $$ begin execute format('grant create on schema %I to waangu_stock', current_schema()); end $$",
        "do $$ begin execute format('grant usage on schema %I to waangu_stock with grant option'
           , current_schema()); end $$",
        "do $$ begin execute format('grant usage on schema %I to public', current_schema()); end $$",
        "drop view named; create view named with (security_invoker = true) as select 1 as one",
        "update product set name = 'x'",
    ];
    let bent = bent.into_iter().map(ToOwned::to_owned);
    for second in bent.chain([ambiguous(), padded()]) {
        let second = second.as_str();
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

/// A table as `protect` leaves it, but for what stands in the policy for reading.
fn lookalike(table: &str, columns: &str, reading: &str) -> String {
    let to = "to waangu_stock, waangu_owner";
    let writer = "tenant_id = (select waangu.writer())";
    format!(
        "create table {table} ({columns}, primary key (tenant_id, id));
         alter table {table} enable row level security, force row level security;
         {reading};
         create policy tenant_insert on {table} for insert {to} with check ({writer});
         create policy tenant_update on {table} for update {to} using ({writer}) with check ({writer});
         create policy tenant_delete on {table} for delete {to} using ({writer});
         create policy tree on {table} for select to waangu_stock_tree
           using (tenant_id = any ((select waangu.subtree())::bigint[]));
         grant select, insert, update, delete on {table} to waangu_stock;
         grant select on {table} to waangu_stock_tree"
    )
}

/// Without its brackets this reads as the right policy: a column of a table that is named like our schema.
fn ambiguous() -> String {
    let columns = "tenant_id bigint not null, id bigint not null, tenant bigint";
    let reading = "create policy tenant on waangu for select to waangu_stock, waangu_owner
                     using (tenant_id = (select waangu.tenant))";
    lookalike("waangu", columns, reading)
}

/// PostgreSQL keeps the same words for this one as for the right policy: of another column.
fn padded() -> String {
    let columns = "no_tenant bigint, tenant_id bigint not null, id bigint not null";
    let head = "create policy tenant on odd for select to waangu_stock, waangu_owner";
    let reading = format!(
        "do $do$ begin
             execute $p${head:1024} using (no_tenant = (select waangu.tenant()))$p$;
         end $do$"
    );
    lookalike("odd", columns, &reading)
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

/// A report of one table must not hold up an upgrade of another.
#[tokio::test]
async fn an_upgrade_waits_for_no_table_that_it_does_not_touch() {
    let home = first().await;
    let mut client = home.superuser().await;
    let report = client.transaction().await.unwrap();
    let sql = format!("select count(*) from {}.movement", home.schema());
    report.query_one(&sql, &[]).await.unwrap();
    let package = with("alter table product add column note text");
    assert_eq!(
        upgrade(&home, &package).await.unwrap(),
        Upgraded::Migrated(1)
    );
}

/// No tenant has entered while a migration runs: one that reads or writes rows would find none, and say
/// nothing.
#[tokio::test]
async fn a_migration_misses_no_row() {
    let back_fill = "update product set name = upper(name)";
    let caught = format!("do $$ begin {back_fill}; exception when others then null; end $$");
    let by_function = format!(
        "create function fill() returns void language plpgsql as $$
         begin {back_fill}; exception when insufficient_privilege then null; end $$; select fill()"
    );
    let by_default = "create function named(p text) returns text language sql as
           'select max(upper(name)) from product where name = p or p is null';
         alter table movement add column label text default named('old');
         alter table movement alter label drop default;
         update product set name = (select label from movement limit 1)";
    for second in [back_fill, &caught, &by_function, by_default] {
        let home = first().await;
        let client = home.superuser().await;
        let (schema, tenant) = (home.schema(), home.tenant.number());
        let rows = format!(
            "insert into {schema}.product values ({tenant}, 1, 'old');
             insert into {schema}.movement values ({tenant}, 1)"
        );
        client.batch_execute(&rows).await.unwrap();
        let package = with(second);
        let done = upgrade(&home, &package).await;
        assert_eq!(done.unwrap(), Upgraded::Migrated(1), "{second}");
        let sql = format!("select name from {schema}.product");
        let row = client.query_one(&sql, &[]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), "OLD", "{second}");
        let none: [&str; 0] = [];
        assert_eq!(drifts(&client, &home, &package).await, none, "{second}");

        let key = "alter table movement add foreign key (tenant_id, id) references product";
        let orphan = format!("insert into {schema}.movement values ({tenant}, 2)");
        client.batch_execute(&orphan).await.unwrap();
        let mut package = package;
        let third = self::package("stock", &[], &[key]);
        package.migrations.extend(third.migrations);
        let refused = upgrade(&home, &package).await;
        assert_eq!(code(refused), "internal", "a key over rows that break it");
    }
}

/// Makes a role as soon as a superuser runs it.
const USURP: &str = "create function usurp(p text) returns boolean language plpgsql as $$
     begin
         if (select rolsuper from pg_catalog.pg_roles where rolname = current_user)
            and pg_catalog.to_regrole('usurper') is null
         then
             create role usurper;
         end if;
         return true;
     end $$;
     create function odd(p bigint) returns bigint language plpgsql immutable set search_path from current
     as $$ begin perform usurp(''); return p; end $$;";

/// Steps of one package each.
fn traps() -> Vec<Vec<String>> {
    let own_path =
        "do $$ begin perform 1; execute pg_catalog.format('set search_path = %I, pg_catalog'
           , pg_catalog.current_schema()); end $$";
    let one = [
        format!(
            "{USURP} create domain text as pg_catalog.text check (usurp(value)); {own_path}"
        ),
        format!(
            "{USURP} create function pg_advisory_xact_lock(integer, integer) returns void
               language sql as $$ select usurp('') $$;
             create function hashtext(pg_catalog.text) returns integer
               language sql as $$ select usurp('')::integer $$; {own_path}"
        ),
        format!("{USURP} declare c cursor with hold for select usurp('')"),
        format!("{USURP} prepare s1 as select usurp('')"),
        r"set standard_conforming_strings = off; select '\' || ' ); create role usurper; commit; -- '".to_owned(),
        deferred(),
        // What others run with their rights.
        format!("{USURP} alter table product add check (usurp(name))"),
        format!("{USURP} create domain label as varchar check (usurp(value));
                 alter table movement add column label label"),
        format!("{USURP} alter table product add column n bigint generated always as (odd(id)) stored"),
        format!("{USURP} create index odds on product (tenant_id, odd(id))"),
        format!("{USURP} create index odds on product (tenant_id, id) where odd(1) = 1"),
        format!("{USURP} create statistics odds on (odd(1) + id), name from product"),
    ];
    let mut traps: Vec<_> = one.map(|step| vec![step]).into();
    // The second is run by what the first has made of the function.
    let tried = |sql: &str| format!("do $$ begin {sql}; exception when others then null; end $$;");
    let weaken = ["waangu.migrate", "waangu_migration.run"].map(|name| {
        tried(&format!(
            "alter function {name}(text, text) security invoker"
        ))
    });
    traps.push(vec![weaken.concat(), tried("create role usurper")]);
    traps
}

/// A deferred trigger that defers what it brings about, until COMMIT; nothing of that is left to be seen.
fn deferred() -> String {
    let columns = "tenant_id bigint not null, id bigint not null";
    let reading = |table: &str| {
        format!(
            "create policy tenant on {table} for select to waangu_stock, waangu_owner
               using (tenant_id = (select waangu.tenant()))"
        )
    };
    let (early, late) = (
        lookalike("early", columns, &reading("early")),
        lookalike("late", columns, &reading("late")),
    );
    format!(
        "{USURP} {early}; {late};
         alter table early no force row level security;
         alter policy tenant_insert on late with check (true);
         alter function usurp(text) set search_path from current;
         create function again() returns trigger language plpgsql set search_path from current as $f$
         begin
             set constraints all deferred;
             insert into late values (1, 1);
             alter policy tenant_insert on late with check (tenant_id = (select waangu.writer()));
             create or replace function again() returns trigger language plpgsql
                 set search_path from current as $g$ begin return null; end $g$;
             return null;
         end $f$;
         create function strike() returns trigger language plpgsql set search_path from current
         as $f$ begin perform usurp(''); return null; end $f$;
         create constraint trigger a after insert on early deferrable initially deferred
             for each row execute function again();
         create constraint trigger b after insert on late deferrable initially deferred
             for each row execute function strike();
         insert into early values (1, 1)"
    )
}

/// A migration runs with few rights, and in the session of the administrator. What it leaves there must not
/// have the next statements do its will: of the same namespace or of the next one; nor what it leaves in
/// the schema, where the administrator copies rows and removes them.
#[tokio::test]
async fn a_migration_leaves_no_trap_for_the_administrator() {
    let mut caught = Vec::new();
    for trap in traps() {
        let home = first().await;
        let mut other = Home::bare(Tier::Schema).await;
        other.placement.bucket = home.placement.bucket;
        let other = begin(other).await;
        let steps: Vec<&str> = trap.iter().map(String::as_str).collect();
        let mut package = package_of_one();
        package
            .migrations
            .extend(self::package("stock", &[], &steps).migrations);
        let limits = UpgradeLimits::default();
        let admin = &home.cell.admin;
        let mut upgrader = admin
            .upgrader(&home.database(), &package, limits)
            .await
            .unwrap();
        for schema in [home.schema(), other.schema()] {
            // Whether it is refused or not, it has gained nothing.
            drop(upgrader.upgrade(&schema, 1).await);
        }
        let client = home.superuser().await;
        let schema = home.schema();
        let move_rows = format!(
            "begin; set local session_replication_role = replica;
             insert into {schema}.product values (1, 1, 'x');
             insert into {schema}.movement values (1, 1);
             delete from {schema}.product; delete from {schema}.movement; commit"
        );
        client.batch_execute(&move_rows).await.unwrap();
        let sql = "select to_regrole('usurper') is null";
        let row = client.query_one(sql, &[]).await.unwrap();
        if !row.get::<_, bool>(0) {
            caught.push(trap);
            client.batch_execute("drop role usurper").await.unwrap();
        }
    }
    assert!(caught.is_empty(), "{caught:#?}");
}

/// The function that runs a migration has the rights of its owner, and so has the migration.
#[tokio::test]
async fn a_migration_cannot_change_what_runs_it() {
    let home = first().await;
    for name in ["waangu.migrate", "waangu_migration.run"] {
        let function = format!("function {name}(text, text)");
        for second in [
            format!("alter {function} security invoker"),
            format!("alter {function} reset all"),
            format!("alter {function} rename to other"),
            format!("grant execute on {function} to waangu_stock"),
            format!("drop {function}"),
            format!("create or replace {function} returns void language sql as ''"),
        ] {
            let refused = upgrade(&home, &with(&second)).await;
            assert_eq!(code(refused), "internal", "{second}");
        }
    }
    for second in [
        "grant execute on all functions in schema waangu_migration to waangu_stock",
        "alter function waangu.migrate(text, text) set schema waangu_migration",
        "drop schema waangu_migration cascade",
    ] {
        let refused = upgrade(&home, &with(second)).await;
        assert_eq!(code(refused), "internal", "{second}");
    }
}

/// One owner has all schemas of a database, and only the one that is upgraded is looked at.
#[tokio::test]
async fn a_migration_changes_no_other_schema() {
    let home = first().await;
    let mut other = Home::bare(Tier::Schema).await;
    other.placement.bucket = home.placement.bucket;
    let other = begin(other).await.schema();
    for second in [
        format!("alter table {other}.product add column note text"),
        format!("create index bare on {other}.product (name)"),
        format!("create table {other}.extra (tenant_id bigint not null)"),
        format!("update {other}.product set name = 'x'"),
        format!("create domain {other}.own as bigint check (value > 0); alter table product add size {other}.own"),
        format!("create domain {other}.own as bigint; create type two as (a {other}.own[])"),
        format!(
            "create function f(p bigint) returns boolean language sql return true;
             create domain {other}.own as bigint; alter domain {other}.own add check (f(value)) not valid"
        ),
    ] {
        let refused = upgrade(&home, &with(&second)).await;
        assert_eq!(code(refused), "module-manifest-invalid", "{second}");
    }
}

/// What a migration sets for its session must not be met by whoever uses the connection next.
#[tokio::test]
async fn a_migration_leaves_no_session_behind() {
    for set in [
        "set default_transaction_read_only = on",
        "set default_transaction_isolation = 'serializable'",
        "deallocate all",
        "listen gossip",
    ] {
        let home = first().await;
        let (admin, tenant, placement) = (&home.cell.admin, home.tenant, &home.placement);
        let package = with(set);
        let mut place = admin.place(tenant, placement);
        place.observe(&[package.id().clone()]).await.unwrap();
        place.ensure_module(&package).await.unwrap();
        place.put_home(HomeState::Active).await.unwrap();
        place.put_home(HomeState::Active).await.unwrap();
        place.observe(&[package.id().clone()]).await.unwrap();
        drop(place);
        let sql = "select count(*) from pg_stat_activity
                    where datname = $1 and application_name = 'waangu-control' and query ilike '%gossip%'";
        let client = home.superuser().await;
        let row = client.query_one(sql, &[&home.database()]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 0, "{set}");
    }
}
