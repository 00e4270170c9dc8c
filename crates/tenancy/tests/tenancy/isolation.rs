//! One tenant's request sees and changes one tenant's rows, in each tier.

use waangu_identity::proof::Access;
use waangu_kernel::placement::Tier;
use waangu_tenancy::{Limits, TenantTx, constraint, sql_state};

use crate::support::{Home, TABLE_NAMES, code, count, enter, module, state};

/// Takes the defence against hidden settings away, in one database.
const SET_CONFIG_FOR_ALL: &str = "
    grant execute on function set_config(text, text, boolean) to public;
    grant update on pg_settings to public";
const SET_CONFIG_FOR_NOBODY: &str = "
    revoke execute on function set_config(text, text, boolean) from public;
    revoke update on pg_settings from public";

/// The first promise of the platform: a client reads its own rows and nobody else's.
#[tokio::test]
async fn each_tenant_sees_only_its_own_rows() {
    for tier in Tier::ALL {
        let one = Home::new(tier).await;
        let two = one.neighbour().await;
        one.stock_up(1, "of one").await;
        two.stock_up(1, "of two").await;
        two.stock_up(2, "of two, too").await;
        assert_eq!(one.names().await, ["of one"], "{tier}");
        assert_eq!(two.names().await, ["of two", "of two, too"], "{tier}");

        let mut tx = one.write().await;
        let changed = tx.execute("update product set name = 'x'", &[]).await;
        assert_eq!(changed.unwrap(), 1, "{tier}");
        tx.commit().await.unwrap();
        assert_eq!(two.names().await, ["of two", "of two, too"], "{tier}");
    }
}

/// A module with a wrong tenant number in its hands would write into another client's books.
#[tokio::test]
async fn writing_for_another_tenant_is_refused_in_each_tier() {
    for tier in Tier::ALL {
        let one = Home::new(tier).await;
        let two = one.neighbour().await;
        one.stock_up(1, "mine").await;
        let other = two.tenant.number();
        for sql in [
            "insert into product (tenant_id, id, name) values ($1, 9, 'planted')",
            "update product set tenant_id = $1",
        ] {
            let mut tx = one.write().await;
            let fault = tx.execute(sql, &[&other]).await.unwrap_err();
            assert_eq!(sql_state(&fault), Some("42501"), "{tier} {sql}");
            drop(tx);
        }
        let mut tx = one.write().await;
        let sql = "delete from movement where tenant_id = $1";
        assert_eq!(
            sql_state(&tx.execute(sql, &[&other]).await.unwrap_err()),
            Some("42501"),
            "append-only"
        );
        drop(tx);
        assert_eq!(two.rows().await, [0, 0], "{tier}");
        assert_eq!(one.names().await, ["mine"], "{tier}");
    }
}

/// Whoever steals a module's database password and connects with `psql` finds empty tables.
#[tokio::test]
async fn without_context_every_table_is_empty_and_closed() {
    for tier in Tier::ALL {
        let home = Home::new(tier).await;
        home.stock_up(1, "secret").await;
        let outsider = home.outsider().await;
        for table in TABLE_NAMES {
            assert_eq!(count(&outsider, table).await.unwrap(), 0, "{tier} {table}");
        }
        let own = home.tenant.number();
        let insert = "insert into product (tenant_id, id, name) values ($1, 2, 'x')";
        let refused = outsider.execute(insert, &[&own]).await;
        assert_eq!(state(refused), "42501", "{tier}");
        for sql in ["update product set name = 'x'", "delete from product"] {
            assert_eq!(outsider.execute(sql, &[]).await.unwrap(), 0, "{tier}");
        }
        assert_eq!(home.names().await, ["secret"], "{tier}");
    }
}

