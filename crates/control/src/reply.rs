//! Requests and replies of this process's HTTP surface: strict JSON in, problem+json out.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use waangu_api::{PROBLEM_JSON, Problem};
use waangu_kernel::{Fault, fault};

/// A fault on its way to the client.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) Fault);

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
        }
        let body = Problem::from(&fault).to_json();
        let mut response = (status, [(CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        if fault.def().retryable() {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// What the path names. Unlike axum's own, it refuses in our words what is not UTF-8.
#[derive(Debug)]
pub(crate) struct Path<T>(pub(crate) T);

impl<T, S> FromRequestParts<S> for Path<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        let axum::extract::Path(named) =
            path.map_err(|rejection| fault::MALFORMED_REQUEST.fault(rejection.body_text()))?;
        Ok(Self(named))
    }
}

/// The query string. A mistake in it names the parameter.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<T, S> FromRequestParts<S> for Query<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(waangu_api::query_mistake(&rejection).into()),
        }
    }
}

/// A body as it came, with its content type, to be parsed by the handler: the idempotency
/// fingerprint is over these very bytes.
#[derive(Debug)]
pub(crate) struct RawBody {
    pub(crate) content_type: Option<String>,
    pub(crate) bytes: Bytes,
}

impl RawBody {
    /// Parses the JSON object.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        waangu_api::parse_json(self.content_type.as_deref(), &self.bytes)
    }
}

impl<S: Send + Sync> FromRequest<S> for RawBody {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let content_type = request
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| {
                fault::BODY_TOO_LARGE
                    .fault("the body is larger than this endpoint takes")
                    .cause(rejection)
            })?;
        Ok(Self {
            content_type,
            bytes,
        })
    }
}
