//! Tells the gateway, with each answer, how long the request held connections to cells: so the platform
//! knows what each tenant costs without asking any module process.
//!
//! Left out: subtree reads, whose transactions are many tenants', and a transaction that is still rolled
//! back when the answer leaves.

use axum::extract::Request;
use axum::http::Extensions;
use axum::http::HeaderName;
use axum::middleware::Next;
use axum::response::Response;
use waangu_identity::context::SPENT_HEADER;
use waangu_tenancy::Spent;

/// Meters one request.
pub(crate) async fn meter(mut request: Request, next: Next) -> Response {
    let spent = Spent::default();
    request.extensions_mut().insert(spent.clone());
    let mut answer = next.run(request).await;
    let header = HeaderName::from_static(SPENT_HEADER);
    answer.headers_mut().insert(header, spent.micros().into());
    answer
}

/// The sum that a request's transactions add to.
pub(crate) fn of(extensions: &Extensions) -> Spent {
    extensions.get::<Spent>().cloned().unwrap_or_default()
}
