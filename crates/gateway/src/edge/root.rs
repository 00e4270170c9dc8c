//! The domain itself: where things are, and whether the gateway is ready.
//!
//! Invariant: answers need neither a token nor an upstream, so they are there when all else is down.

use http::request::Parts;
use http::{Method, StatusCode};
use serde::Serialize;
use waangu_kernel::fault;

use super::{Edge, Trail, not_found};
use crate::problem::{self, Refusal, Reply};

/// What stands at `/`.
#[derive(Serialize)]
struct Directory<'a> {
    name: &'static str,
    version: &'static str,
    api: &'a str,
    login: &'a str,
    admin: &'a str,
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

impl Edge {
    pub(super) fn root(&self, head: &Parts, trail: &mut Trail) -> Result<Reply, Refusal> {
        let path = head.uri.path();
        if path != "/" && path != "/healthz" {
            return Err(not_found().into());
        }
        trail.route = Some(path.to_owned());
        if head.method != Method::GET && head.method != Method::HEAD {
            return Err(Refusal {
                allow: Some("GET, HEAD".to_owned()),
                ..fault::METHOD_NOT_ALLOWED
                    .fault("this address answers to GET, HEAD")
                    .into()
            });
        }
        if path == "/healthz" {
            return self.health(&head.method);
        }
        let host = |name: &str| {
            let domain = self.config.domain.to_ascii_lowercase();
            match self.config.public_port {
                443 => format!("https://{name}.{domain}"),
                port => format!("https://{name}.{domain}:{port}"),
            }
        };
        let document = Directory {
            name: "Waangu 360",
            version: env!("CARGO_PKG_VERSION"),
            api: &host("api"),
            login: &host("login"),
            admin: &host("admin"),
        };
        ok(&document, &head.method)
    }

    fn health(&self, method: &Method) -> Result<Reply, Refusal> {
        self.require_snapshot()?;
        if self.authenticator.ready() {
            return ok(&Health { status: "ok" }, method);
        }
        let fault = fault::OVERLOADED.fault("the keys that verify tokens are not loaded yet");
        Err(Refusal::after(fault, 1))
    }
}

fn ok(document: &impl Serialize, method: &Method) -> Result<Reply, Refusal> {
    let text = serde_json::to_string(document).map_err(|error| {
        fault::INTERNAL
            .fault("the answer can't be written")
            .cause(error)
    })?;
    Ok(problem::json(
        StatusCode::OK,
        "application/json",
        text,
        method,
    ))
}
