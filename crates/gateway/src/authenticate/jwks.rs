//! The issuer's key set (RFC 7517): fetched at start, every ten minutes, and when a token names a
//! key that we don't know.
//!
//! Invariants: one fetch at a time; made-up key ids cause at most one fetch a minute; a set that was
//! fetched once is served until a newer one is there, however long the issuer is down; an empty,
//! oversized or unreadable set never replaces a good one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, sleep, timeout};
use waangu_identity::{Jwks, TokenVerifier};
use waangu_kernel::{Fault, fault};

const PERIOD: Duration = Duration::from_mins(10);
const MIN_INTERVAL: Duration = Duration::from_mins(1);
/// As long as there is no set at all, nobody can be let in: then try often.
const MIN_INTERVAL_WITHOUT_KEYS: Duration = Duration::from_secs(1);
const FETCH: Duration = Duration::from_secs(5);
const MAX_BYTES: usize = 1024 * 1024;
const MAX_KEYS: usize = 32;

/// One version of the key set.
#[derive(Debug)]
pub(crate) struct Verifier {
    /// Grows when the set changes.
    pub(crate) version: u64,
    /// Verifies with this set.
    pub(crate) tokens: TokenVerifier,
    jwks: Jwks,
}

/// The key set of the issuer.
pub(crate) struct KeySet {
    issuer: String,
    url: Uri,
    client: Client<HttpConnector, Empty<Bytes>>,
    current: ArcSwapOption<Verifier>,
    /// When the last fetch began; who holds it fetches.
    fetching: tokio::sync::Mutex<Option<Instant>>,
}

impl KeySet {
    /// A key set that has not been fetched yet.
    pub(crate) fn new(issuer: &str, url: &str) -> Result<Self, Fault> {
        let bad = || {
            fault::INVALID_FIELD
                .fault("the address of the key set must be an http URL")
                .field("jwks_url")
        };
        let url: Uri = url.parse().map_err(|error| bad().cause(error))?;
        if url.scheme_str() != Some("http") || url.authority().is_none() {
            return Err(bad());
        }
        Ok(Self {
            issuer: issuer.to_owned(),
            url,
            client: Client::builder(TokioExecutor::new()).build_http(),
            current: ArcSwapOption::empty(),
            fetching: tokio::sync::Mutex::new(None),
        })
    }

    /// The set in use.
    pub(crate) fn current(&self) -> Option<Arc<Verifier>> {
        self.current.load_full()
    }

    /// The set in use; fetches it if there is none yet and it is time to try.
    pub(crate) async fn current_or_fetched(&self) -> Option<Arc<Verifier>> {
        if self.current().is_none() {
            self.refresh().await;
        }
        self.current()
    }

    /// A set newer than this version, fetched if it is time to.
    pub(crate) async fn newer_than(&self, version: u64) -> Option<Arc<Verifier>> {
        let newer = || self.current().filter(|set| set.version > version);
        if newer().is_none() {
            self.refresh().await;
        }
        newer()
    }

    /// Refreshes for ever.
    pub(crate) async fn follow(&self) {
        loop {
            self.refresh().await;
            let pause = match self.current() {
                Some(_) => PERIOD,
                None => MIN_INTERVAL_WITHOUT_KEYS,
            };
            sleep(pause).await;
        }
    }

    /// Fetches once, unless somebody did a moment ago.
    async fn refresh(&self) {
        let mut last = self.fetching.lock().await;
        let interval = match self.current() {
            Some(_) => MIN_INTERVAL,
            None => MIN_INTERVAL_WITHOUT_KEYS,
        };
        if last.is_some_and(|at| at.elapsed() < interval) {
            return;
        }
        *last = Some(Instant::now());
        match timeout(FETCH, self.fetch()).await {
            Ok(Ok(jwks)) => self.take_over(jwks),
            Ok(Err(why)) => tracing::warn!(why, "the key set can't be fetched"),
            Err(_elapsed) => tracing::warn!("the key set was not sent in time"),
        }
    }

    fn take_over(&self, jwks: Jwks) {
        let current = self.current();
        if current.as_ref().is_some_and(|set| set.jwks == jwks) {
            return;
        }
        let version = current.map_or(1, |set| set.version + 1);
        tracing::info!(version, keys = jwks.keys.len(), "key set in use");
        self.current.store(Some(Arc::new(Verifier {
            version,
            tokens: TokenVerifier::new(&self.issuer, &jwks),
            jwks,
        })));
    }

    async fn fetch(&self) -> Result<Jwks, String> {
        let request = Request::builder()
            .method(Method::GET)
            .uri(self.url.clone())
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let answer = self
            .client
            .request(request)
            .await
            .map_err(|error| error.to_string())?;
        // A redirect is not followed: the address is ours.
        if answer.status() != StatusCode::OK {
            return Err(format!("status {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), MAX_BYTES);
        let bytes = body
            .collect()
            .await
            .map_err(|error| error.to_string())?
            .to_bytes();
        let jwks: Jwks = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        if jwks.keys.is_empty() || jwks.keys.len() > MAX_KEYS {
            return Err(format!(
                "{} keys, expected 1 to {MAX_KEYS}",
                jwks.keys.len()
            ));
        }
        Ok(jwks)
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySet({}, {:?})", self.issuer, self.current())
    }
}
