//! Migrations that would break isolation are refused, and leave nothing half-made.

use waangu_kernel::placement::Tier;

use crate::support::{Home, TABLE_NAMES, code, module, package};

/// A sound table that the broken parts stand beside.
const SOUND: &str = "create table sound (tenant_id bigint not null, id bigint not null
    , parent bigint, primary key (tenant_id, id)); ";

/// Each of these shows one tenant's rows to another, or tells whether they exist.
const BROKEN: [(&str, &str); 22] = [
    ("no tenant", "create table t (id bigint primary key)"),
    ("nullable", "create table t (tenant_id bigint, id bigint)"),
    ("type", "create table t (tenant_id integer not null)"),
    (
        "primary key",
        "create table t (tenant_id bigint not null, id bigint primary key)",
    ),
    (
        "unique",
        "create table t (tenant_id bigint not null, email text unique)",
    ),
    ("index", "create index on sound (id)"),
    ("expression", "create index on sound ((id + 1))"),
    (
        "foreign key",
        "create table t (tenant_id bigint not null, id bigint not null
         , primary key (tenant_id, id), foreign key (id, tenant_id) references sound)",
    ),
    (
        "identity",
        "create table t (tenant_id bigint not null, id bigint generated always as identity)",
    ),
    ("serial", "alter table sound add n bigserial"),
    ("sequence", "create sequence s"),
    (
        "definer",
        "create function f() returns bigint language sql security definer
         return (select count(*) from sound)",
    ),
    (
        "dynamic SQL",
        "create function f(p text) returns void language plpgsql as
         $$ begin EXECUTE p; end $$",
    ),
    (
        "holdable cursor",
        "create function f() returns void language sql as
         $$ declare c cursor with hold for select * from sound $$",
    ),
    (
        "prepared in a function",
        "create function f() returns void language plpgsql as
         $$ begin prepare s0 as select 1; end $$",
    ),
    (
        "matview",
        "create materialized view m as select * from sound",
    ),
    ("view", "create view v as select * from sound"),
    ("policy", "create policy mine on sound using (true)"),
    (
        "rule",
        "create rule r as on delete to sound do also select 1",
    ),
    (
        "trigger",
        "create function f() returns trigger language plpgsql as 'begin return new; end';
         create trigger t before delete on sound for each row execute function f();
         alter table sound enable always trigger t",
    ),
    (
        "cascade",
        "create table journal (tenant_id bigint not null, id bigint not null
         , foreign key (tenant_id, id) references sound on delete cascade)",
    ),
    (
        "misspelt",
        "create table jornal (tenant_id bigint not null)",
    ),
];

/// A module that ships one of these would leak silently in production; it must not get that far.
#[tokio::test]
async fn each_broken_rule_is_refused_and_nothing_stays() {
    for tier in [Tier::Shared, Tier::Schema] {
        let home = Home::bare(tier).await;
        let admin = &home.cell.admin;
        admin
            .ensure_place(home.tenant, &home.placement)
            .await
            .unwrap();
        for (number, (what, sql)) in BROKEN.into_iter().enumerate() {
            let id = format!("broken{number}");
            let journal: &[&str] = match what {
                "cascade" | "misspelt" => &["journal"],
                _ => &[],
            };
            let both = format!("{SOUND}{sql}");
            let package = package(&id, journal, &[&both]);
            let result = admin
                .ensure_module(home.tenant, &home.placement, &package)
                .await;
            assert_eq!(code(result), "module-manifest-invalid", "{tier} {what}");
            assert_nothing(&home, &id).await;
        }
    }
}

/// A migration that ends its transaction, or drops its role, would run the rest of its text as the
/// administrator of the cell, outside of every check.
#[tokio::test]
async fn a_migration_cannot_leave_its_transaction_or_role() {
    let home = Home::bare(Tier::Shared).await;
    for (number, sql) in [
        "commit; create table t (id bigint)",
        "rollback; begin; create table t (id bigint)",
        "reset role; create role evil superuser",
        "set role postgres",
        "set session authorization postgres",
        "select pg_read_file('PG_VERSION')",
        "copy (select 1) to program 'true'",
        "create table public.t (tenant_id bigint not null)",
        "select * from waangu.context_key",
        "update waangu.home set state = 'active'",
        "set session_replication_role = replica",
        "this is not sql",
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("hostile{number}");
        let package = package(&id, &[], &[sql]);
        let result = home
            .cell
            .admin
            .ensure_module(home.tenant, &home.placement, &package)
            .await;
        assert_eq!(code(result), "internal", "{sql}");
        assert_nothing(&home, &id).await;
    }
    let client = home.superuser().await;
    let sql = "select to_regrole('evil') is null and to_regclass('public.t') is null";
    assert!(client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0));
}

/// Rights that a migration hands out (TRUNCATE knows no rows) would outlive the checks.
#[tokio::test]
async fn grants_of_a_migration_are_taken_back() {
    let home = Home::bare(Tier::Shared).await;
    let sql = format!(
        "{SOUND} grant all on sound to public; grant all on sound to waangu_stock;
         grant update (parent) on sound to waangu_module"
    );
    let package = package("ledger", &["sound"], &[&sql]);
    home.cell
        .admin
        .ensure_module(home.tenant, &home.placement, &package)
        .await
        .unwrap();
    let client = home.superuser().await;
    let sql = "select grantee || ' ' || privilege_type from information_schema.role_column_grants
                where table_schema = 'ledger' and grantee <> 'waangu_owner'
                union
               select grantee || ' ' || privilege_type from information_schema.role_table_grants
                where table_schema = 'ledger' and grantee <> 'waangu_owner'
                order by 1";
    let rows = client.query(sql, &[]).await.unwrap();
    let grants: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        grants,
        [
            "waangu_ledger INSERT",
            "waangu_ledger SELECT",
            "waangu_ledger_tree SELECT"
        ]
    );
}

/// A back-fill that silently changes nothing would be found by a client, months later.
#[tokio::test]
async fn a_later_migration_sees_all_rows() {
    for tier in Tier::ALL {
        let home = Home::new(tier).await;
        home.stock_up(1, "old").await;
        let mut package = crate::support::stock();
        package.migrations.extend(
            crate::support::package(
                "stock",
                &[],
                &[
                    "alter table product add label text; update product set label = upper(name);
                   alter table product alter label set not null; alter table product drop label;
                   -- the last line has no end",
                ],
            )
            .migrations,
        );
        home.cell
            .admin
            .ensure_module(home.tenant, &home.placement, &package)
            .await
            .unwrap();
        // The rules are back in force.
        let outsider = home.outsider().await;
        for table in TABLE_NAMES {
            assert_eq!(crate::support::count(&outsider, table).await.unwrap(), 0);
        }
        let client = home.superuser().await;
        let sql = "select bool_and(relrowsecurity and relforcerowsecurity) from pg_class
                    where relnamespace = to_regnamespace($1) and relkind = 'r'";
        let row = client.query_one(sql, &[&home.schema()]).await.unwrap();
        assert!(row.get::<_, bool>(0), "{tier}");
    }
}

async fn assert_nothing(home: &Home, id: &str) {
    let schema = home.placement.schema(home.tenant, &module(id));
    let client = home.superuser().await;
    let sql = "select to_regnamespace($1) is null
                  and not exists (select from waangu.migration where schema_name = $1)";
    let row = client.query_one(sql, &[&schema]).await.expect("look");
    assert!(row.get::<_, bool>(0), "{schema} stayed");
}
