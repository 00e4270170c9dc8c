//! Overload, restarts, slowness, and the end.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep};
use waangu_gateway::Rate;

use crate::stage::{Stage, ask, empty};

const PRODUCTS: &str = "/api/inventory/products";
const SLOW: &str = "/api/inventory/slow";

/// With the module's process dead, people must be told when to come back instead of waiting.
#[tokio::test]
async fn a_dead_module_is_answered_503_in_time() {
    let patience = Duration::from_secs(1);
    let stage = Stage::with(|limits| limits.connect_patience = patience).await;
    assert_eq!(stage.get(PRODUCTS).await.status, 200);
    stage.module_stop.cancel();
    sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    let got = stage.get(PRODUCTS).await;
    assert_eq!(
        (got.status.as_u16(), got.code().as_str()),
        (503, "module-unavailable")
    );
    assert_ne!(got.header("retry-after"), "");
    assert!(begun.elapsed() < Duration::from_secs(2));
    let text = String::from_utf8_lossy(&got.body).into_owned();
    assert!(
        !text.contains("127.0.0.1") && !text.contains("refused"),
        "{text}"
    );
    // A write is not tried again behind the client's back.
    let begun = Instant::now();
    let got = stage
        .client
        .send(empty(stage.request("POST", PRODUCTS)))
        .await;
    assert_eq!(got.code(), "module-unavailable");
    assert!(begun.elapsed() < patience);
    stage.end().await;
}

/// A module's upgrade must look like one slow request, not like an error.
#[tokio::test]
async fn a_restarting_module_is_bridged() {
    let stage = Stage::new().await;
    assert_eq!(stage.get(PRODUCTS).await.status, 200);
    stage.module_stop.cancel();
    sleep(Duration::from_millis(50)).await;
    let restart = async {
        sleep(Duration::from_millis(700)).await;
        stage.restart_module().await;
    };
    let put = stage
        .request("PUT", "/api/inventory/products/7")
        .body(http_body_util::Full::new(bytes::Bytes::from("{}")))
        .unwrap();
    let (get, put, ()) = tokio::join!(stage.get(PRODUCTS), stage.client.send(put), restart);
    assert_eq!(get.status, 200, "{get:?}");
    assert_eq!(
        (put.status.as_u16(), &put.json()["body"]),
        (200, &"{}".into())
    );
    stage.end().await;
}

/// A module that hangs must not hang its clients.
#[tokio::test]
async fn a_slow_module_is_answered_504() {
    let stage = Stage::with(|limits| limits.module_response = Duration::from_millis(300)).await;
    let got = stage.get(SLOW).await;
    assert_eq!(
        (got.status.as_u16(), got.code().as_str()),
        (504, "module-timeout")
    );
    stage.end().await;
}

/// When too much runs at once, the rest is refused before memory grows, and told when to come back.
#[tokio::test]
async fn a_full_gateway_refuses_at_once() {
    let stage = Stage::with(|limits| limits.in_flight = 1).await;
    assert_eq!(stage.get(PRODUCTS).await.status, 200);
    let late = async {
        sleep(Duration::from_millis(300)).await;
        let got = stage.get(PRODUCTS).await;
        assert_eq!(
            (got.status.as_u16(), got.code().as_str()),
            (503, "overloaded")
        );
        assert_ne!(got.header("retry-after"), "");
        // The load balancer must not take a busy gateway for a dead one.
        let health = stage.client.send(empty(ask("GET", "", "/healthz"))).await;
        assert_eq!(health.status, 200);
    };
    let (slow, ()) = tokio::join!(stage.get(SLOW), late);
    assert_eq!(slow.status, 200);
    assert_eq!(stage.get(PRODUCTS).await.status, 200);
    stage.end().await;
}

