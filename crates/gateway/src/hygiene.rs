//! What a request must look like, and what nobody outside may say.
//!
//! Invariants (edge design §1.6):
//! - a request names exactly one host, in one place or the same in two;
//! - a path is in one form only, so that two programs can't read it as two paths;
//! - headers that name an identity, a client or an original address never come from outside, in any
//!   spelling; what `Connection` nominates is taken off before ours are set.
//!
//! What hyper 1.12 already does before us: refuses obs-fold, white space before the colon, two
//! different `Content-Length`, a sign in it, `Transfer-Encoding` in HTTP/1.0 or not ending in
//! `chunked`, more than 100 headers and heads over 64 KiB. What it does not: see the functions here,
//! and [`crate::wire`] for `Content-Length` beside `Transfer-Encoding`.

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderName, SET_COOKIE, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, Method};
use waangu_kernel::{Fault, fault};

mod path;

/// More headers than any honest client sends; HTTP/1 is bounded by hyper, HTTP/2 here.
const MAX_HEADERS: usize = 100;

/// RFC 9110 §7.6.1, and what history added.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Beginnings of names that only the platform may set.
const OURS: [&str; 8] = [
    "waangu-",
    "x-waangu-",
    "x-tenant",
    "x-user",
    "x-forwarded",
    "x-original-",
    "x-rewrite-",
    "x-real-ip",
];

fn malformed(detail: &'static str) -> Fault {
    fault::MALFORMED_REQUEST.fault(detail)
}

/// Refuses what is ambiguous, and returns the authority that the request names.
pub(crate) fn inspect(head: &Parts) -> Result<String, Fault> {
    if head.headers.len() > MAX_HEADERS {
        return Err(malformed("there are too many headers"));
    }
    if head.method == Method::CONNECT || head.method == Method::TRACE {
        return Err(malformed("this method is not supported"));
    }
    if head.headers.contains_key(UPGRADE) {
        return Err(malformed("upgrades are not supported"));
    }
    if head.headers.get_all(CONTENT_LENGTH).iter().count() > 1 {
        return Err(malformed("there is more than one Content-Length header"));
    }
    if head.headers.contains_key(CONTENT_LENGTH)
        && head.headers.contains_key(http::header::TRANSFER_ENCODING)
    {
        return Err(malformed(
            "Content-Length and Transfer-Encoding exclude each other",
        ));
    }
    path::inspect(head.uri.path())?;
    authority(head)
}

/// The one authority: `:authority` or the absolute form, and `Host`, which must not differ.
fn authority(head: &Parts) -> Result<String, Fault> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts
        .next()
        .map(|value| {
            value
                .to_str()
                .map_err(|_not_text| malformed("the Host header is not text"))
        })
        .transpose()?;
    if hosts.next().is_some() {
        return Err(malformed("there is more than one Host header"));
    }
    match (head.uri.authority(), host) {
        (None, None) => Err(malformed("there is no Host header")),
        (None, Some(host)) => Ok(host.to_owned()),
        (Some(authority), None) => Ok(authority.as_str().to_owned()),
        (Some(authority), Some(host)) if authority.as_str().eq_ignore_ascii_case(host) => {
            Ok(host.to_owned())
        }
        (Some(_), Some(_)) => Err(malformed("the address and the Host header differ")),
    }
}

/// Who receives the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiver {
    /// A module: gets nothing that it could replay elsewhere.
    Module,
    /// The control plane: authenticates by itself.
    Control,
}

/// Takes off everything that must not go on from a client.
pub(crate) fn clean_request(headers: &mut HeaderMap, receiver: Receiver) {
    drop_hop_by_hop(headers);
    drop_where(headers, |name| {
        let name = name.replace('_', "-");
        name == "forwarded" || OURS.iter().any(|ours| name.starts_with(ours))
    });
    // The body is framed anew on the way to the upstream, and hyper has answered the expectation.
    headers.remove(CONTENT_LENGTH);
    headers.remove(EXPECT);
    if receiver == Receiver::Module {
        headers.remove(http::header::AUTHORIZATION);
        headers.remove(COOKIE);
        headers.remove(HOST);
    }
}

/// Takes off everything that must not go back to a client.
pub(crate) fn clean_response(headers: &mut HeaderMap, sender: Receiver) {
    drop_hop_by_hop(headers);
    drop_where(headers, |name| name.starts_with("waangu-"));
    if sender == Receiver::Module {
        // A cookie set under a tenant's name would be sent to every module there.
        headers.remove(SET_COOKIE);
    }
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in nominated {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn drop_where(headers: &mut HeaderMap, forbidden: impl Fn(&str) -> bool) {
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| forbidden(name.as_str()))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;

    fn head(uri: &str, hosts: &[&'static str]) -> Parts {
        let mut head = Request::builder().uri(uri).body(()).unwrap().into_parts().0;
        for host in hosts {
            head.headers.append(HOST, HeaderValue::from_static(host));
        }
        head
    }

    /// If two programs on the way disagree on the host, one tenant's request runs as another's.
    #[test]
    fn one_host_is_named_or_the_request_is_refused() {
        assert_eq!(inspect(&head("/", &["a.test"])).unwrap(), "a.test");
        assert_eq!(inspect(&head("https://a.test/", &[])).unwrap(), "a.test");
        assert_eq!(
            inspect(&head("https://a.test/", &["A.test"])).unwrap(),
            "A.test"
        );
        for (uri, hosts) in [
            ("/", &[][..]),
            ("/", &["a.test", "b.test"][..]),
            ("/", &["a.test", "a.test"][..]),
            ("https://a.test/", &["b.test"][..]),
            ("https://a.test:1/", &["a.test:2"][..]),
        ] {
            assert!(inspect(&head(uri, hosts)).is_err(), "{uri} {hosts:?}");
        }
    }

    /// One forged header that gets through is an identity that nobody verified.
    #[test]
    fn no_identity_comes_from_outside_in_any_spelling() {
        let mut headers = HeaderMap::new();
        for name in [
            "x-tenant-id",
            "x_tenant_id",
            "x-tenant",
            "x-user-id",
            "x-user",
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-host",
            "x_forwarded_host",
            "x-real-ip",
            "x-original-url",
            "x-rewrite-url",
            "waangu-context",
            "waangu_context",
            "waangu-request",
            "waangu-client-ip",
            "authorization",
            "cookie",
            "host",
            "content-length",
            "expect",
            "te",
            "trailer",
            "upgrade",
            "keep-alive",
            "proxy-connection",
            "secret",
        ] {
            headers.insert(name, HeaderValue::from_static("1"));
        }
        headers.insert(CONNECTION, HeaderValue::from_static("close, Secret"));
        headers.insert("accept", HeaderValue::from_static("*/*"));
        headers.insert("idempotency-key", HeaderValue::from_static("1"));
        let mut to_control = headers.clone();
        clean_request(&mut headers, Receiver::Module);
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        clean_request(&mut to_control, Receiver::Control);
        assert!(to_control.contains_key("authorization"));
        assert!(to_control.contains_key("cookie"));
        assert_eq!(to_control.len(), 5);
    }
}
