//! The raw-socket probes of the edge design §1.6: what a hyper gateway must do itself.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use crate::stage::{Stage, ask, empty};

const OK: &str = "HTTP/1.1 200";
const BAD: &str = "HTTP/1.1 400";

fn raw(stage: &Stage, line: &str, headers: &str, rest: &str) -> Vec<u8> {
    let token = stage.token(stage.people.admin, "acme");
    format!("{line} HTTP/1.1\r\n{headers}Authorization: Bearer {token}\r\n\r\n{rest}").into_bytes()
}

const HOST: &str = "Host: acme.waangu.localhost\r\n";

/// If gateway and module read a request's end differently, a stranger's bytes become the next
/// client's request.
#[tokio::test]
async fn a_request_framed_twice_is_refused_in_both_orders() {
    let stage = Stage::new().await;
    for pair in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
        "content-length:0\r\ntransfer-encoding:\tchunked\r\n",
    ] {
        let bytes = raw(
            &stage,
            "POST /api/inventory/products",
            &format!("{HOST}{pair}"),
            "0\r\n\r\nG",
        );
        let answer = stage.client.raw(&bytes).await;
        assert!(answer.starts_with(BAD), "{pair}: {answer}");
        assert!(answer.contains("malformed-request"), "{pair}: {answer}");
        assert!(answer.contains("connection: close"), "{pair}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{pair}: {answer}");
    }
    assert_eq!(stage.module_seen.requests.load(Ordering::SeqCst), 0);
    stage.end().await;
}

/// The same pair behind an honest request on one connection must not slip through.
#[tokio::test]
async fn a_pipelined_smuggling_pair_never_reaches_the_module() {
    let stage = Stage::new().await;
    let mut bytes = raw(&stage, "GET /api/inventory/products", HOST, "");
    let pair = format!("{HOST}Content-Length: 40\r\nTransfer-Encoding: chunked\r\n");
    let inner = "0\r\n\r\nGET /api/inventory/products/7 HTTP/1.1\r\n\r\n";
    bytes.extend(raw(&stage, "POST /api/inventory/products", &pair, inner));
    let answer = stage.client.raw(&bytes).await;
    assert!(!answer.contains("products/7"), "{answer}");
    assert!(!answer.contains("\"method\":\"POST\""), "{answer}");
    assert!(stage.module_seen.requests.load(Ordering::SeqCst) <= 1);
    stage.end().await;
}

/// Other shapes of smuggling, which hyper refuses for us: this notices if a new version stops.
#[tokio::test]
async fn broken_framing_is_refused() {
    let stage = Stage::new().await;
    for headers in [
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: 1, 1\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "X: a\r\n b\r\n",
    ] {
        let bytes = raw(
            &stage,
            "POST /api/inventory/products",
            &format!("{HOST}{headers}"),
            "0\r\n\r\n",
        );
        let answer = stage.client.raw(&bytes).await;
        assert!(answer.starts_with(BAD), "{headers}: {answer}");
    }
    assert_eq!(stage.module_seen.requests.load(Ordering::SeqCst), 0);
    stage.end().await;
}

/// Honest clients upload in chunks, and keep their connection.
#[tokio::test]
async fn chunked_and_plain_requests_share_a_connection() {
    let stage = Stage::new().await;
    let chunked = format!("{HOST}Transfer-Encoding: chunked\r\n");
    let plain = format!("{HOST}Content-Length: 5\r\n");
    let mut bytes = raw(
        &stage,
        "POST /api/inventory/products",
        &chunked,
        "3\r\nabc\r\n0\r\n\r\n",
    );
    bytes.extend(raw(&stage, "POST /api/inventory/products", &plain, "hello"));
    bytes.extend(raw(&stage, "GET /api/inventory/products", HOST, ""));
    let answer = stage.client.raw(&bytes).await;
    assert_eq!(answer.matches(OK).count(), 3, "{answer}");
    assert!(
        answer.contains("\"body\":\"abc\"") && answer.contains("\"body\":\"hello\""),
        "{answer}"
    );
    stage.end().await;
}

/// Two hosts in one request are two tenants; whoever picks the other one leaks.
#[tokio::test]
async fn a_request_names_exactly_one_host() {
    let stage = Stage::new().await;
    let get = "GET /api/inventory/products";
    for (line, hosts) in [
        (
            get,
            "Host: acme.waangu.localhost\r\nHost: beta.waangu.localhost\r\n",
        ),
        (
            get,
            "Host: acme.waangu.localhost\r\nhost: acme.waangu.localhost\r\n",
        ),
        (get, ""),
        (get, "Host:\r\n"),
        (
            get,
            "Host: acme.waangu.localhost, beta.waangu.localhost\r\n",
        ),
        (get, "Host: evil@acme.waangu.localhost\r\n"),
        (
            "GET https://beta.waangu.localhost/api/inventory/products",
            HOST,
        ),
    ] {
        let answer = stage.client.raw(&raw(&stage, line, hosts, "")).await;
        assert!(answer.starts_with(BAD), "{line} {hosts}: {answer}");
    }
    assert_eq!(stage.module_seen.requests.load(Ordering::SeqCst), 0);
    stage.end().await;
}

