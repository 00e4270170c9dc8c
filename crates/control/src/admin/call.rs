//! One authenticated call, and one audited, repeatable change.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, IF_MATCH, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use waangu_identity::sha256_hex;
use waangu_kernel::{Fault, Slug, TenantId, fault};
use waangu_registry::{Session, StoredReply, Tenant, Tx};

use crate::reply::Refusal;
use crate::server::App;

/// Longest wait that `Prefer: wait` gets (RFC 7240 §4.3), in seconds.
const MAX_WAIT_SECONDS: u64 = 60;

/// An operator's call. There is no other way to a handler.
#[derive(Debug)]
pub(crate) struct Call {
    /// Who calls.
    pub(crate) actor: String,
    /// How long the caller wants to wait for an operation.
    pub(crate) wait: Duration,
    key: Option<String>,
    target: String,
    if_match: Option<String>,
}

impl FromRequestParts<Arc<App>> for Call {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let actor = operator(&parts.headers, app).await?;
        Ok(Self {
            actor: format!("operator:{actor}"),
            wait: wait(&parts.headers),
            key: idempotency_key(&parts.headers)?,
            target: format!("{} {}", parts.method, parts.uri.path()),
            if_match: header(&parts.headers, IF_MATCH.as_str()).map(str::to_owned),
        })
    }
}

impl Call {
    /// Refuses a change of something that has changed since the caller read it (RFC 9110 §13.1.1).
    pub(crate) fn check_version(&self, tenant: &Tenant) -> Result<(), Fault> {
        self.check_tag(&etag(tenant))
    }

    /// The same with the current ETag of anything; an empty one is of what does not exist.
    pub(crate) fn check_tag(&self, current: &str) -> Result<(), Fault> {
        let matches = |given: &str| match given {
            "*" => !current.is_empty(),
            tags => tags.split(',').any(|tag| tag.trim() == current),
        };
        if self.if_match.as_deref().is_none_or(matches) {
            return Ok(());
        }
        Err(fault::PRECONDITION_FAILED.fault(match current {
            "" => "there is nothing here yet".to_owned(),
            current => format!("its version is {current} now"),
        }))
    }
}

/// The ETag of a tenant: what is wanted of the cells, and its own plan, flags and limits.
pub(crate) fn etag(tenant: &Tenant) -> String {
    format!("\"g{}-{}\"", tenant.generation, tenant.revision)
}

/// A change in the making. Dropped without [`Change::commit`], nothing has happened.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    /// The transaction of the change.
    pub(crate) tx: Tx<'a>,
    call: &'a Call,
}

/// Either a fresh change, or the reply that the same request got before.
#[derive(Debug)]
pub(crate) enum Begun<'a> {
    Fresh(Change<'a>),
    Done(StoredReply),
}

impl<'a> Change<'a> {
    /// Begins a change. With an Idempotency-Key, a repeated request is told apart here; a concurrent
    /// one waits for the first.
    pub(crate) async fn begin(
        session: &'a mut Session,
        call: &'a Call,
        body: &[u8],
    ) -> Result<Begun<'a>, Fault> {
        let tx = session.begin().await?;
        if let Some(key) = &call.key {
            let fingerprint = sha256_hex(&[call.target.as_bytes(), b"\n", body].concat());
            if let Some(reply) = tx.begin_idempotent(&call.actor, key, &fingerprint).await? {
                return Ok(Begun::Done(reply));
            }
        }
        Ok(Begun::Fresh(Self { tx, call }))
    }

    /// Records the act and the reply, and commits all of it.
    pub(crate) async fn commit(
        self,
        action: &str,
        tenant: (TenantId, &Slug),
        detail: &serde_json::Value,
        reply: StoredReply,
    ) -> Result<StoredReply, Fault> {
        self.record(action, Some(tenant), detail, reply).await
    }

    /// The same for a change that is no one tenant's.
    pub(crate) async fn commit_global(
        self,
        action: &str,
        detail: &serde_json::Value,
        reply: StoredReply,
    ) -> Result<StoredReply, Fault> {
        self.record(action, None, detail, reply).await
    }

    async fn record(
        self,
        action: &str,
        tenant: Option<(TenantId, &Slug)>,
        detail: &serde_json::Value,
        reply: StoredReply,
    ) -> Result<StoredReply, Fault> {
        self.tx
            .record_audit(&self.call.actor, action, tenant, detail)
            .await?;
        self.finish(reply).await
    }

    /// Commits what turned out to be no change: nothing for the audit.
    pub(crate) async fn finish(self, reply: StoredReply) -> Result<StoredReply, Fault> {
        if let Some(key) = &self.call.key {
            self.tx
                .finish_idempotent(&self.call.actor, key, &reply)
                .await?;
        }
        self.tx.commit().await?;
        Ok(reply)
    }
}

/// A reply to be stored and sent.
pub(crate) fn reply<T: Serialize>(
    status: StatusCode,
    location: Option<String>,
    body: &T,
) -> Result<StoredReply, Fault> {
    let body = serde_json::to_value(body).map_err(|error| {
        fault::INTERNAL
            .fault("the reply can't be written")
            .cause(error)
    })?;
    Ok(StoredReply {
        status: status.as_u16(),
        location,
        body,
    })
}

/// Sends a stored reply.
pub(crate) fn send(reply: StoredReply) -> Response {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = axum::Json(reply.body);
    match reply.location {
        Some(location) => (status, [(LOCATION, location)], body).into_response(),
        None => (status, body).into_response(),
    }
}

async fn operator(headers: &HeaderMap, app: &App) -> Result<String, Fault> {
    let token = header(headers, AUTHORIZATION.as_str())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    let Some(token) = token else {
        return Err(fault::UNAUTHENTICATED.fault("send the operator's token as a bearer token"));
    };
    let session = app.registry.session().await?;
    let found = session.get_operator(&sha256_hex(token.as_bytes())).await?;
    found.ok_or_else(|| fault::UNAUTHENTICATED.fault("the operator's token is not valid"))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Fault> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if (1..=255).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(fault::IDEMPOTENCY_KEY_INVALID
            .fault("an Idempotency-Key has 1 to 255 printable ASCII characters")),
    }
}

fn wait(headers: &HeaderMap) -> Duration {
    let seconds = headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|preference| preference.trim().strip_prefix("wait=")?.parse::<u64>().ok());
    Duration::from_secs(seconds.unwrap_or(0).min(MAX_WAIT_SECONDS))
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}
