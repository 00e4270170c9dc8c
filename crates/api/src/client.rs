//! A typed client of the platform's HTTP surface: the admin API, sign-in, and modules.
//!
//! Invariants: it trusts only the CA it is given; names below `localhost` go to loopback without DNS
//! (RFC 6761 §6.3), which many systems' resolvers don't do.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::problem::Problem;
use crate::types::{Accepted, OperationView};

mod onboard;

pub use onboard::Onboarded;

/// Longest wait for one answer; `Prefer: wait` asks for less than this.
const TIMEOUT: Duration = Duration::from_secs(90);

/// Why a call did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The platform refused, and says why.
    #[error("{} [{}]{}", .0.detail, .0.code, field_note(.0))]
    Refused(Box<Problem>),
    /// No answer, or not one of ours.
    #[error("{0}")]
    Unreachable(String),
}

fn field_note(problem: &Problem) -> String {
    problem
        .field
        .as_ref()
        .map(|field| format!(" (field `{field}`)"))
        .unwrap_or_default()
}

/// A client of one platform.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Client {
    /// A client of `base` (without a slash at its end) that trusts the CA in `ca_pem`.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] when the CA can't be read.
    pub fn new(base: &str, ca_pem: &[u8], token: Option<&str>) -> Result<Self, ClientError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        // Installed once per process; a second install is refused and changes nothing.
        drop(rustls::crypto::CryptoProvider::install_default(
            Arc::unwrap_or_clone(provider),
        ));
        let ca = reqwest::Certificate::from_pem(ca_pem).map_err(unreachable)?;
        let http = reqwest::Client::builder()
            .tls_certs_only([ca])
            .dns_resolver(Arc::new(Loopback))
            .timeout(TIMEOUT)
            .user_agent(concat!("waangu/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(unreachable)?;
        Ok(Self {
            http,
            base: base.to_owned(),
            token: token.map(str::to_owned),
        })
    }

    /// The same client for another address and token of the same platform.
    #[must_use]
    pub fn at(&self, base: &str, token: Option<&str>) -> Self {
        Self {
            http: self.http.clone(),
            base: base.to_owned(),
            token: token.map(str::to_owned),
        }
    }

    /// `GET path`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let request = self.request(Method::GET, path);
        json(self.send(request).await?).await
    }

    /// A request with a JSON body; an idempotency key makes it safe to repeat.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send_json<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
        idempotency_key: Option<&str>,
    ) -> Result<T, ClientError> {
        let mut request = self.request(method, path).json(body);
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        json(self.send(request).await?).await
    }

    /// A change that takes time: asks the server to answer when it is done, and if it is not by
    /// then, follows the operation. `progress` hears of each look.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn change<B: Serialize + Sync>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        idempotency_key: Option<&str>,
        progress: &(dyn Fn(&OperationView) + Sync),
    ) -> Result<Accepted, ClientError> {
        let mut request = self.request(method, path).header("prefer", "wait=1");
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let accepted = json(self.send(request).await?).await?;
        self.follow(accepted, progress).await
    }

    async fn follow(
        &self,
        mut accepted: Accepted,
        progress: &(dyn Fn(&OperationView) + Sync),
    ) -> Result<Accepted, ClientError> {
        while !accepted.operation.is_final() {
            progress(&accepted.operation);
            let path = format!("/operations/{}", accepted.operation.id);
            let request = self.request(Method::GET, &path).header("prefer", "wait=1");
            accepted.operation = json(self.send(request).await?).await?;
        }
        progress(&accepted.operation);
        Ok(accepted)
    }

    /// Whether `path` answers with a success.
    ///
    /// # Errors
    /// [`ClientError`], when it does not.
    pub async fn probe(&self, path: &str) -> Result<(), ClientError> {
        self.send(self.request(Method::GET, path)).await.map(drop)
    }

    /// A DELETE that gives no body.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.send(self.request(Method::DELETE, path))
            .await
            .map(drop)
    }

    /// The password grant (RFC 6749 §4.3), in development only.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sign_in(&self, username: &str, password: &str) -> Result<String, ClientError> {
        #[derive(serde::Deserialize)]
        struct Token {
            access_token: String,
        }
        let form = [
            ("grant_type", "password"),
            ("username", username),
            ("password", password),
        ];
        let request = self.request(Method::POST, "/token").form(&form);
        let token: Token = json(self.send(request).await?).await?;
        Ok(token.access_token)
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, ClientError> {
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.map_err(unreachable)?;
        Err(refusal(status, &body))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.base)
    }
}

async fn json<T: DeserializeOwned>(response: reqwest::Response) -> Result<T, ClientError> {
    response.json().await.map_err(unreachable)
}

fn refusal(status: StatusCode, body: &[u8]) -> ClientError {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => ClientError::Refused(Box::new(problem)),
        Err(_not_a_problem) => ClientError::Unreachable(format!(
            "answered {status}: {}",
            String::from_utf8_lossy(body.get(..300).unwrap_or(body))
        )),
    }
}

/// One line with the whole chain of causes: "error sending request" alone helps nobody.
#[expect(
    clippy::needless_pass_by_value,
    reason = "used as a function value in map_err"
)]
fn unreachable(error: reqwest::Error) -> ClientError {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    ClientError::Unreachable(text)
}

/// Resolves names below `localhost` to loopback, all others by the system.
#[derive(Debug)]
struct Loopback;

impl Resolve for Loopback {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let host = name.as_str();
            let addresses: Addrs = if host == "localhost" || host.ends_with(".localhost") {
                Box::new(std::iter::once(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))
            } else {
                let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
                Box::new(found.into_iter())
            };
            Ok(addresses)
        })
    }
}
