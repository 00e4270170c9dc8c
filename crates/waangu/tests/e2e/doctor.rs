//! `waangu doctor isolation` on a platform that runs.

use crate::support::{Folder, Platform, Session, db::in_database};

/// An auditor asks whether every client is still kept apart, and an operator whose colleague has "just
/// tried something" must hear which table it was and what mends it.
#[tokio::test]
async fn drift_is_named_with_its_mend_and_gone_after_it() {
    let platform = Platform::start(Folder::new(), &["--http-port", "0"]).await;
    platform.tenant("kept", "dedicated").await;
    let fine = platform.cli(&["doctor", "isolation"]).await;
    assert_eq!(fine.code, Some(0), "{fine:?}");

    let registry = Session::open(&platform.ready.control_dsn).await;
    let tenant = "select id, cell from registry.tenant where slug = 'kept'";
    let row = registry.rows(tenant, &[]).await.remove(0);
    let (number, cell): (i64, String) = (row.get(0), row.get(1));
    let cells = &platform.ready.cells;
    let cell = cells.iter().find(|known| known.id == cell).unwrap();
    let database = format!("waangu_t_{number}");
    let admin = Session::open(&in_database(&cell.superuser_dsn, &database)).await;
    let drift = "alter table inventory.product no force row level security";
    admin.rows(drift, &[]).await;

    let found = platform
        .cli(&["doctor", "isolation", "--output", "json"])
        .await;
    assert_eq!(found.code, Some(1), "{found:?}");
    let lines: Vec<serde_json::Value> = serde_json::from_str(&found.stdout).unwrap();
    let drifts: Vec<_> = lines
        .iter()
        .filter(|line| line["verdict"] == "drift")
        .collect();
    let [drift] = drifts.as_slice() else {
        panic!("one drift: {lines:?}");
    };
    assert_eq!(drift["database"], database);
    let object = drift["object"].as_str().unwrap();
    assert!(object.contains("inventory.product"), "{object}");
    admin.rows(drift["mend"].as_str().unwrap(), &[]).await;
    let fine = platform.cli(&["doctor", "isolation"]).await;
    assert_eq!(fine.code, Some(0), "{fine:?}");
}
