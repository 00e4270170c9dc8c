//! Refusals on the wire: `application/problem+json` (RFC 9457) and the headers that go with a status.
//!
//! Invariant: the operator's cause never leaves the process; it goes to the log line of the request.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::{Either, Full};
use waangu_api::{PROBLEM_JSON, Problem};
use waangu_kernel::{Fault, RequestId};

use crate::forward::Relay;

/// What the gateway answers with: something of its own, or what an upstream streams.
pub(crate) type Reply = Response<Either<Full<Bytes>, Relay>>;

/// A request that goes no further.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Why.
    pub(crate) fault: Fault,
    /// The methods that would be right, for 405.
    pub(crate) allow: Option<String>,
    /// Seconds to wait, for 429 and 503.
    pub(crate) retry_after: Option<u64>,
}

impl Refusal {
    /// Asks the client to come back after so many seconds.
    pub(crate) fn after(fault: Fault, seconds: u64) -> Self {
        Self {
            retry_after: Some(seconds.max(1)),
            ..Self::from(fault)
        }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self {
            fault,
            allow: None,
            retry_after: None,
        }
    }
}

/// The answer to a refused request.
pub(crate) fn reply(refusal: &Refusal, request: RequestId, method: &Method) -> Reply {
    let status =
        StatusCode::from_u16(refusal.fault.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let text = Problem::from(&refusal.fault).request(&request).to_json();
    let mut reply = json(status, PROBLEM_JSON, text, method);
    let headers = reply.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(allow) = &refusal.allow
        && let Ok(value) = HeaderValue::from_str(allow)
    {
        headers.insert(ALLOW, value);
    }
    if refusal.fault.def().retryable() {
        headers.insert(RETRY_AFTER, refusal.retry_after.unwrap_or(1).into());
    }
    reply
}

/// A JSON answer of our own; to HEAD without its body, but with its length (RFC 9110 §9.3.2).
pub(crate) fn json(
    status: StatusCode,
    media_type: &'static str,
    text: String,
    method: &Method,
) -> Reply {
    let length = text.len();
    let body = if method == Method::HEAD {
        Bytes::new()
    } else {
        Bytes::from(text)
    };
    let mut reply = Response::new(Either::Left(Full::new(body)));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(http::header::CONTENT_LENGTH, length.into());
    reply
}