/// Logs and people read `app.current_tenant`; if setting it gave rows, so would any SQL injection. Not
/// even where somebody has given `set_config` back.
#[tokio::test]
async fn setting_the_tenant_by_hand_gives_nothing() {
    let one = Home::new(Tier::Schema).await;
    let two = one.neighbour().await;
    one.stock_up(1, "of one").await;
    two.stock_up(1, "of two").await;
    let admin = one.superuser().await;
    admin.batch_execute(SET_CONFIG_FOR_ALL).await.unwrap();
    let set = format!(
        "select set_config('app.current_tenant', '{}', true)",
        two.tenant.number()
    );
    // On a fresh connection, with no transaction of anybody before it.
    let outsider = one.outsider().await;
    outsider.batch_execute("begin").await.unwrap();
    outsider.batch_execute(&set).await.unwrap();
    assert_ne!(count(&outsider, "product").await.unwrap_or(0), 1);
    outsider.batch_execute("rollback").await.unwrap();

    // After a genuine entry as another tenant, in one statement and in two.
    for (sql, gives) in [
        (format!("{set}; select 1"), 0),
        (format!("with s as materialized ({set} as t) select 1"), 1),
    ] {
        outsider.batch_execute("begin").await.unwrap();
        enter(&outsider, &one.context(Access::Write)).await.unwrap();
        outsider.batch_execute(&sql).await.unwrap();
        // The second form never ran its `set_config`: nobody asked for its result.
        assert_eq!(count(&outsider, "product").await.unwrap(), gives);
        outsider.batch_execute("rollback").await.unwrap();
    }
    outsider.batch_execute("begin").await.unwrap();
    enter(&outsider, &one.context(Access::Write)).await.unwrap();
    let sql = format!("with s as materialized ({set} as t) select name from s, product");
    let rows = outsider.query(&sql, &[]).await.unwrap();
    assert!(rows.iter().all(|row| row.get::<_, &str>(0) != "of two"));
}

/// What is left of a context after its transaction would be the next request's, of anybody.
#[tokio::test]
async fn the_context_ends_with_its_transaction() {
    for end in ["commit", "rollback"] {
        let home = Home::new(Tier::Shared).await;
        home.stock_up(1, "mine").await;
        let outsider = home.outsider().await;
        outsider.batch_execute("begin").await.unwrap();
        enter(&outsider, &home.context(Access::Write))
            .await
            .unwrap();
        assert_eq!(count(&outsider, "product").await.unwrap(), 1);
        outsider.batch_execute(end).await.unwrap();
        assert_eq!(count(&outsider, "product").await.unwrap(), 0, "{end}");
        // Not even with the setting put back by hand.
        let set = format!("set app.current_tenant = '{}'", home.tenant.number());
        outsider.batch_execute(&set).await.unwrap();
        assert_eq!(count(&outsider, "product").await.unwrap(), 0, "{end}");
    }
}

/// `RESET ALL` and `DISCARD` are in every pooler's repertoire; they may take rights, never give any.
#[tokio::test]
async fn resetting_inside_a_transaction_closes_it() {
    let home = Home::new(Tier::Shared).await;
    home.stock_up(1, "mine").await;
    for sql in [
        "reset all",
        "discard plans; reset all",
        "reset app.current_tenant",
    ] {
        let outsider = home.outsider().await;
        outsider.batch_execute("begin").await.unwrap();
        enter(&outsider, &home.context(Access::Write))
            .await
            .unwrap();
        outsider.batch_execute(sql).await.unwrap();
        // An error (no seal at all) is as good as no row.
        let seen = count(&outsider, "stock.product").await.unwrap_or(0);
        assert_eq!(seen, 0, "{sql}");
    }
}

