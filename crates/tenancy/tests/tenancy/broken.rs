//! Migrations that would break isolation are refused, and leave nothing half-made.

use waangu_kernel::placement::Tier;

use crate::support::{Home, TABLE_NAMES, code, module, package};

/// A sound table that the broken parts stand beside.
const SOUND: &str = "create table sound (tenant_id bigint not null, id bigint not null
    , parent bigint, primary key (tenant_id, id)); ";

/// Each of these shows one tenant's rows to another, or tells whether they exist.
const BROKEN: [(&str, &str); 34] = [
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
    (
        "check",
        "create function f(p bigint) returns boolean language sql return true;
         alter table sound add check (f(id))",
    ),
    (
        "check by an operator",
        "create function f(p bigint, q bigint) returns boolean language sql return true;
         create operator === (leftarg = bigint, rightarg = bigint, function = f);
         alter table sound add check (id === 1); alter table sound add check (f(id, 1))",
    ),
    (
        "check that asks who it is",
        "alter table sound add check (tenant_id = waangu.writer())",
    ),
    (
        "domain",
        "create function f(p bigint) returns boolean language sql return true;
         create domain d as bigint check (f(value))",
    ),
    (
        "generated",
        "create function f(p bigint) returns bigint language sql immutable return p;
         alter table sound add g bigint generated always as (f(id)) stored",
    ),
    (
        "index on a function",
        "create function f(p bigint) returns bigint language sql immutable return p;
         create index on sound (tenant_id, f(id))",
    ),
    (
        "index where a function",
        "create function f(p bigint) returns bigint language sql immutable return p;
         create index on sound (tenant_id) where f(id) = 1",
    ),
    (
        "partitions by a function",
        "create function f(p bigint) returns bigint language sql immutable return p;
         create table t (tenant_id bigint not null, id bigint) partition by range (tenant_id, f(id))",
    ),
    (
        "statistics of a function",
        "create function f(p bigint) returns bigint language sql immutable return p;
         create statistics s on f(id), parent from sound",
    ),
    (
        "range",
        "create function f(p bigint, q bigint) returns float8 language sql immutable return 0;
         create type span as range (subtype = bigint, subtype_diff = f)",
    ),
    (
        "operator",
        "create function f(p oid, q regnamespace) returns boolean language sql return true;
         create operator = (leftarg = oid, rightarg = regnamespace, function = f)",
    ),
    ("collation", "create collation c from \"C\""),
    (
        "cast",
        "create type kind as enum ('a');
         create function f(p kind) returns bigint language sql return 1;
         create cast (kind as bigint) with function f(kind)",
    ),
    (
        "cast of rows",
        "create function f(p sound) returns bigint language sql return 1;
         create cast (sound as bigint) with function f(sound)",
    ),
    (
        "default privileges",
        "do $$ begin execute format('alter default privileges in schema %I grant all on tables to public'
           , current_schema()); end $$",
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

/// Bodies of functions that leave something in the session, and the word by which each is found.
const LINGERING: [(&str, &str, &str); 16] = [
    ("plpgsql", "begin EXECUTE p; end", "execute"),
    ("plpgsql", "begin return query execute p; end", "execute"),
    (
        "sql",
        "declare c cursor with  hold for select 1",
        "with  hold",
    ),
    ("plpgsql", "begin prepare s0 as select 1; end", "prepare"),
    (
        "plpgsql",
        "begin perform 1; /* why */ set jit = on; end",
        "set",
    ),
    (
        "plpgsql",
        "begin if p = '' then Set Local jit = on; end if; end",
        "set",
    ),
    (
        "plpgsql",
        "begin if p = '' then null; else reset all; end if; end",
        "reset",
    ),
    ("sql", "set role waangu_module", "set"),
    ("sql", "-- begin\nselect 1;\n-- so\nset jit = on", "set"),
    ("sql", "select '--'; set jit = on; select '--'", "set"),
    ("sql", r"select E'\\'; set jit = on", "set"),
    (
        "plpgsql",
        "begin perform set_config('jit', 'on', false); end",
        "set_config",
    ),
    ("plpgsql", "begin do E'begin perform 1; end'; end", "do"),
    (
        "plpgsql",
        "begin loop do $b$ begin end $b$; end loop; end",
        "do",
    ),
    ("sql", "load 'auto_explain'", "load"),
    (
        "plpgsql",
        "<<here>> begin <<there>> listen x; end",
        "listen",
    ),
];

/// Bodies that say the same words and mean no harm.
const HONEST: [(&str, &str); 9] = [
    ("sql", r"select E'\'; set jit = on; select '"),
    ("sql", "update product set name = 'set' where id = 1"),
    (
        "sql",
        "insert into product values (1, 1, 'x') on conflict (tenant_id, id) do nothing",
    ),
    (
        "plpgsql",
        "begin insert into product values (1, 1, 'x') on conflict (tenant_id, id) do update
         set name = 'on hold'; end",
    ),
    (
        "plpgsql",
        "-- We do not execute; listen; set\nbegin return; end",
    ),
    (
        "plpgsql",
        "/* prepare;\n set x = 1; */ begin perform 'it''s; set x = 1'; end",
    ),
    (
        "plpgsql",
        "declare \"do\" text; load bigint = 1; begin load := load + 1; end",
    ),
    (
        "plpgsql",
        "begin for i in 1..2 loop update product set name = 'a; load b'; end loop; end",
    ),
    (
        "sql",
        "merge into product p using (values (1)) v (id) on p.id = v.id
         when matched then update set name = 'held' when not matched then do nothing",
    ),
];

/// A migration with such functions, each under a name of its own.
fn functions<'a>(bodies: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    // What a body says of tables is looked up when it runs.
    let mut sql = format!("set check_function_bodies = off; {SOUND}");
    for (number, (language, body)) in bodies.into_iter().enumerate() {
        let function = format!(
            "create function f{number}(p text) returns void language {language}
                 set search_path = pg_catalog as $f${body}$f$; "
        );
        sql.push_str(&function);
    }
    sql
}

/// What a function sets, prepares or opens in a session waits there for the next tenant; its author has
/// to be told which word it is.
#[tokio::test]
async fn a_function_that_leaves_something_in_the_session_is_refused() {
    let home = Home::bare(Tier::Shared).await;
    let admin = &home.cell.admin;
    for (number, (language, body, word)) in LINGERING.into_iter().enumerate() {
        let sql = functions([(language, body)]);
        let package = package(&format!("lingering{number}"), &[], &[&sql]);
        let result = admin
            .ensure_module(home.tenant, &home.placement, &package)
            .await;
        let fault = result.expect_err(body);
        assert_eq!(fault.code(), "module-manifest-invalid", "{body}");
        let said = fault.to_string();
        assert!(said.contains(&format!("\"{word}\"")), "{body}: {said}");
    }
}

/// A module whose honest code is refused can't be installed.
#[tokio::test]
async fn a_function_that_only_sounds_like_it_is_let_in() {
    let home = Home::bare(Tier::Dedicated).await;
    let (tenant, placement, admin) = (home.tenant, &home.placement, &home.cell.admin);
    admin.ensure_place(tenant, placement).await.unwrap();
    let package = package("ledger", &[], &[&functions(HONEST)]);
    admin
        .ensure_module(tenant, placement, &package)
        .await
        .unwrap();
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
