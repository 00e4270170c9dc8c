//! The machine-readable description of the admin API.

use serde_json::Value;

use crate::support::{run, shared};

/// Clients are generated from it: a description that differs from what is served, or from what the
/// program prints, makes clients that fail.
#[tokio::test]
async fn the_document_that_is_served_is_the_one_that_is_printed() {
    let platform = shared().await;
    let served = platform.operate("GET", "/openapi.json", None).await;
    let served = served.expect(200);
    let printed = run(&["openapi"]).await;
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let printed: Value = serde_json::from_str(&printed.stdout).unwrap();
    assert_eq!(served, printed);
    let version = served["openapi"].as_str().unwrap();
    assert!(version.starts_with("3.1."), "{version}");
}

/// One forgotten check on one path would be an unlocked door to all clients.
#[tokio::test]
async fn every_path_asks_for_the_operators_token() {
    let platform = shared().await;
    let document = platform.operate("GET", "/openapi.json", None).await;
    let document = document.expect(200);
    let user = platform
        .sign_in("awa@teranga-market", platform.demo_password())
        .await;
    let http = platform.http();
    let mut tried = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path
            .replace("{slug}", "teranga-market")
            .replace("{module}", "inventory")
            .replace("{username}", "awa")
            .replace("{key}", "plan.users")
            .replace("{id}", "op_01990000-0000-7000-8000-000000000000");
        let url = platform.admin(path.strip_prefix("/admin/v1").unwrap());
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            let bare = http.call(&method, &url).send().await;
            bare.refused(401, "unauthenticated");
            assert!(
                bare.header("www-authenticate").is_some(),
                "{method} {path}: RFC 9110 §11.6.1 wants a challenge"
            );
            for stranger in ["wgo_guess", &user] {
                let refused = http.call(&method, &url).token(stranger).send().await;
                refused.refused(401, "unauthenticated");
            }
            tried += 1;
        }
    }
    assert!(tried >= 25, "only {tried} operations");
    let still = platform
        .operate("GET", "/tenants/teranga-market", None)
        .await;
    assert_eq!(still.expect(200)["state"], "active");
}