/// The next borrower of a connection must find nothing of the last: not its settings, role, cursors,
/// listeners, nor a statement planted in the place of one of the driver's.
#[tokio::test]
async fn the_next_borrower_meets_no_trace() {
    let one = Home::new(Tier::Schema).await;
    let two = one.neighbour().await;
    one.stock_up(1, "of one").await;
    two.stock_up(1, "of two").await;
    for poison in [
        "set role waangu_module",
        "set timezone = 'Pacific/Kiritimati'",
        "reset all",
        "declare c cursor with hold for select * from product",
        "listen planted",
        "prepare planted as select 1",
        "deallocate all",
        "/* select */ listen planted",
        "do $$ begin perform 1; end $$",
    ] {
        let mut tx = one.write().await;
        let process = "select pg_backend_pid(), current_user = session_user";
        let row = tx.query_opt(process, &[]).await.unwrap().unwrap();
        let spoilt: i32 = row.get(0);
        tx.execute(poison, &[]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(two.names().await, ["of two"], "{poison}");
        let mut tx = two.write().await;
        let row = tx.query_opt(process, &[]).await.unwrap().unwrap();
        assert_ne!(
            row.get::<_, i32>(0),
            spoilt,
            "{poison}: the same connection"
        );
        assert!(row.get::<_, bool>(1), "{poison}");
    }
}

/// A query that changes the session is not told from any other. What was read meanwhile – here the
/// constant of a prepared statement, in the attacker's time zone – would be the next tenant's wrong answer.
#[tokio::test]
async fn no_query_changes_what_the_next_tenant_meets() {
    let poisons = [
        "select set_config('timezone', 'Pacific/Kiritimati', false)",
        "with s as materialized (select set_config('timezone', 'Pacific/Kiritimati', false)) table s",
        "update pg_settings set setting = 'Pacific/Kiritimati' where name = 'TimeZone'",
    ];
    for poison in poisons {
        let one = Home::new(Tier::Schema).await;
        let two = one.neighbour().await;
        let admin = one.superuser().await;
        let limits = Limits {
            per_cell: 1,
            ..Limits::default()
        };
        for (grants, refused) in [(SET_CONFIG_FOR_ALL, false), (SET_CONFIG_FOR_NOBODY, true)] {
            admin.batch_execute(grants).await.unwrap();
            let pools = one.cell.limited_pools(&module("stock"), limits);
            let mut tx = TenantTx::begin(&pools, &one.context(Access::Write))
                .await
                .unwrap();
            let done = tx.query(poison, &[]).await;
            if refused {
                let fault = done.unwrap_err();
                assert_eq!(sql_state(&fault), Some("42501"), "{poison}");
                drop(tx);
            } else {
                done.unwrap();
                hour(&mut tx).await;
                tx.commit().await.unwrap();
            }
            let mut tx = TenantTx::begin(&pools, &two.context(Access::Read))
                .await
                .unwrap();
            let wrong = hour(&mut tx).await != "0";
            assert_eq!(wrong, !refused, "{poison}");
            assert_eq!(pools.stats()[0].1.opened, 1, "{poison}: one connection");
        }
    }
}

/// The hour of a time that a statement holds as a constant.
async fn hour(tx: &mut TenantTx) -> String {
    let sql = "select extract(hour from '2026-01-01'::timestamptz at time zone
                   (select reset_val from pg_settings where name = 'TimeZone'))::text";
    let row = tx.query_opt(sql, &[]).await.expect("ask the hour");
    row.expect("an hour").get(0)
}

/// `random()` that starts where the last tenant said is known to it in advance.
#[tokio::test]
async fn no_query_sows_what_the_next_tenant_draws() {
    let one = Home::new(Tier::Schema).await;
    let admin = one.superuser().await;
    let outsider = one.outsider().await;
    let sow = "select setseed(0.5)";
    let give = "grant execute on function setseed(double precision) to public";
    admin.batch_execute(give).await.unwrap();
    let mut drawn = Vec::new();
    for _ in 0..2 {
        outsider.batch_execute(sow).await.unwrap();
        outsider.batch_execute("reset all").await.unwrap();
        let row = outsider.query_one("select random()", &[]).await.unwrap();
        drawn.push(row.get::<_, f64>(0).to_bits());
    }
    assert_eq!(drawn[0], drawn[1], "it works where it is allowed");
    let take = "revoke execute on function setseed(double precision) from public";
    admin.batch_execute(take).await.unwrap();
    assert_eq!(state(outsider.batch_execute(sow).await), "42501");
}

/// A schema-tier tenant's names are looked up in its own schema, by a function that everybody may call:
/// it must not make other names stand before PostgreSQL's, nor outlive the transaction.
#[tokio::test]
async fn a_search_path_is_one_schema_for_one_transaction() {
    let home = Home::new(Tier::Shared).await;
    let outsider = home.outsider().await;
    outsider.batch_execute("begin").await.unwrap();
    let path = "select waangu.path('waangu, pg_catalog')";
    outsider.batch_execute(path).await.unwrap();
    let show = "select current_setting('search_path')";
    let row = outsider.query_one(show, &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "\"waangu, pg_catalog\"");
    outsider.batch_execute("commit").await.unwrap();
    let row = outsider.query_one(show, &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "stock");
}

