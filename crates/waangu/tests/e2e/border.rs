//! What a module's own database login can see, as somebody would hold it who has broken into the
//! module.

use waangu_api::ready::ReadyCell;

use crate::support::{Session, db::in_database, shared};

/// Tenant tables of a database, by full name.
const TABLES: &str = "
select format('%I.%I', n.nspname, c.relname)
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'
 where c.relkind in ('r', 'p') and (n.nspname = 'inventory' or n.nspname ~ '^t_[0-9]+_inventory$')";

/// Databases with tenants in them.
const DATABASES: &str = "
select datname::text from pg_database
 where datname = 'waangu' or datname ~ '^waangu_(schema|t)_[0-9]+$'";

/// Rows that were there for the administrator to see.
#[derive(Debug, Default)]
struct Seen {
    shared: i64,
    schema: i64,
    dedicated: i64,
}

/// A hole in one module must not be a hole in every client's books: without the proof that only the
/// gateway can make, the login sees no row in any table of any tenant, in any tier.
#[tokio::test]
async fn a_module_login_without_context_sees_nothing() {
    let platform = shared().await;
    let mut seen = Seen::default();
    for cell in &platform.ready.cells {
        let admin = Session::open(&cell.superuser_dsn).await;
        for database in admin.texts(DATABASES).await {
            let rows = look(cell, &database).await;
            match database.as_str() {
                "waangu" => seen.shared += rows,
                name if name.contains("_schema_") => seen.schema += rows,
                _ => seen.dedicated += rows,
            }
        }
    }
    // Otherwise the test would have looked at nothing.
    let Seen {
        shared,
        schema,
        dedicated,
    } = seen;
    assert!(shared > 0 && schema > 0 && dedicated > 0, "{seen:?}");
}

/// Looks into every tenant table of a database with both logins; returns what the administrator sees.
async fn look(cell: &ReadyCell, database: &str) -> i64 {
    // Another test may be removing this very database.
    let Ok(admin) = Session::try_open(&in_database(&cell.superuser_dsn, database)).await else {
        return 0;
    };
    let dsn = in_database(&cell.module_dsns["inventory"], database);
    let (module, liar) = (Session::open(&dsn).await, Session::open(&dsn).await);
    let mut total = 0;
    for table in admin.texts(TABLES).await {
        let count = format!("select count(*) from {table}");
        let rows = module.number(&count).await;
        assert_eq!(rows, 0, "{database}: {table} shows rows without a context");
        for (login, dsn) in &cell.module_dsns {
            // Other logins of the module may be kept out altogether.
            if let Ok(other) = Session::try_open(&in_database(dsn, database)).await {
                let rows = other.try_number(&count).await.unwrap_or(0);
                assert_eq!(rows, 0, "{database}: {table} shows {login} rows");
            }
        }
        let tenants = format!("select distinct tenant_id::text from {table} limit 3");
        for tenant in admin.texts(&tenants).await {
            liar.texts(&format!("set app.current_tenant = '{tenant}'"))
                .await;
            // Refused with an error is as good as shown nothing.
            let rows = liar.try_number(&count).await.unwrap_or(0);
            assert_eq!(rows, 0, "{database}: {table} believes a mere setting");
        }
        total += admin.number(&count).await;
    }
    total
}

/// The registry knows every client, user and operator: a module's login has no business there.
#[tokio::test]
async fn a_module_login_does_not_reach_the_registry() {
    let platform = shared().await;
    for cell in &platform.ready.cells {
        let dsn = in_database(&cell.module_dsns["inventory"], "waangu_control");
        assert!(Session::try_open(&dsn).await.is_err(), "{}", cell.id);
        let module = Session::open(&cell.module_dsns["inventory"]).await;
        let powers = "select count(*) from pg_roles where rolname = current_user
                         and (rolsuper or rolbypassrls or rolcreaterole or rolcreatedb)";
        assert_eq!(module.number(powers).await, 0, "{}", cell.id);
        let owned = "select count(*) from pg_class where relowner = current_user::regrole";
        assert_eq!(module.number(owned).await, 0, "{}", cell.id);
    }
}
