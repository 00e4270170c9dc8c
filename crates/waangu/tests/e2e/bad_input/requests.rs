//! Mistakes about requests as such.

use serde_json::json;

use super::Matrix;

const JSON: &str = "application/json";

pub(super) async fn bodies(matrix: &mut Matrix<'_>) {
    let good = r#"{"slug":"bad-wish","name":"Bad","country":"SN"}"#;
    let cases = [
        ("no content type", "", good.to_owned()),
        ("wrong content type", "text/plain", good.to_owned()),
        (
            "form",
            "application/x-www-form-urlencoded",
            "slug=bad-wish".to_owned(),
        ),
        ("empty body", JSON, String::new()),
        ("half a body", JSON, good[..20].to_owned()),
        ("two bodies", JSON, format!("{good}{good}")),
        ("list as body", JSON, format!("[{good}]")),
        (
            "field given twice",
            JSON,
            good.replace(r#""name""#, r#""name":"A","name""#),
        ),
        ("lone surrogate", JSON, good.replace("Bad", "\\ud800")),
        ("deep body", JSON, "[".repeat(100_000)),
        (
            "body above the limit",
            JSON,
            good.replace("Bad", &"b".repeat(300_000)),
        ),
        (
            "body far above the limit",
            JSON,
            good.replace("Bad", &"b".repeat(2_000_000)),
        ),
    ];
    for (what, kind, body) in cases {
        let mut call = matrix.call("POST", "/tenants");
        if !kind.is_empty() {
            call = call.header("content-type", kind);
        }
        matrix.wrong(what, call.body(body)).await;
    }
    let latin = matrix.call("POST", "/tenants").header("content-type", JSON);
    let body = good.replace("Bad", "?").into_bytes();
    let body: Vec<u8> = body
        .into_iter()
        .map(|b| if b == b'?' { 0xe9 } else { b })
        .collect();
    matrix
        .wrong("body that is not UTF-8", latin.body(body))
        .await;
}

pub(super) async fn headers(matrix: &mut Matrix<'_>) {
    let wish = json!({ "slug": "bad-wish", "name": "", "country": "SN" });
    let long = "k".repeat(256);
    for (what, key) in [
        ("empty key", &b""[..]),
        ("key of 256 characters", long.as_bytes()),
        ("key that is not ASCII", "clé".as_bytes()),
    ] {
        let call = matrix
            .call("POST", "/tenants")
            .header("idempotency-key", key);
        matrix.wrong(what, call.json(&wish)).await;
    }
    // One request that works, and is done away with, so that its key is taken.
    let first = matrix.call("PUT", "/tenants/bad-host/entitlements/users");
    let first = first
        .header("idempotency-key", "bad-key")
        .json(&json!({ "value": 1 }));
    first.send().await.expect(200);
    let away = matrix.call("DELETE", "/tenants/bad-host/entitlements/users");
    assert_eq!(away.send().await.status, 204);
    let again = matrix.call("PUT", "/tenants/bad-host/entitlements/users");
    let again = again
        .header("idempotency-key", "bad-key")
        .json(&json!({ "value": 2 }));
    matrix.wrong("key used for another body", again).await;
    let good = json!({ "slug": "bad-wish", "name": "Bad", "country": "SN" });
    let elsewhere = matrix
        .call("POST", "/tenants")
        .header("idempotency-key", "bad-key");
    matrix
        .wrong("key used for another address", elsewhere.json(&good))
        .await;

    let url = matrix.platform.admin("/tenants");
    let bare = || matrix.http.post(&url).json(&good);
    let admin = format!("Basic {}", matrix.platform.ready.admin.token);
    let calls = [
        ("no token", bare()),
        ("wrong token", bare().token("wgo_wrong")),
        ("empty token", bare().header("authorization", "Bearer ")),
        (
            "token of another scheme",
            bare().header("authorization", &admin),
        ),
    ];
    for (what, call) in calls {
        matrix.wrong(what, call).await;
    }
}

pub(super) async fn addresses(matrix: &mut Matrix<'_>) {
    for (what, method, path) in [
        ("cursor that is none", "GET", "/tenants?cursor=abc"),
        ("negative cursor", "GET", "/tenants?cursor=ten_-1"),
        ("limit of zero", "GET", "/tenants?limit=0"),
        ("limit of 201", "GET", "/tenants?limit=201"),
        ("limit that is no number", "GET", "/tenants?limit=many"),
        ("unknown parameter", "GET", "/tenants?page=2"),
        ("audit limit of 501", "GET", "/audit?limit=501"),
        ("audit before a word", "GET", "/audit?before=now"),
        (
            "audit of an impossible tenant",
            "GET",
            "/audit?tenant=No%20Body",
        ),
        (
            "unknown operation",
            "GET",
            "/operations/op_01990000-0000-7000-8000-000000000000",
        ),
        ("impossible operation", "GET", "/operations/7"),
        (
            "events of an unknown operation",
            "GET",
            "/operations/op_01990000-0000-7000-8000-000000000000/events",
        ),
        ("unknown tenant", "GET", "/tenants/bad-nobody"),
        ("impossible tenant", "GET", "/tenants/No%20Body"),
        ("tenant that is not UTF-8", "GET", "/tenants/%FF"),
        ("method that is not offered", "PUT", "/tenants"),
        ("address that is not there", "GET", "/nothing"),
        ("address above the API", "GET", "/../healthz"),
    ] {
        let call = matrix.call(method, path);
        matrix.wrong(what, call).await;
    }
}
