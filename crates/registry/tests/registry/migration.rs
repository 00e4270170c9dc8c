//! Migrations, the gateway's rights, and the audit log's walls.

use tokio::task::JoinSet;
use waangu_registry::{Registry, SCHEMA_VERSION};
use waangu_testkit::{connect, control};

use crate::support::{code, create, parsed, session, stock, world};

/// Several control processes start at once after an upgrade; none may fail, and none may apply a
/// migration twice.
#[tokio::test]
async fn migrations_may_be_repeated_and_raced() {
    let control = control().await;
    let admin = connect(&control.dsn).await.unwrap();
    admin
        .batch_execute("drop schema registry cascade; drop table waangu_schema_version")
        .await
        .unwrap();
    let mut workers = JoinSet::new();
    for _ in 0..8 {
        let registry = control.registry.clone();
        workers.spawn(async move { registry.session().await?.migrate().await });
    }
    while let Some(worker) = workers.join_next().await {
        worker.unwrap().unwrap();
    }
    session(&control).await.migrate().await.unwrap();
    let sql = "select count(*) - count(distinct version), max(version) from waangu_schema_version";
    let row = admin.query_one(sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0, "applied twice");
    assert_eq!(row.get::<_, i32>(1), SCHEMA_VERSION);
}

/// An old program on a newer database would misread it.
#[tokio::test]
async fn a_newer_database_is_refused() {
    let control = control().await;
    let admin = connect(&control.dsn).await.unwrap();
    admin
        .batch_execute("insert into waangu_schema_version values (99)")
        .await
        .unwrap();
    assert_eq!(code(session(&control).await.migrate().await), "internal");
}

/// A compromised gateway must not learn names of people and clients, nor password hashes.
#[tokio::test]
async fn a_gateway_sees_routes_and_modules_only() {
    let control = world().await;
    let mut session = session(&control).await;
    create(&mut session, "acme").await.unwrap();
    let gateway = connect(&control.gateway_dsn).await.unwrap();
    for sql in [
        "select * from registry.tenant_route",
        "select * from registry.module",
        "select * from registry.entitlement_set",
    ] {
        assert_eq!(gateway.query(sql, &[]).await.unwrap().len(), 1, "{sql}");
    }
    let admin = connect(&control.dsn).await.unwrap();
    let tables = "select c.relname from pg_class c
                   where c.relnamespace = 'registry'::regnamespace and c.relkind in ('r', 'v')
                     and c.relname not in ('tenant_route', 'module', 'entitlement_set')";
    let tables = admin.query(tables, &[]).await.unwrap();
    assert!(tables.len() > 10);
    for table in &tables {
        let table: &str = table.get(0);
        let sql = format!("select * from registry.{table}");
        let error = gateway.query(&sql, &[]).await.expect_err(table);
        assert_eq!(error.code().unwrap().code(), "42501", "{table}");
    }
    let columns = "select string_agg(attname, ' ' order by attnum) from pg_attribute
                    where attrelid = 'registry.tenant_route'::regclass and attnum > 0";
    let row = admin.query_one(columns, &[]).await.unwrap();
    assert_eq!(
        row.get::<_, &str>(0),
        "id slug active gone cell tier bucket epoch parent_id changed_xid modules grants \
         plan profile own heading_cell heading_tier heading_bucket heading_epoch"
    );
    for (sql, code) in [
        ("update registry.module set version = '6.6.6'", "42501"),
        // Nobody can: it is a view of two tables.
        ("update registry.tenant_route set slug = 'stolen'", "55000"),
        ("create table registry.t (id bigint)", "42501"),
    ] {
        let error = gateway.execute(sql, &[]).await.expect_err(sql);
        assert_eq!(error.code().unwrap().code(), code, "{sql}");
    }
}

/// Whoever owns a module's login on the same server could take the control plane's locks and stop it.
#[tokio::test]
async fn strangers_do_not_get_in() {
    let control = control().await;
    let admin = connect(&control.dsn).await.unwrap();
    admin
        .batch_execute("drop schema registry cascade; drop table waangu_schema_version")
        .await
        .unwrap();
    session(&control).await.migrate().await.unwrap();
    let name: String = admin
        .query_one("select current_database()::text", &[])
        .await
        .unwrap()
        .get(0);
    let cell = waangu_testkit::cell().await;
    let error = connect(&cell.module_dsn(&stock(), &name)).await.map(drop);
    assert_eq!(error.unwrap_err().code().unwrap().code(), "42501");
    connect(&control.gateway_dsn).await.unwrap();
}

/// An auditor trusts the log only if nobody can rewrite it, the operator's own login included.
#[tokio::test]
async fn the_audit_log_only_grows() {
    let control = world().await;
    let mut session = session(&control).await;
    let id = create(&mut session, "acme").await.unwrap();
    let acme = parsed("acme");
    let tx = session.begin().await.unwrap();
    let detail = serde_json::json!({ "tier": "shared" });
    tx.record_audit("op", "tenant.create", Some((id, &acme)), &detail)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let admin = connect(&control.dsn).await.unwrap();
    for sql in [
        "update registry.audit_event set actor = 'nobody'",
        "delete from registry.audit_event",
        "truncate registry.audit_event",
        "truncate registry.audit_event cascade",
    ] {
        let error = admin.execute(sql, &[]).await.expect_err(sql);
        assert_eq!(error.code().unwrap().code(), "42501", "{sql}");
    }
    let tx = session.begin().await.unwrap();
    let log = tx.list_audit(Some(&acme), i64::MAX, 10).await.unwrap();
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].detail, detail);
}

/// A registry that nobody listens at must be an error within seconds, not a hang.
#[tokio::test]
async fn an_absent_database_is_said_to_be_unavailable() {
    let registry = Registry::new("postgresql://nobody:x@127.0.0.1:1/none", 1).unwrap();
    assert_eq!(code(registry.session().await), "database-unavailable");
}
