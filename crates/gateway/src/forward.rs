//! The request to an upstream, and its answer on the way back.
//!
//! Invariants:
//! - bodies stream in both directions, bounded; of a request's body the beginning is kept ([`REPLAY`]);
//! - an upstream sees a request that we have written anew: our framing, our target, our headers;
//! - a request is sent a second time only if it was never sent at all and its method is idempotent
//!   (RFC 9110 §9.2.2): the connection was refused, or closed before the first byte; or if the module
//!   says that nothing of it has happened because the tenant has moved (see `edge::module`);
//! - what happens upstream reaches the client as one of our problems, never as a driver's words.

use std::error::Error as _;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};
use tower::ServiceExt as _;
use tower::util::MapResponse;
use waangu_kernel::{Fault, fault};

use crate::config::Limits;
use crate::hygiene::Receiver;
use crate::problem::Refusal;

mod body;
mod line;

pub(crate) use body::{Held, Outbound, Relay};
use line::Line;

/// Shorter than any upstream's keep-alive, so that we close first.
const POOL_IDLE: Duration = Duration::from_secs(10);
const POOL_PER_UPSTREAM: usize = 128;
const CONNECT: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// Longest body of a request that can be sent after a tenant that moves meanwhile, in bytes. Each request
/// in hand may keep so much.
pub(crate) const REPLAY: usize = 256 * 1024;

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Call {
    /// Who answers.
    pub(crate) receiver: Receiver,
    /// Where it listens.
    pub(crate) target: SocketAddr,
    /// The method.
    pub(crate) method: Method,
    /// Path and query at the upstream.
    pub(crate) path_and_query: String,
    /// Cleaned headers, and ours.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Outbound,
}

type Connector = MapResponse<HttpConnector, fn(TokioIo<TcpStream>) -> Line>;

/// Speaks to all upstreams.
pub(crate) struct Upstreams {
    client: Client<Connector, Outbound>,
    limits: Limits,
}

/// Why an upstream gave no answer.
enum Failure {
    /// It never saw the request.
    NotSent(hyper_util::client::legacy::Error),
    /// It may have.
    Sent(hyper_util::client::legacy::Error),
    /// It took too long.
    Late,
}

impl Upstreams {
    pub(crate) fn new(limits: Limits) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        let over: fn(_) -> _ = Line::new;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL_PER_UPSTREAM)
            .build(connector.map_response(over));
        Self { client, limits }
    }

    /// Sends the request and waits for the answer's head.
    pub(crate) async fn send(&self, call: &Call) -> Result<Response<Incoming>, Refusal> {
        let begun = Instant::now();
        let patience = begun + self.limits.connect_patience;
        let deadline = begun
            + match call.receiver {
                Receiver::Module => self.limits.module_response,
                Receiver::Control => self.limits.control_response,
            };
        let uri = Uri::builder()
            .scheme("http")
            .authority(call.target.to_string())
            .path_and_query(call.path_and_query.as_str())
            .build()
            .map_err(|error| {
                fault::MALFORMED_REQUEST
                    .fault("the path can't be forwarded")
                    .cause(error)
            })?;
        let mut pause = FIRST_PAUSE;
        loop {
            let failure = match self.once(call, &uri, deadline).await {
                Ok(answer) => return usable(answer, call.receiver),
                Err(failure) => failure,
            };
            let again = matches!(failure, Failure::NotSent(_))
                && call.method.is_idempotent()
                && call.body.is_untouched()
                && Instant::now() + pause < patience.min(deadline);
            if !again {
                return Err(refusal(call, &failure));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn once(
        &self,
        call: &Call,
        uri: &Uri,
        deadline: Instant,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::new(call.body.clone());
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = uri.clone();
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = call.headers.clone();
        match timeout_at(deadline, self.client.request(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if was_not_sent(&error) => Err(Failure::NotSent(error)),
            Ok(Err(error)) => Err(Failure::Sent(error)),
            Err(_elapsed) => Err(Failure::Late),
        }
    }

    /// How long a body from this upstream may pause; an event stream may for ever.
    pub(crate) fn patience_with(&self, answer: &HeaderMap) -> Option<Duration> {
        let event_stream = answer
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with("text/event-stream"));
        (!event_stream).then_some(self.limits.body_idle)
    }
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upstreams")
    }
}

/// hyper gives the request back unsent ("canceled"), or could not connect in the first place.
fn was_not_sent(error: &hyper_util::client::legacy::Error) -> bool {
    error.is_connect()
        || error
            .source()
            .and_then(|source| source.downcast_ref::<hyper::Error>())
            .is_some_and(hyper::Error::is_canceled)
}

/// An interim answer can't be a final one; we never asked to switch protocols.
fn usable(answer: Response<Incoming>, receiver: Receiver) -> Result<Response<Incoming>, Refusal> {
    if answer.status().is_informational() {
        let cause = format!("status {}", answer.status());
        return Err(silent(receiver).cause(cause).into());
    }
    Ok(answer)
}

fn silent(receiver: Receiver) -> Fault {
    match receiver {
        Receiver::Module => fault::MODULE_UNAVAILABLE
            .fault("the module does not answer; its process may be restarting"),
        Receiver::Control => fault::CONTROL_UNAVAILABLE
            .fault("the control plane does not answer; it may be restarting"),
    }
}

fn refusal(call: &Call, failure: &Failure) -> Refusal {
    // What went wrong with the client's body explains the rest.
    if let Some(broken) = call.body.broken() {
        return broken.fault().into();
    }
    match failure {
        Failure::NotSent(error) | Failure::Sent(error) => {
            Refusal::after(silent(call.receiver).cause(chain(error)), 1)
        }
        Failure::Late => {
            let fault = match call.receiver {
                Receiver::Module => {
                    fault::MODULE_TIMEOUT.fault("the module did not answer in time")
                }
                Receiver::Control => {
                    fault::CONTROL_TIMEOUT.fault("the control plane did not answer in time")
                }
            };
            Refusal::after(fault, 1)
        }
    }
}

/// The error with its causes: the outermost alone says only "client error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
