//! One log line for each request.
//!
//! Invariant: only what the platform itself knows is logged: classes, slugs and templates from the
//! snapshot, ids that we made. What a client sent is not.

use std::time::Duration;

use http::{Method, StatusCode};
use waangu_kernel::{ModuleId, RequestId, Slug};

use crate::problem::Refusal;

/// What became known of a request on its way.
#[derive(Debug)]
pub(super) struct Trail {
    /// Class of the host.
    pub(super) host: &'static str,
    /// The tenant.
    pub(super) tenant: Option<Slug>,
    /// The module.
    pub(super) module: Option<ModuleId>,
    /// The route's template.
    pub(super) route: Option<String>,
}

impl Default for Trail {
    fn default() -> Self {
        Self {
            host: "unknown",
            tenant: None,
            module: None,
            route: None,
        }
    }
}

impl Trail {
    /// Writes the line.
    pub(super) fn log(
        &self,
        method: &Method,
        id: RequestId,
        status: StatusCode,
        refusal: Option<&Refusal>,
        took: Duration,
    ) {
        let tenant = self.tenant.as_ref().map_or("", Slug::as_str);
        let module = self.module.as_ref().map_or("", ModuleId::as_str);
        let route = self.route.as_deref().unwrap_or("");
        let code = refusal.map_or("", |refusal| refusal.fault.code());
        let cause = refusal
            .and_then(|refusal| refusal.fault.operator_cause())
            .unwrap_or("");
        tracing::info!(
            method = known(method),
            host = self.host,
            tenant,
            module,
            route,
            status = status.as_u16(),
            code,
            cause,
            ms = took.as_secs_f64() * 1000.0,
            request = %id,
            "request"
        );
    }
}

/// A method's name; one that a client made up is not repeated.
fn known(method: &Method) -> &str {
    match *method {
        Method::GET
        | Method::HEAD
        | Method::POST
        | Method::PUT
        | Method::PATCH
        | Method::DELETE
        | Method::OPTIONS
        | Method::CONNECT
        | Method::TRACE => method.as_str(),
        _ => "other",
    }
}