/// Event streams are requests, too: thousands of open ones must not grow without a bound.
#[tokio::test]
async fn an_open_event_stream_keeps_its_place() {
    let stage = Stage::with(|limits| limits.in_flight = 1).await;
    let request = empty(ask("GET", "admin", "/admin/v1/operations/1/events"));
    let events = stage.client.begin(request).await;
    assert_eq!(stage.get(PRODUCTS).await.code(), "overloaded");
    drop(events);
    // The client has left: the gateway notices, and the place is free.
    for _ in 0..50 {
        if stage.get(PRODUCTS).await.status == 200 {
            return stage.end().await;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("the place of a stream whose client has left was never freed");
}

/// One tenant's rush must not be another tenant's outage.
#[tokio::test]
async fn a_tenant_uses_up_its_own_share_only() {
    let stage = Stage::with(|limits| limits.tenant_rate = Rate::new(1, 3)).await;
    let mut last = stage.get(PRODUCTS).await;
    for _ in 0..5 {
        last = stage.get(PRODUCTS).await;
    }
    assert_eq!(
        (last.status.as_u16(), last.code().as_str()),
        (429, "rate-limited")
    );
    assert_ne!(last.header("retry-after"), "");
    let token = stage.token(stage.people.other, "beta");
    assert_eq!(
        stage.as_user(&token, "GET", "beta", PRODUCTS).await.status,
        200
    );
    stage.end().await;
}

/// The same for requests that run at once.
#[tokio::test]
async fn a_tenant_fills_its_own_places_only() {
    let stage = Stage::with(|limits| limits.tenant_in_flight = 1).await;
    let token = stage.token(stage.people.other, "beta");
    let late = async {
        sleep(Duration::from_millis(300)).await;
        assert_eq!(stage.get(PRODUCTS).await.code(), "rate-limited");
        assert_eq!(
            stage.as_user(&token, "GET", "beta", PRODUCTS).await.status,
            200
        );
    };
    let (slow, ()) = tokio::join!(stage.get(SLOW), late);
    assert_eq!(slow.status, 200);
    stage.end().await;
}

/// An upgrade of the gateway must not cut requests that are being answered.
#[tokio::test]
async fn shutdown_lets_running_requests_end() {
    let stage = Stage::new().await;
    let late = async {
        sleep(Duration::from_millis(300)).await;
        stage.shutdown.cancel();
        sleep(Duration::from_millis(100)).await;
        assert!(
            tokio::net::TcpStream::connect(stage.client.address)
                .await
                .is_err()
        );
    };
    let (slow, ()) = tokio::join!(stage.get(SLOW), late);
    assert_eq!(slow.status, 200);
    stage.end().await;
}

/// A client that never lets go must not keep the gateway from ending.
#[tokio::test]
async fn shutdown_cuts_what_does_not_end() {
    let stage = Stage::with(|limits| limits.drain = Duration::from_millis(500)).await;
    let request = empty(ask("GET", "admin", "/admin/v1/operations/1/events"));
    let events = stage.client.begin(request).await;
    let begun = Instant::now();
    stage.drain().await;
    assert!(begun.elapsed() < Duration::from_secs(3));
    drop(events);
    stage.end().await;
}

/// Connections on which nothing happens are an attack that costs nothing: they must end.
#[tokio::test]
async fn idle_connections_are_closed() {
    let stage = Stage::with(|limits| {
        limits.connection_idle = Duration::from_millis(200);
        limits.header_read = Duration::from_millis(400);
        limits.handshake = Duration::from_millis(300);
    })
    .await;
    let begun = Instant::now();
    let mut buffer = [0; 1024];
    for (alpn, first) in [
        (&b"h2"[..], &b"PRI * HTTP/2.0"[..]),
        (b"h2", b""),
        (b"http/1.1", b""),
        (b"http/1.1", b"GET / HT"),
    ] {
        let mut stream = stage.client.tls(&[alpn]).await;
        stream.write_all(first).await.unwrap();
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(_greeting) => {}
            }
        }
    }
    let mut silent = tokio::net::TcpStream::connect(stage.client.address)
        .await
        .unwrap();
    assert_eq!(silent.read(&mut buffer).await.unwrap_or(0), 0);
    assert!(
        begun.elapsed() < Duration::from_secs(6),
        "{:?}",
        begun.elapsed()
    );
    stage.end().await;
}
