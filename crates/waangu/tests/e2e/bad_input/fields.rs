//! Mistakes about what belongs to a tenant.

use serde_json::json;

use super::Matrix;

pub(super) async fn new_entitlements(matrix: &mut Matrix<'_>) {
    for (what, key) in [
        ("entitlement key with a space", "max users"),
        ("empty entitlement key", ""),
        ("entitlement key in capitals", "MAX"),
    ] {
        let mistake = json!({ "entitlements": { key: 1 } });
        matrix.tenant(what, mistake).await;
    }
    let long = json!({ "entitlements": { "k".repeat(81): 1 } });
    matrix
        .tenant("entitlement key of 81 characters", long)
        .await;
    for (what, value) in [
        ("limit that is a text", json!("5")),
        ("limit below zero", json!(-1)),
        ("limit that is a fraction", json!(1.5)),
        ("limit that is too large", json!(1_u64 << 53)),
    ] {
        let mistake = json!({ "entitlements": { "users": value } });
        matrix.tenant(what, mistake).await;
    }
    for (what, plan) in [("unknown plan", "platinum"), ("impossible plan", "Gold!")] {
        matrix.tenant(what, json!({ "plan": plan })).await;
    }
}

pub(super) async fn plans(matrix: &mut Matrix<'_>) {
    for (what, path, body) in [
        (
            "plan with an unknown key",
            "/plans/bad-plan",
            json!({ "entitlements": { "usres": 5 } }),
        ),
        (
            "plan with a value of another type",
            "/plans/bad-plan",
            json!({ "entitlements": { "inventory.batch_moves": "yes" } }),
        ),
        ("plan with an impossible id", "/plans/Bad", json!({})),
    ] {
        matrix.body(what, "PUT", path, body).await;
    }
}

pub(super) async fn entitlements_and_modules(matrix: &mut Matrix<'_>) {
    let base = "/tenants/bad-host/entitlements";
    for (what, method, path, body) in [
        (
            "put of a bad key",
            "PUT",
            format!("{base}/MAX"),
            json!({ "value": 1 }),
        ),
        (
            "put without a value",
            "PUT",
            format!("{base}/max"),
            json!({}),
        ),
        (
            "put of another field",
            "PUT",
            format!("{base}/max"),
            json!({ "value": 1, "origin": "plan" }),
        ),
        (
            "put of another type",
            "PUT",
            format!("{base}/users"),
            json!({ "value": true }),
        ),
        (
            "put for nobody",
            "PUT",
            "/tenants/bad-nobody/entitlements/max".to_owned(),
            json!({ "value": 1 }),
        ),
    ] {
        matrix.body(what, method, &path, body).await;
    }
    for (what, method, path) in [
        ("unknown entitlement", "GET", format!("{base}/max")),
        (
            "removal of an unknown entitlement",
            "DELETE",
            format!("{base}/max"),
        ),
        (
            "switching on an unknown module",
            "PUT",
            "/tenants/bad-host/modules/payroll".to_owned(),
        ),
        (
            "switching on an impossible module",
            "PUT",
            "/tenants/bad-host/modules/PAYROLL".to_owned(),
        ),
        (
            "switching off an unknown module",
            "DELETE",
            "/tenants/bad-host/modules/payroll".to_owned(),
        ),
        (
            "switching on a module for nobody",
            "PUT",
            "/tenants/bad-nobody/modules/inventory".to_owned(),
        ),
    ] {
        let call = matrix.call(method, &path);
        matrix.wrong(what, call).await;
    }
}

pub(super) async fn users(matrix: &mut Matrix<'_>) {
    let users = "/tenants/bad-host/users";
    let long = "p".repeat(257);
    let cases = [
        ("username with a space", json!({ "username": "root user" })),
        (
            "username with an at sign",
            json!({ "username": "root@bad-host" }),
        ),
        ("username in capitals", json!({ "username": "Root" })),
        ("empty username", json!({ "username": "" })),
        (
            "username of 65 characters",
            json!({ "username": "u".repeat(65) }),
        ),
        ("username that is in use", json!({ "username": "root" })),
        (
            "display name with a control character",
            json!({ "display_name": "\u{1b}[0m" }),
        ),
        ("empty display name", json!({ "display_name": "" })),
        ("short password", json!({ "password": "seven77" })),
        ("long password", json!({ "password": long })),
        ("unknown role", json!({ "roles": ["inventory.boss"] })),
        (
            "role of an unknown module",
            json!({ "roles": ["payroll.clerk"] }),
        ),
        ("impossible role", json!({ "roles": ["tenant-admin", ""] })),
        ("roles that are no list", json!({ "roles": "tenant-admin" })),
        ("unknown field of a user", json!({ "admin": true })),
    ];
    for (what, mistake) in cases {
        let mut user = json!({ "username": "new", "password": "long enough" });
        for (name, value) in mistake.as_object().unwrap() {
            user[name] = value.clone();
        }
        matrix.body(what, "POST", users, user).await;
    }
    let user = json!({ "username": "new" });
    matrix
        .body("user of nobody", "POST", "/tenants/bad-nobody/users", user)
        .await;
    let roles = json!({ "roles": ["inventory.viewer"] });
    let path = format!("{users}/nobody/roles");
    matrix
        .body("roles of an unknown user", "PUT", &path, roles)
        .await;
    let roles = json!({ "roles": ["boss"] });
    let path = format!("{users}/root/roles");
    matrix.body("new unknown role", "PUT", &path, roles).await;
    for (what, method, name) in [
        ("unknown user", "GET", "nobody"),
        ("impossible user", "GET", "No%20Body"),
        ("removal of an unknown user", "DELETE", "nobody"),
    ] {
        let call = matrix.call(method, &format!("{users}/{name}"));
        matrix.wrong(what, call).await;
    }
}
