//! A fresh control database for each test, copied from one that was migrated once.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio_postgres::error::SqlState;
use waangu_registry::Registry;

use crate::server::{PASSWORD, Server, cluster, connect};

const TEMPLATE: &str = "control_template";
const GATEWAY: &str = "waangu_gateway";

/// Connections of a test's registry.
const CONNECTIONS: usize = 16;

/// A control database of one test.
#[derive(Debug)]
pub struct Control {
    /// The registry on it.
    pub registry: Registry,
    /// Its owner's connection string.
    pub dsn: String,
    /// A gateway's connection string.
    pub gateway_dsn: String,
}

/// A fresh, migrated, empty control database on the shared server.
///
/// # Panics
/// As [`cluster`].
pub async fn control() -> Control {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let server = cluster().await;
    let name = format!("control_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    create(server, &name, &format!("template {TEMPLATE}")).await;
    // Rights on the database itself are not copied from the template.
    let admin = connect(&server.superuser_dsn("postgres"))
        .await
        .expect("reach the test server");
    admin
        .batch_execute(&format!("grant connect on database {name} to {GATEWAY}"))
        .await
        .expect("let the gateway in");
    let dsn = server.superuser_dsn(&name);
    Control {
        registry: Registry::new(&dsn, CONNECTIONS).expect("a control dsn"),
        dsn,
        gateway_dsn: server.dsn(GATEWAY, PASSWORD, &name),
    }
}

pub(crate) async fn prepare(server: &Server) {
    create(server, TEMPLATE, "").await;
    let admin = connect(&server.superuser_dsn("postgres"))
        .await
        .expect("reach the test server");
    // The migration grants to this role, which the operator makes.
    admin
        .batch_execute(&format!(
            "create role {GATEWAY} login password '{PASSWORD}'"
        ))
        .await
        .expect("make the gateway's role");
    Registry::new(&server.superuser_dsn(TEMPLATE), 1)
        .expect("a control dsn")
        .session()
        .await
        .expect("reach the control template")
        .migrate()
        .await
        .expect("migrate the control template");
}

/// The template may be in use for a moment after its migration.
async fn create(server: &Server, name: &str, template: &str) {
    let admin = connect(&server.superuser_dsn("postgres"))
        .await
        .expect("reach the test server");
    let sql = format!("create database {name} {template}");
    let created = async {
        loop {
            match admin.batch_execute(&sql).await {
                Err(error) if error.code() == Some(&SqlState::OBJECT_IN_USE) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                other => return other,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), created)
        .await
        .expect("the control template is free within seconds")
        .expect("create a control database");
}
