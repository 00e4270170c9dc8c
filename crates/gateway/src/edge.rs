//! The way of one request: the order of all checks, and one log line.
//!
//! Invariants:
//! - every answer, refusals included, names the request's id, and every request is logged once, when
//!   its answer begins; the line has the route's template, never a query string, a token or a path
//!   that a client made up;
//! - nothing is asked of an upstream before all checks are passed.

use std::sync::Arc;

use http::header::{CONNECTION, STRICT_TRANSPORT_SECURITY};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::Either;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use waangu_identity::SigningKeys;
use waangu_kernel::fault::{self, ErrorDef};
use waangu_kernel::{Clock, Fault, RequestId};
use waangu_process::Watched;

use crate::authenticate::Authenticator;
use crate::authenticate::jwks::KeySet;
use crate::config::{Config, Keys};
use crate::forward::{Call, Held, Outbound, Relay, Upstreams};
use crate::hygiene::{self, Receiver};
use crate::limit::{Gate, PerAddress};
use crate::problem::{self, Refusal, Reply};
use crate::resolve::{Host, Hosts, name_of};
use crate::snapshot::{Snapshot, Tenant};
use crate::wire::{Peer, Running};

mod module;
mod ofrep;
mod root;
pub(crate) mod traffic;
mod trail;

use trail::Trail;

/// The request's id, on the way to upstreams and back to clients.
const REQUEST_HEADER: HeaderName = HeaderName::from_static("waangu-request");
/// The client's address, on the way to the control plane.
const CLIENT_IP_HEADER: HeaderName = HeaderName::from_static("waangu-client-ip");
/// Two years, as browsers' preload lists want it.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=63072000; includeSubDomains");

/// Refusals that a change on its way here may take back.
const PERHAPS_NEWS: [&ErrorDef; 4] = [
    &fault::TENANT_NOT_FOUND,
    &fault::TENANT_NOT_ACTIVE,
    &fault::MODULE_NOT_ACTIVE,
    &fault::PERMISSION_DENIED,
];

/// Everything that answers requests.
#[derive(Debug)]
pub struct Edge {
    pub(crate) config: Config,
    pub(crate) keys: Arc<KeySet>,
    snapshot: Arc<Snapshot>,
    hosts: Hosts,
    authenticator: Authenticator,
    gate: Gate,
    logins: PerAddress,
    upstreams: Upstreams,
    signing: Watched<SigningKeys>,
    clock: Arc<dyn Clock>,
}

/// A request whose head has been split from its body.
struct Arrived<'a> {
    head: Parts,
    body: Incoming,
    id: RequestId,
    peer: &'a Peer,
    running: Running,
    permit: OwnedSemaphorePermit,
}

impl Edge {
    /// Puts the parts together; the snapshot and the key set are still empty.
    ///
    /// # Errors
    /// `invalid-field` when the key set's address is not one.
    pub fn new(config: Config, keys: Keys, clock: Arc<dyn Clock>) -> Result<Self, Fault> {
        let key_set = Arc::new(KeySet::new(&config.issuer, &config.jwks_url)?);
        let limits = &config.limits;
        Ok(Self {
            snapshot: Arc::new(Snapshot::new(limits.clone())),
            hosts: Hosts::new(&config.domain),
            authenticator: Authenticator::new(Arc::clone(&key_set), limits, Arc::clone(&clock)),
            gate: Gate::new(limits),
            logins: PerAddress::new(limits.login_rate),
            upstreams: Upstreams::new(limits.clone()),
            signing: keys.signing,
            keys: key_set,
            clock,
            config,
        })
    }

