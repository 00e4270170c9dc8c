//! HTTP as a client of the platform speaks it: TLS with its CA and nothing else trusted.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, Version, redirect};
use serde::Serialize;
use serde_json::Value;

/// No request may take longer: a client must never hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A client. Made anew for each test: its connections belong to the test's runtime.
#[derive(Debug, Clone)]
pub(crate) struct Http(reqwest::Client);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

/// A request in the making.
#[derive(Debug)]
pub(crate) struct Call(RequestBuilder);

impl Http {
    pub(crate) fn new(ca: &Path) -> Self {
        Self::with(ca, |builder| builder)
    }

    /// A client that speaks HTTP/1.1 only.
    pub(crate) fn one_point_one(ca: &Path) -> Self {
        Self::with(ca, reqwest::ClientBuilder::http1_only)
    }

    fn with(
        ca: &Path,
        more: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> Self {
        // The second install is refused and changes nothing.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let ca = reqwest::Certificate::from_pem(&std::fs::read(ca).unwrap()).unwrap();
        let builder = reqwest::Client::builder()
            .tls_certs_only([ca])
            .dns_resolver(Arc::new(Loopback))
            .redirect(redirect::Policy::none())
            .timeout(PATIENCE);
        Self(more(builder).build().unwrap())
    }

    pub(crate) fn call(&self, method: &str, url: &str) -> Call {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        Call(self.0.request(method, url))
    }

    pub(crate) fn get(&self, url: &str) -> Call {
        self.call("GET", url)
    }

    pub(crate) fn post(&self, url: &str) -> Call {
        self.call("POST", url)
    }
}

impl Call {
    pub(crate) fn token(self, token: &str) -> Self {
        Self(self.0.bearer_auth(token))
    }

    pub(crate) fn header(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        Self(self.0.header(name, value.as_ref()))
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        Self(self.0.json(body))
    }

    pub(crate) fn body(self, body: impl Into<reqwest::Body>) -> Self {
        Self(self.0.body(body))
    }

    pub(crate) fn form<T: Serialize + ?Sized>(self, form: &T) -> Self {
        Self(self.0.form(form))
    }

    pub(crate) fn query<T: Serialize + ?Sized>(self, query: &T) -> Self {
        Self(self.0.query(query))
    }

    pub(crate) async fn send(self) -> Answer {
        self.attempt().await.unwrap()
    }

    /// Sends; no answer is an answer, too.
    pub(crate) async fn attempt(self) -> Result<Answer, reqwest::Error> {
        let response = self.0.send().await?;
        Ok(Answer {
            status: response.status().as_u16(),
            version: response.version(),
            headers: response.headers().clone(),
            text: response.text().await?,
        })
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text))
    }

    /// The JSON of an answer that has to have this status.
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        if self.text.is_empty() {
            return Value::Null;
        }
        self.json()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Status, code and field of a problem, which has to be a whole one (RFC 9457).
    pub(crate) fn problem(&self) -> (u16, String, Option<String>) {
        let kind = self.header("content-type");
        assert_eq!(
            kind,
            Some("application/problem+json"),
            "{} {}",
            self.status,
            self.text
        );
        let problem = self.json();
        let text = |name: &str| problem[name].as_str().map(str::to_owned);
        assert_eq!(problem["status"], self.status, "{problem}");
        assert!(
            text("title").is_some_and(|title| !title.is_empty()),
            "{problem}"
        );
        assert!(
            text("detail").is_some_and(|detail| !detail.is_empty()),
            "{problem}"
        );
        let code = text("code").unwrap_or_else(|| panic!("no code: {problem}"));
        (self.status, code, text("field"))
    }

    /// Refuses anything but this problem.
    pub(crate) fn refused(&self, status: u16, code: &str) {
        let (actual, found, _) = self.problem();
        assert_eq!((actual, found.as_str()), (status, code), "{}", self.text);
    }
}

/// Every name is on this machine (RFC 6761 §6.3), whatever the system's resolver thinks.
#[derive(Debug)]
struct Loopback;

impl Resolve for Loopback {
    fn resolve(&self, _name: Name) -> Resolving {
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let found: Addrs = Box::new(std::iter::once(here));
        Box::pin(std::future::ready(Ok(found)))
    }
}
