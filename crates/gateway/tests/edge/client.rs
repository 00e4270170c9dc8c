//! A client with real TLS that may say anything, well-formed or not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::task::TaskTracker;

/// How long a test waits for an answer that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Knows the gateway's address and its certificate.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) roots: Arc<rustls::RootCertStore>,
    pub(crate) tasks: TaskTracker,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Got {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The problem's code, after checking that the rest of it is as promised.
    pub(crate) fn code(&self) -> String {
        let problem = self.json();
        assert_eq!(
            self.headers["content-type"], "application/problem+json",
            "{self:?}"
        );
        assert_eq!(problem["status"], self.status.as_u16(), "{self:?}");
        assert_eq!(
            problem["request"],
            self.header("waangu-request"),
            "{self:?}"
        );
        problem["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    }
}

impl Client {
    pub(crate) async fn tls(&self, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("acme.waangu.localhost").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap()
    }

    /// Sends bytes as they are and returns everything until the end of the connection, or until
    /// nothing more comes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.tls(&[b"http/1.1"]).await;
        // The server may stop reading in the middle, which is an answer too.
        let _maybe_refused = stream.write_all(bytes).await;
        let _maybe_refused = stream.flush().await;
        let mut answer = Vec::new();
        let mut piece = vec![0; 64 * 1024];
        let mut patience = PATIENCE;
        while let Ok(Ok(read)) = tokio::time::timeout(patience, stream.read(&mut piece)).await {
            if read == 0 {
                break;
            }
            answer.extend_from_slice(&piece[..read]);
            patience = Duration::from_millis(300);
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// One request over HTTP/1.1.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Got {
        whole(self.begin(request).await).await
    }

    /// One request over HTTP/1.1 with any body; the answer's body is still to come.
    pub(crate) async fn begin<B>(&self, request: Request<B>) -> http::Response<Incoming>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = TokioIo::new(self.tls(&[b"http/1.1"]).await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        self.tasks.spawn(connection);
        tokio::time::timeout(PATIENCE, sender.send_request(request))
            .await
            .unwrap()
            .unwrap()
    }

    /// One request over HTTP/2.
    pub(crate) async fn send_h2(&self, request: Request<Full<Bytes>>) -> Got {
        let stream = TokioIo::new(self.tls(&[b"h2"]).await);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
                .await
                .unwrap();
        self.tasks.spawn(connection);
        let answer = tokio::time::timeout(PATIENCE, sender.send_request(request));
        whole(answer.await.unwrap().unwrap()).await
    }
}

pub(crate) async fn whole(answer: http::Response<Incoming>) -> Got {
    let (head, body) = answer.into_parts();
    let body = tokio::time::timeout(PATIENCE, body.collect())
        .await
        .unwrap();
    Got {
        status: head.status,
        headers: head.headers,
        body: body.unwrap().to_bytes(),
    }
}