    /// What is known of tenants and modules.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, request: Request<Incoming>, peer: &Arc<Peer>) -> Reply {
        let begun = Instant::now();
        let id = RequestId::generate();
        let method = request.method().clone();
        let mut trail = Trail::default();
        // On the heap: a connection's task would carry the whole way of a request otherwise.
        let outcome = Box::pin(self.handle(request, id, peer, &mut trail)).await;
        let (mut reply, refusal) = match outcome {
            Ok(reply) => (reply, None),
            Err(refusal) => (problem::reply(&refusal, id, &method), Some(refusal)),
        };
        let headers = reply.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
            headers.insert(REQUEST_HEADER, value);
        }
        headers.insert(STRICT_TRANSPORT_SECURITY, HSTS);
        if peer.is_ambiguous() {
            // Whoever sent this may believe that the next request begins elsewhere than we do.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        trail.log(
            &method,
            id,
            reply.status(),
            refusal.as_ref(),
            begun.elapsed(),
        );
        reply
    }

    async fn handle(
        &self,
        request: Request<Incoming>,
        id: RequestId,
        peer: &Arc<Peer>,
        trail: &mut Trail,
    ) -> Result<Reply, Refusal> {
        let running = peer.begin();
        if peer.is_ambiguous() {
            let detail = "Content-Length and Transfer-Encoding exclude each other";
            return Err(fault::MALFORMED_REQUEST.fault(detail).into());
        }
        let (head, body) = request.into_parts();
        let authority = hygiene::inspect(&head)?;
        let host = self
            .hosts
            .resolve(&authority)
            .ok_or_else(|| unserved(&authority))?;
        trail.host = host.class();
        if host == Host::Root {
            return self.root(&head, trail);
        }
        let permit = self.gate.enter()?;
        let arrived = Arrived {
            head,
            body,
            id,
            peer,
            running,
            permit,
        };
        match host {
            Host::Login => {
                trail.route = Some("/login/*".to_owned());
                self.logins.take(peer.ip)?;
                let path = format!("/login{}", path_and_query(&arrived.head));
                self.to_control(arrived, path).await
            }
            Host::Admin => self.admin(arrived, trail).await,
            Host::Api if is_below(arrived.head.uri.path(), "/admin/v1") => {
                self.admin(arrived, trail).await
            }
            Host::Api if is_below(arrived.head.uri.path(), "/ofrep") => {
                self.ofrep(arrived, None, trail).await
            }
            Host::Tenant(slug) if is_below(arrived.head.uri.path(), "/ofrep") => {
                self.ofrep(arrived, Some(slug), trail).await
            }
            Host::Api => self.api(arrived, None, trail).await,
            Host::Tenant(slug) => self.api(arrived, Some(slug), trail).await,
            Host::Root => Err(not_found().into()),
        }
    }

    async fn admin(&self, arrived: Arrived<'_>, trail: &mut Trail) -> Result<Reply, Refusal> {
        if !is_below(arrived.head.uri.path(), "/admin/v1") {
            return Err(not_found().into());
        }
        trail.route = Some("/admin/v1/*".to_owned());
        let path = path_and_query(&arrived.head).to_owned();
        self.to_control(arrived, path).await
    }

    async fn to_control(&self, arrived: Arrived<'_>, path: String) -> Result<Reply, Refusal> {
        let mut headers = arrived.head.headers;
        hygiene::clean_request(&mut headers, Receiver::Control);
        headers.insert(CLIENT_IP_HEADER, text(&arrived.peer.ip.to_string())?);
        headers.insert(REQUEST_HEADER, text(&arrived.id.to_string())?);
        let call = Call {
            receiver: Receiver::Control,
            target: self.config.control,
            method: arrived.head.method,
            path_and_query: path,
            headers,
            body: self.bounded(arrived.body, 0)?,
        };
        let held = Held::new(arrived.running, vec![arrived.permit]);
        let reply = self.upstreams.send(&call).await?;
        Ok(self.relay(reply, call.receiver, held))
    }

    /// A request's body, of which up to `keep` bytes can be sent again.
    fn bounded(&self, body: Incoming, keep: usize) -> Result<Outbound, Fault> {
        let limits = &self.config.limits;
        Outbound::new(body, limits.body, limits.body_idle, keep)
    }

    /// Passes an answer on.
    fn relay(&self, mut reply: Response<Incoming>, sender: Receiver, held: Held) -> Reply {
        hygiene::clean_response(reply.headers_mut(), sender);
        let idle = self.upstreams.patience_with(reply.headers());
        reply.map(|body| Either::Right(Relay::new(body, idle, held)))
    }

    /// Enters one request of a tenant into its share.
    fn enter(&self, tenant: &Tenant) -> Result<OwnedSemaphorePermit, Refusal> {
        let per_minute = self.snapshot.requests_per_minute(tenant);
        self.snapshot.share(tenant).enter(per_minute)
    }

    /// What is found in the snapshot; before a refusal, in a newer one.
    async fn find<T>(&self, look: impl Fn() -> Result<T, Refusal>) -> Result<T, Refusal> {
        let found = look();
        let perhaps_news = found.as_ref().is_err_and(|refusal| {
            PERHAPS_NEWS
                .iter()
                .any(|news| news.code == refusal.fault.code())
        });
        if perhaps_news && self.snapshot.recency().newer().await {
            return look();
        }
        found
    }

    fn require_snapshot(&self) -> Result<(), Refusal> {
        if self.snapshot.loaded() {
            return Ok(());
        }
        let fault = fault::OVERLOADED.fault("the gateway is starting and knows no tenant yet");
        Err(Refusal::after(fault, 1))
    }
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn path_and_query(head: &Parts) -> &str {
    head.uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str)
}

fn text(value: &str) -> Result<HeaderValue, Fault> {
    HeaderValue::from_str(value).map_err(|error| {
        fault::INTERNAL
            .fault("the request can't be forwarded")
            .cause(error)
    })
}

fn not_found() -> Fault {
    fault::ROUTE_NOT_FOUND.fault("there is nothing at this address")
}

/// A name of somebody else, or none at all.
fn unserved(authority: &str) -> Fault {
    if name_of(authority).is_some() {
        fault::MISDIRECTED_REQUEST.fault("this host is not served here")
    } else {
        fault::MALFORMED_REQUEST.fault("the Host header does not name a host")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A prefix compared carelessly opens addresses that nobody has looked at.
    #[test]
    fn prefixes_end_at_a_slash() {
        assert!(is_below("/admin/v1", "/admin/v1") && is_below("/admin/v1/x", "/admin/v1"));
        assert!(!is_below("/admin/v10", "/admin/v1") && !is_below("/admin", "/admin/v1"));
    }
}
