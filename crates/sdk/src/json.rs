//! JSON in and out, and refusals as problem+json.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use waangu_api::{PROBLEM_JSON, Problem, parse_json};
use waangu_identity::context::MOVED_HEADER;
use waangu_kernel::{Fault, fault};

/// A JSON body. As an argument it is parsed strictly; as a result it is written.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let content_type = request.headers().get(CONTENT_TYPE).cloned();
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| {
                fault::BODY_TOO_LARGE
                    .fault("the body is larger than this endpoint takes")
                    .cause(rejection)
            })?;
        let content_type = content_type.as_ref().and_then(|value| value.to_str().ok());
        Ok(Self(parse_json(content_type, &body)?))
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// A fault on its way to the client.
#[derive(Debug)]
pub struct Refusal(pub Fault);

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self(fault)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(fault) = self;
        let status =
            StatusCode::from_u16(fault.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::error!(
                code = fault.code(),
                cause = fault.operator_cause(),
                "{fault}"
            );
        } else {
            tracing::debug!(
                code = fault.code(),
                cause = fault.operator_cause(),
                "{fault}"
            );
        }
        let body = Problem::from(&fault).to_json();
        let mut response = (status, [(CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        if fault.def().retryable() {
            let soon = HeaderValue::from_static("1");
            response.headers_mut().insert(RETRY_AFTER, soon);
        }
        if fault.code() == fault::TENANT_MOVED.code {
            let moved = HeaderValue::from_static("1");
            response.headers_mut().insert(MOVED_HEADER, moved);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever is told to come back must be told when, or all come back at once.
    #[test]
    fn what_may_be_repeated_says_when() {
        let after = |fault: Fault| {
            Refusal(fault)
                .into_response()
                .headers()
                .contains_key(RETRY_AFTER)
        };
        assert!(after(fault::OVERLOADED.fault("busy")));
        assert!(after(fault::TENANT_MOVING.fault("moving")));
        assert!(!after(fault::PERMISSION_DENIED.fault("no")));
        assert!(!after(fault::INTERNAL.fault("broken")));
    }

    /// Without the sign the gateway would pass a refusal on to somebody whose request it could have
    /// sent after the tenant; with a wrong one it would do something twice.
    #[test]
    fn only_what_has_not_happened_may_be_sent_after_the_tenant() {
        let told = |fault: Fault| {
            let response = Refusal(fault).into_response();
            response.headers().contains_key(MOVED_HEADER)
        };
        assert!(told(fault::TENANT_MOVED.fault("moved")));
        assert!(!told(fault::TENANT_MOVING.fault("moving")));
    }
}