/// Heads without end eat memory: one client could take the gateway down for all tenants.
#[tokio::test]
async fn an_oversized_head_is_refused() {
    let stage = Stage::new().await;
    let big = format!("{HOST}X-Big: {}\r\n", "a".repeat(200 * 1024));
    let answer = stage
        .client
        .raw(&raw(&stage, "GET /api/inventory/products", &big, ""))
        .await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer:.200}"
    );
    let many = (0..150).fold(HOST.to_owned(), |mut text, number| {
        write!(text, "X-{number}: a\r\n").unwrap();
        text
    });
    let answer = stage
        .client
        .raw(&raw(&stage, "GET /api/inventory/products", &many, ""))
        .await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer:.200}");
    assert_eq!(stage.module_seen.requests.load(Ordering::SeqCst), 0);
    stage.end().await;
}

/// One forged header that a module believes is somebody else's identity.
#[tokio::test]
async fn forged_identity_headers_never_arrive() {
    let stage = Stage::new().await;
    let forged = [
        "X-Tenant-Id",
        "x_tenant_id",
        "X-User-Id",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "Forwarded",
        "X-Real-Ip",
        "X-Original-Url",
        "X-Rewrite-Url",
        "Waangu-Context",
        "Waangu_Context",
        "Waangu-Client-Ip",
        "Waangu-Request",
        "Cookie",
        "Te",
        "Trailer",
        "Proxy-Authorization",
        "Keep-Alive",
        "X-Secret",
    ];
    let mut request = stage
        .request("GET", "/api/inventory/products?page=2")
        .header("connection", "close, x-secret, waangu-context")
        .header("accept", "text/plain");
    for name in forged {
        request = request.header(name, "forged");
    }
    let got = stage.client.send(empty(request)).await;
    assert_eq!(got.status, 200, "{got:?}");
    let document = got.json();
    let mut names: Vec<&String> = document["headers"].as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(
        names,
        ["accept", "host", "waangu-context", "waangu-request"]
    );
    assert_eq!(
        document["headers"]["host"],
        stage.module_address.to_string()
    );
    assert_eq!(
        document["headers"]["waangu-request"],
        got.header("waangu-request")
    );
    assert_eq!(document["target"], "/products?page=2");
    stage.end().await;
}

/// A client that nominates our header as a hop's own would strip the identity, and a careless module
/// would then run without one.
#[tokio::test]
async fn nominated_headers_do_not_take_the_context_away() {
    let stage = Stage::new().await;
    let request = stage
        .request("GET", "/api/inventory/products")
        .header("connection", "waangu-context")
        .header("connection", "waangu-request, host, authorization");
    let got = stage.client.send(empty(request)).await;
    assert_eq!(got.status, 200, "{got:?}");
    assert_eq!(got.json()["context"]["slug"], "acme");
    stage.end().await;
}

/// Paths with two readings are checked as one route and served as another.
#[tokio::test]
async fn paths_with_two_readings_are_refused() {
    let stage = Stage::new().await;
    for path in [
        "/api/inventory/../../admin/v1/tenants",
        "/api/inventory/%2e%2e/products",
        "/api//inventory/products",
        "/api/inventory/products%2f7",
        "/api/inventory/products/%00",
        "/api/inventory/products/a%5cb",
        "/api/inventory/%70roducts",
        "/api/inventory/products/..;/x/..",
    ] {
        let line = format!("GET {path}");
        let answer = stage.client.raw(&raw(&stage, &line, HOST, "")).await;
        assert!(answer.starts_with(BAD), "{path}: {answer}");
    }
    assert_eq!(stage.module_seen.requests.load(Ordering::SeqCst), 0);
    stage.end().await;
}

/// An upgraded connection would carry requests that nobody checks.
#[tokio::test]
async fn upgrades_and_tunnels_are_refused() {
    let stage = Stage::new().await;
    let upgrade = format!("{HOST}Connection: upgrade\r\nUpgrade: websocket\r\n");
    let mut bytes = raw(&stage, "GET /api/inventory/products", &upgrade, "");
    bytes.extend(raw(&stage, "GET /api/inventory/products", HOST, ""));
    let answer = stage.client.raw(&bytes).await;
    assert!(answer.starts_with(BAD), "{answer}");
    let tunnel = raw(&stage, "CONNECT acme.waangu.localhost:443", HOST, "");
    let answer = stage.client.raw(&tunnel).await;
    assert!(answer.starts_with(BAD), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    stage.end().await;
}

/// In HTTP/2 the authority is said twice if `host` is there, too: the two must agree.
#[tokio::test]
async fn h2_authority_and_host_must_agree() {
    let stage = Stage::new().await;
    let token = stage.token(stage.people.admin, "acme");
    let request = |host: Option<&str>| {
        let url = "https://acme.waangu.localhost/api/inventory/products";
        let mut request = http::Request::builder()
            .uri(url)
            .header("authorization", format!("Bearer {token}"));
        if let Some(host) = host {
            request = request.header("host", host);
        }
        empty(request)
    };
    let got = stage.client.send_h2(request(None)).await;
    assert_eq!(got.status, 200, "{got:?}");
    assert_eq!(got.json()["context"]["slug"], "acme");
    let got = stage
        .client
        .send_h2(request(Some("acme.waangu.localhost")))
        .await;
    assert_eq!(got.status, 200, "{got:?}");
    let got = stage
        .client
        .send_h2(request(Some("beta.waangu.localhost")))
        .await;
    assert_eq!(got.status, 400, "{got:?}");
    assert_eq!(got.code(), "malformed-request");
    stage.end().await;
}

/// A request line that is not HTTP must not crash a worker or be forwarded.
#[tokio::test]
async fn garbage_is_refused() {
    let stage = Stage::new().await;
    for bytes in [
        &b"\x00\x01\x02\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let answer = stage.client.raw(bytes).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
    let got = stage.client.send(empty(ask("GET", "", "/"))).await;
    assert_eq!(got.status, 200);
    stage.end().await;
}
