//! One tenant's request sees and changes one tenant's rows, in each tier.

use waangu_identity::proof::Access;
use waangu_kernel::placement::Tier;
use waangu_tenancy::{TenantTx, constraint, sql_state};

use crate::support::{Home, TABLE_NAMES, code, count, enter, module, state};
use crate::traces::SET_CONFIG_FOR_ALL;

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
