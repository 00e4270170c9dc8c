//! What a fully compromised module can do with its own database login: nothing beyond its tables.

use waangu_identity::proof::Access;
use waangu_kernel::placement::Tier;
use waangu_testkit::connect;

use crate::support::{Home, enter, module};

/// Statements of an attacker who has the module's password. Each must be refused by PostgreSQL.
const REFUSED: [&str; 63] = [
    // The keys, the fence and the seal.
    "select * from waangu.context_key",
    "select * from waangu.home",
    "update waangu.home set state = 'active'",
    "select * from waangu.migration",
    "set local backtrace_functions = 'w1'",
    "set backtrace_functions = 'w1'",
    "alter role waangu_stock set backtrace_functions = 'w1'",
    "grant set on parameter backtrace_functions to waangu_stock",
    "call waangu.protect('stock', 'waangu_stock', '{}')",
    "call waangu.revoke_grants('product')",
    "select waangu.migrate('stock', 'select 1')",
    "select waangu.broken_rule('stock', '{}')",
    "select waangu.look('stock', 'waangu_stock', '{}')",
    "select waangu.policy_statement('product', 'mine', 'select', '{public}', 'true', null)",
    "select * from waangu.pattern",
    // Objects that would run in, or hide from, somebody else's transaction.
    "create temp table product (id bigint)",
    "create temp view product as select 1",
    "create function f() returns bigint language sql return 1",
    "create function waangu.f() returns bigint language sql return 1",
    "create function public.f() returns bigint language sql return 1",
    "create function pg_temp.f() returns bigint language sql return 1",
    "create table t (id bigint)",
    "create schema mine",
    "create trigger t before insert on product for each row execute function tsvector_update_trigger()",
    "select lo_create(0)",
    "select lo_from_bytea(0, 'x')",
    "select pg_notify('waangu_change', 'x')",
    "select pg_logical_emit_message(false, 'x', 'x')",
    // Other roles.
    "set role waangu_owner",
    "set role waangu_context",
    "set role waangu_crm",
    "set role postgres",
    "set session authorization postgres",
    "grant waangu_owner to waangu_stock",
    "grant waangu_stock to waangu_owner",
    "grant waangu_stock to waangu_crm",
    "alter role waangu_stock bypassrls",
    "alter role waangu_stock connection limit -1",
    "alter role waangu_crm password 'x'",
    // Tables.
    "alter table product disable row level security",
    "alter table product owner to waangu_stock",
    "drop policy tenant on product",
    "create policy mine on product using (true)",
    "truncate product",
    "set row_security = off; select * from product",
    "copy product (tenant_id, id, name) from program 'true'",
    "select pg_read_file('PG_VERSION')",
    "set session_replication_role = replica",
    // The session beyond the transaction.
    "select set_config('jit', 'on', false)",
    "select pg_catalog.set_config('role', 'waangu_module', true)",
    "select query_to_xml('select set_config(''jit'', ''on'', false)', true, false, '')",
    "update pg_settings set setting = 'on' where name = 'jit'",
    "select setseed(0.5)",
    // Other sessions.
    "select pg_terminate_backend(pg_backend_pid())",
    "select pg_cancel_backend(pg_backend_pid())",
    "select * from pg_stat_activity",
    "select * from pg_locks",
    "select pg_lock_status()",
    "select pg_stat_get_backend_activity(1)",
    "select pg_advisory_lock(1)",
    "select pg_advisory_xact_lock_shared(1)",
    "select pg_try_advisory_lock(1, 1)",
    "select pg_try_advisory_xact_lock_shared(1)",
];

/// One module with a hole must not become a hole in the platform.
#[tokio::test]
async fn a_stolen_login_is_refused_everything_else() {
    for tier in Tier::ALL {
        let home = Home::new(tier).await;
        home.stock_up(1, "mine").await;
        for inside in [false, true] {
            for sql in REFUSED {
                let outsider = home.outsider().await;
                outsider.batch_execute("begin").await.unwrap();
                if inside {
                    enter(&outsider, &home.context(Access::Write))
                        .await
                        .unwrap();
                }
                let error = outsider.batch_execute(sql).await.expect_err(sql);
                let code = error.code().unwrap_or_else(|| panic!("{sql}: {error}"));
                // 42501: no right; 3F000: nowhere to create it.
                assert!(
                    ["42501", "3F000"].contains(&code.code()),
                    "{tier} {sql}: {error:?}"
                );
            }
        }
        assert_eq!(home.names().await, ["mine"], "{tier}");
    }
}

/// In another database of the server nothing is revoked: a login could stop other sessions there,
/// make temporary tables, or take the control plane's locks.
#[tokio::test]
async fn a_stolen_login_reaches_no_other_database() {
    let home = Home::new(Tier::Shared).await;
    let control = waangu_testkit::control().await;
    // What the migration gives is not copied from the template; see it where it was given.
    drop(control);
    for database in [
        "postgres",
        "template1",
        "waangu_template",
        "control_template",
    ] {
        let dsn = home.cell.module_dsn(&module("stock"), database);
        let error = connect(&dsn).await.map(drop).expect_err(database);
        let code = error.code().map(|code| code.code().to_owned());
        assert!(
            matches!(code.as_deref(), Some("42501" | "55000")),
            "{database}: {error:?}"
        );
    }
}

/// The module's group role is the one that a login may become; it holds no table.
#[tokio::test]
async fn the_group_role_gives_nothing() {
    let home = Home::new(Tier::Shared).await;
    home.stock_up(1, "mine").await;
    let outsider = home.outsider().await;
    outsider.batch_execute("begin").await.unwrap();
    enter(&outsider, &home.context(Access::Write))
        .await
        .unwrap();
    outsider
        .batch_execute("set role waangu_module")
        .await
        .unwrap();
    let refused = outsider.query("select * from stock.product", &[]).await;
    assert_eq!(crate::support::state(refused), "42501");
}
