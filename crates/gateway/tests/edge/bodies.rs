//! Bodies: limits, streaming, and what goes back to clients.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};

use crate::client::whole;
use crate::stage::{Stage, ask, empty};

const PRODUCTS: &str = "/api/inventory/products";

fn chunks(
    count: usize,
    size: usize,
) -> StreamBody<impl futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send> {
    let piece = Bytes::from(vec![b'x'; size]);
    StreamBody::new(futures_util::stream::iter(
        (0..count).map(move |_| Ok(Frame::data(piece.clone()))),
    ))
}

/// A body without a bound fills a module's memory; one client stops it for all.
#[tokio::test]
async fn bodies_are_bounded_announced_or_streamed() {
    let stage = Stage::with(|limits| limits.body = 10_000).await;
    let post = || stage.request("POST", PRODUCTS);
    let exact = post()
        .body(Full::new(Bytes::from(vec![b'x'; 10_000])))
        .unwrap();
    let got = stage.client.send(exact).await;
    assert_eq!(got.status, 200);
    assert_eq!(got.json()["headers"]["content-length"], "10000");

    let announced = post()
        .body(Full::new(Bytes::from(vec![b'x'; 10_001])))
        .unwrap();
    let got = stage.client.send(announced).await;
    assert_eq!(
        (got.status.as_u16(), got.code().as_str()),
        (413, "body-too-large")
    );
    assert_eq!(stage.module_seen.requests.load(Ordering::SeqCst), 1);

    let streamed = whole(
        stage
            .client
            .begin(post().body(chunks(10, 1_000)).unwrap())
            .await,
    )
    .await;
    assert_eq!(streamed.status, 200);
    assert_eq!(streamed.json()["headers"]["transfer-encoding"], "chunked");

    let before = stage.module_seen.requests.load(Ordering::SeqCst);
    let got = whole(
        stage
            .client
            .begin(post().body(chunks(11, 1_000)).unwrap())
            .await,
    )
    .await;
    assert_eq!(
        (got.status.as_u16(), got.code().as_str()),
        (413, "body-too-large")
    );
    assert!(stage.module_seen.requests.load(Ordering::SeqCst) <= before + 1);
    stage.end().await;
}

/// A body that never ends holds a place in the tenant's share; many of them are an outage.
#[tokio::test]
async fn a_body_that_stops_coming_ends_the_request() {
    let stage = Stage::with(|limits| limits.body_idle = Duration::from_millis(300)).await;
    let token = stage.token(stage.people.admin, "acme");
    let head = format!(
        "POST {PRODUCTS} HTTP/1.1\r\nHost: acme.waangu.localhost\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: 100\r\n\r\nonly this"
    );
    let answer = stage.client.raw(head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("did not arrive in time"), "{answer}");
    stage.end().await;
}

/// A module that merges trailers into headers would believe an identity that came after the checks.
#[tokio::test]
async fn trailers_are_dropped() {
    let stage = Stage::new().await;
    let token = stage.token(stage.people.admin, "acme");
    let request = format!(
        "POST {PRODUCTS} HTTP/1.1\r\nHost: acme.waangu.localhost\r\nAuthorization: Bearer {token}\r\n\
         Trailer: waangu-context\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\n{{}}\r\n0\r\nwaangu-context: forged\r\n\r\n"
    );
    let answer = stage.client.raw(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"trailers\":false"), "{answer}");
    assert!(answer.contains("\"body\":\"{}\""), "{answer}");
    assert!(!answer.contains("forged"), "{answer}");
    stage.end().await;
}

/// A client that asks for much and reads nothing holds memory and a place until it is cut.
#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let stage = Stage::with(|limits| {
        limits.write_stall = Duration::from_millis(300);
        limits.tenant_in_flight = 1;
    })
    .await;
    let answer = stage
        .client
        .begin(empty(stage.request("GET", "/api/inventory/big")))
        .await;
    assert_eq!(answer.status(), 200);
    // A request holds its place until its answer's last byte, not only until its first.
    assert_eq!(stage.get(PRODUCTS).await.code(), "rate-limited");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    // Its place is free again, although its client still holds the connection.
    assert_eq!(stage.get(PRODUCTS).await.status, 200);
    assert!(answer.into_body().collect().await.is_err());
    let whole = stage.get("/api/inventory/big").await;
    assert_eq!(whole.body.len(), crate::upstream::BIG);
    stage.end().await;
}

/// A module that answers before it has read the body must still be heard.
#[tokio::test]
async fn an_early_answer_is_passed_on() {
    let stage = Stage::new().await;
    let request = stage
        .request("POST", "/api/inventory/deaf")
        .body(chunks(100, 1_000))
        .unwrap();
    assert_eq!(stage.client.begin(request).await.status(), 409);
    stage.end().await;
}

/// What modules say in private must not reach clients; what clients need must.
#[tokio::test]
async fn answers_are_cleaned_and_marked() {
    let stage = Stage::new().await;
    let got = stage.get(PRODUCTS).await;
    for private in ["waangu-secret", "set-cookie", "x-private", "connection"] {
        assert_eq!(got.header(private), "", "{private}");
    }
    assert_eq!(got.header("etag"), "\"7\"");
    assert!(got.header("waangu-request").starts_with("req_"));
    assert!(
        got.header("strict-transport-security")
            .starts_with("max-age=")
    );
    let head = stage
        .client
        .send(empty(ask("HEAD", "acme", PRODUCTS)))
        .await;
    assert_eq!((head.status.as_u16(), head.body.len()), (401, 0));
    stage.end().await;
}

/// Progress must be seen while it happens, however long an operation takes.
#[tokio::test]
async fn event_streams_are_passed_on_at_once_and_without_a_time_limit() {
    let stage = Stage::with(|limits| {
        limits.body_idle = Duration::from_millis(100);
        limits.connection_idle = Duration::from_millis(200);
    })
    .await;
    for host in ["admin", "api"] {
        let request = ask("GET", host, "/admin/v1/operations/1/events");
        let answer = stage.client.begin(empty(request)).await;
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let mut body = answer.into_body();
        for event in ["data: 1\n\n", "data: 2\n\n"] {
            let frame = tokio::time::timeout(Duration::from_secs(2), body.frame())
                .await
                .unwrap();
            assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), event);
        }
        let silent = tokio::time::timeout(Duration::from_millis(800), body.frame()).await;
        assert!(silent.is_err(), "{silent:?}");
    }
    stage.end().await;
}
