//! The servers behind the gateway: a module that verifies its context, and a control plane.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Collected, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waangu_identity::{ContextVerifier, Jwks, PublicKey};
use waangu_kernel::{Clock as _, SystemClock};

pub(crate) type Answer = Response<BoxBody<Bytes, Infallible>>;

/// More than the kernel buffers for a client that doesn't read.
pub(crate) const BIG: usize = 32 * 1024 * 1024;

/// Counts what reached an upstream.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) requests: AtomicUsize,
    pub(crate) key_sets: AtomicUsize,
}

/// A server; it and its connections end with `stop`.
pub(crate) fn serve<H, F>(
    listener: TcpListener,
    tasks: &TaskTracker,
    stop: &CancellationToken,
    handler: H,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let (own, each) = (tasks.clone(), stop.clone());
    let accept = async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let handler = handler.clone();
            let service = service_fn(move |request| {
                let answer = handler(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let stop = each.clone();
            own.spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                drop(stop.run_until_cancelled(connection).await);
            });
        }
    };
    tasks.spawn(stop.clone().run_until_cancelled_owned(accept));
}

pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn names(headers: &HeaderMap) -> Value {
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), Value::from(value.to_str().unwrap_or("?"))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

pub(crate) fn full(status: StatusCode, document: &Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(document.to_string())).boxed());
    *answer.status_mut() = status;
    answer
}

/// The module `inventory`: tells what it was given, and does what its path says.
pub(crate) async fn module(
    request: Request<Incoming>,
    verifier: Arc<ContextVerifier>,
    seen: Arc<Seen>,
) -> Answer {
    seen.requests.fetch_add(1, Ordering::SeqCst);
    let (head, body) = request.into_parts();
    let contexts: Vec<_> = head.headers.get_all("waangu-context").iter().collect();
    let [jws] = contexts.as_slice() else {
        return full(
            StatusCode::UNAUTHORIZED,
            &json!({ "contexts": contexts.len() }),
        );
    };
    let context = match verifier.verify(jws.to_str().unwrap(), SystemClock.unix_seconds()) {
        Ok(context) => context,
        Err(rejection) => {
            return full(
                StatusCode::UNAUTHORIZED,
                &json!({ "why": rejection.to_string() }),
            );
        }
    };
    if head.uri.path() == "/slow" {
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    if head.uri.path() == "/big" {
        let body = Full::new(Bytes::from(vec![b'x'; BIG])).boxed();
        return Response::new(body);
    }
    if head.uri.path() == "/deaf" {
        // Answers before it has read anything, as a module that refuses does.
        return full(StatusCode::CONFLICT, &json!({}));
    }
    let body = match body.collect().await {
        Ok(body) => body,
        Err(_torn) => return full(StatusCode::BAD_REQUEST, &json!({})),
    };
    let document = json!({
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "headers": names(&head.headers),
        "context": context,
        "trailers": body.trailers().is_some(),
        "body": String::from_utf8_lossy(&body.to_bytes()),
    });
    let mut answer = full(StatusCode::OK, &document);
    let headers = answer.headers_mut();
    headers.insert("waangu-secret", "1".parse().unwrap());
    headers.insert("set-cookie", "a=b".parse().unwrap());
    headers.insert("connection", "x-private".parse().unwrap());
    headers.insert("x-private", "1".parse().unwrap());
    headers.insert("etag", "\"7\"".parse().unwrap());
    answer
}

/// The control plane: the key set, the directory, the admin API; tells what it was given.
pub(crate) async fn control(
    request: Request<Incoming>,
    keys: Arc<std::sync::Mutex<Option<PublicKey>>>,
    seen: Arc<Seen>,
) -> Answer {
    let path = request.uri().path().to_owned();
    if path == "/jwks" {
        seen.key_sets.fetch_add(1, Ordering::SeqCst);
        let key = keys.lock().unwrap().clone();
        return match key {
            Some(key) => {
                let jwks = Jwks { keys: vec![key] };
                full(StatusCode::OK, &serde_json::to_value(jwks).unwrap())
            }
            None => full(StatusCode::INTERNAL_SERVER_ERROR, &json!({})),
        };
    }
    seen.requests.fetch_add(1, Ordering::SeqCst);
    if path == "/admin/v1/operations/1/events" {
        return events();
    }
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(Collected::to_bytes)
        .unwrap_or_default();
    let status = if head.method == Method::POST {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    let document = json!({
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "headers": names(&head.headers),
        "body": String::from_utf8_lossy(&body),
    });
    full(status, &document)
}

/// Two events with a pause, then silence until the client leaves.
fn events() -> Answer {
    let (tell, told) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
    let tasks = TaskTracker::new();
    tasks.spawn(async move {
        for event in ["data: 1\n\n", "data: 2\n\n"] {
            if tell
                .send(Ok(Frame::data(Bytes::from(event))))
                .await
                .is_err()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        tell.closed().await;
    });
    let stream = futures_stream(told);
    let mut answer = Response::new(StreamBody::new(stream).boxed());
    answer
        .headers_mut()
        .insert("content-type", "text/event-stream".parse().unwrap());
    answer
}

/// A receiver as a stream.
fn futures_stream<T: Send + Sync + 'static>(
    receiver: mpsc::Receiver<T>,
) -> impl futures_util::Stream<Item = T> + Send + Sync {
    futures_util::stream::unfold(receiver, |mut receiver| async move {
        let item = receiver.recv().await?;
        Some((item, receiver))
    })
}