/// What one tenant's statement said is another tenant's data.
#[tokio::test]
async fn nobody_reads_what_was_prepared_before() {
    let home = Home::new(Tier::Shared).await;
    for view in ["pg_prepared_statements", "pg_cursors"] {
        let mut tx = home.write().await;
        let sql = format!("select * from {view}");
        let fault = tx.query(&sql, &[]).await.unwrap_err();
        assert_eq!(sql_state(&fault), Some("42501"), "{view}");
        let mut tx = home.write().await;
        let function = view.trim_end_matches('s');
        let sql = format!("select * from {function}()");
        let fault = tx.query(&sql, &[]).await.unwrap_err();
        assert_eq!(sql_state(&fault), Some("42501"), "{function}");
    }
}

/// A ledger that can be rewritten is not a ledger.
#[tokio::test]
async fn an_append_only_table_only_grows() {
    for tier in Tier::ALL {
        let home = Home::new(tier).await;
        home.stock_up(1, "kept").await;
        for sql in [
            "update movement set product_id = 1",
            "delete from movement",
            "truncate movement",
            "insert into movement (id, product_id) values (1, 1)
             on conflict (tenant_id, id) do update set product_id = 1",
            "select * from movement for update",
        ] {
            let mut tx = home.write().await;
            let fault = tx.execute(sql, &[]).await.unwrap_err();
            assert_eq!(sql_state(&fault), Some("42501"), "{tier} {sql}");
        }
        // Nor by way of its parent.
        let mut tx = home.write().await;
        let fault = tx.execute("delete from product", &[]).await.unwrap_err();
        assert_eq!(constraint(&fault), Some("movement_product_fkey"), "{tier}");
        drop(tx);
        assert_eq!(home.rows().await, [1, 1], "{tier}");
    }
}

/// A foreign key that finds another tenant's row would tell that it exists.
#[tokio::test]
async fn a_foreign_key_does_not_see_another_tenant() {
    let one = Home::new(Tier::Shared).await;
    let two = one.neighbour().await;
    two.stock_up(7, "hidden").await;
    let mut tx = one.write().await;
    let sql = "insert into movement (id, product_id) values (1, 7)";
    let fault = tx.execute(sql, &[]).await.unwrap_err();
    assert_eq!(constraint(&fault), Some("movement_product_fkey"));
}

/// The context of one module must not open the tables of another.
#[tokio::test]
async fn a_module_reaches_no_other_module() {
    let home = Home::new(Tier::Shared).await;
    home.stock_up(1, "of stock").await;
    let crm = module("crm");
    let admin = &home.cell.admin;
    let package = crate::support::package("crm", &[], &["select 1"]);
    admin
        .ensure_module(home.tenant, &home.placement, &package)
        .await
        .unwrap();
    let context = waangu_testkit::context(
        home.tenant,
        &home.placement,
        &crm,
        Access::Write,
        &home.cell.key,
    );
    let mut tx = TenantTx::begin(&home.cell.pools(&crm), &context)
        .await
        .unwrap();
    let fault = tx.query("select * from stock.product", &[]).await;
    assert_eq!(sql_state(&fault.unwrap_err()), Some("42501"));
    drop(tx);
    let result = TenantTx::begin(&home.pools, &context).await;
    assert_eq!(code(result), "context-refused");
}

/// After a failover to the wrong address, a module must say what is the matter, and show nothing.
#[tokio::test]
async fn a_server_that_only_reads_is_refused_by_name() {
    let home = Home::new(Tier::Dedicated).await;
    home.stock_up(1, "there").await;
    let admin = home.superuser().await;
    let sql = format!(
        "alter database {} set default_transaction_read_only = on",
        home.database()
    );
    admin.batch_execute(&sql).await.unwrap();
    let pools = home.cell.pools(&module("stock"));
    for access in [Access::Read, Access::Write] {
        let context = home.context(access);
        let fault = TenantTx::begin(&pools, &context).await.unwrap_err();
        assert_eq!(fault.code(), "database-read-only", "{access:?}");
        assert_eq!(sql_state(&fault), Some("25006"), "{access:?}");
    }
}
