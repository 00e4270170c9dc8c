//! `/ofrep/v1`: a tenant's flags and limits for OpenFeature clients, by the OpenFeature Remote
//! Evaluation Protocol 0.3.0.
//!
//! Invariants: whose flags they are is said by host and token, never by the evaluation context, which
//! is read and not believed: a browser can't make itself somebody else's; the answer comes from memory;
//! 400 and 404 about a flag have OFREP's shape, everything else is a problem document like all
//! refusals.
//!
//! Left out: `eventStreams` (clients poll with the ETag, which costs a 304), and targeting by context.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::timeout;
use waangu_identity::sha256_hex;
use waangu_kernel::entitlement::{Declaration, Kind, Layers, Origin};
use waangu_kernel::{Fault, Slug, fault};

use super::{Arrived, Edge, Trail, not_found};
use crate::authorise::require_active;
use crate::problem::{self, Refusal, Reply};
use crate::snapshot::Tenant;

/// Where flags are evaluated.
const FLAGS: &str = "/ofrep/v1/evaluate/flags";

/// Largest evaluation context, in bytes.
const BODY: usize = 64 * 1024;

/// Time in which it has to arrive.
const ARRIVAL: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Asked<'a> {
    One(&'a str),
    All,
}

/// The body of a request. What is in the context plays no part.
#[derive(Deserialize)]
struct Evaluation {
    context: BTreeMap<String, Value>,
}

/// One flag's value, or why there is none.
#[derive(Serialize)]
struct Success<'a> {
    key: &'a str,
    /// Left out where there is no limit: the client uses its own default.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a Value>,
    reason: &'static str,
    variant: &'static str,
    metadata: Metadata<'a>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    origin: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
}

#[derive(Serialize)]
struct Failure<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(rename = "errorCode")]
    code: &'static str,
    #[serde(rename = "errorDetails")]
    details: String,
}

#[derive(Serialize)]
struct Bulk<'a> {
    flags: Vec<Success<'a>>,
}

impl Edge {
    /// Evaluates one flag or all of them.
    pub(super) async fn ofrep(
        &self,
        arrived: Arrived<'_>,
        slug: Option<Slug>,
        trail: &mut Trail,
    ) -> Result<Reply, Refusal> {
        let head = &arrived.head;
        let asked = Asked::parse(head.uri.path()).ok_or_else(not_found)?;
        let route = match asked {
            Asked::One(_) => format!("{FLAGS}/{{key}}"),
            Asked::All => FLAGS.to_owned(),
        };
        trail.route = Some(route);
        if head.method != Method::POST {
            return Err(Refusal {
                allow: Some("POST".to_owned()),
                ..fault::METHOD_NOT_ALLOWED
                    .fault("flags are evaluated with POST")
                    .into()
            });
        }
        let (tenant, _caller) = self.parties(&arrived, slug, trail).await?;
        require_active(&tenant)?;
        let _share = self.enter(&tenant)?;
        let body = gather(arrived.body).await?;
        if let Err((code, details)) = check(&body) {
            let key = match asked {
                Asked::One(key) => Some(key),
                Asked::All => None,
            };
            let failure = Failure { key, code, details };
            return reply(StatusCode::BAD_REQUEST, &failure);
        }
        let (modules, sets) = (self.snapshot.modules(), self.snapshot.sets());
        let layers = tenant.layers(&sets);
        let catalogue = modules.catalogue();
        match asked {
            Asked::One(key) => match catalogue.get(key).filter(|one| visible(&tenant, one)) {
                Some(declaration) => reply(StatusCode::OK, &evaluate(declaration, &layers)),
                None => unknown(key),
            },
            Asked::All => {
                let flags = catalogue
                    .iter()
                    .filter(|one| visible(&tenant, one))
                    .map(|one| evaluate(one, &layers))
                    .collect();
                bulk(&head.headers, &Bulk { flags })
            }
        }
    }
}

impl<'a> Asked<'a> {
    fn parse(path: &'a str) -> Option<Self> {
        match path.strip_prefix(FLAGS)? {
            "" => Some(Self::All),
            rest => {
                let key = rest.strip_prefix('/')?;
                (!key.is_empty() && !key.contains('/')).then_some(Self::One(key))
            }
        }
    }
}

/// What a tenant may see: the platform's own, and those of modules that are on.
fn visible(tenant: &Tenant, declaration: &Declaration) -> bool {
    declaration.module().is_none_or(|module| tenant.has(module))
}

fn evaluate<'a>(declaration: &'a Declaration, layers: &Layers<'a>) -> Success<'a> {
    let (value, origin) = layers.find(declaration);
    let unlimited = declaration.kind == Kind::Limit && value.is_null();
    Success {
        key: &declaration.key,
        value: (!unlimited).then_some(value),
        reason: match origin {
            Origin::Default => "STATIC",
            Origin::Plan | Origin::Profile | Origin::Override => "TARGETING_MATCH",
        },
        variant: origin.as_str(),
        metadata: Metadata {
            origin: origin.as_str(),
            kind: declaration.kind.as_str(),
            unit: declaration.unit.as_deref(),
        },
    }
}

/// Reads the context, bounded in length and time.
async fn gather(body: Incoming) -> Result<Bytes, Fault> {
    let whole = timeout(ARRIVAL, Limited::new(body, BODY).collect()).await;
    let whole = whole
        .map_err(|_elapsed| fault::MALFORMED_REQUEST.fault("the body did not arrive in time"))?;
    let whole = whole.map_err(|error| {
        fault::BODY_TOO_LARGE
            .fault(format!("an evaluation context has at most {BODY} bytes"))
            .cause(error)
    })?;
    Ok(whole.to_bytes())
}

/// Refuses what is no evaluation request, with OpenFeature's code for it.
fn check(body: &[u8]) -> Result<(), (&'static str, String)> {
    let value: Value =
        serde_json::from_slice(body).map_err(|error| ("PARSE_ERROR", error.to_string()))?;
    let Evaluation { context } =
        serde_json::from_value(value).map_err(|error| ("INVALID_CONTEXT", error.to_string()))?;
    match context.get("targetingKey") {
        None | Some(Value::String(_)) => Ok(()),
        Some(_) => Err(("INVALID_CONTEXT", "`targetingKey` is a text".to_owned())),
    }
}

fn unknown(key: &str) -> Result<Reply, Refusal> {
    let key = fault::excerpt(key);
    let failure = Failure {
        key: Some(&key),
        code: "FLAG_NOT_FOUND",
        details: "no flag or limit of this tenant has this key".to_owned(),
    };
    reply(StatusCode::NOT_FOUND, &failure)
}

/// All flags, or 304 to somebody who has them.
fn bulk(asked: &HeaderMap, flags: &Bulk<'_>) -> Result<Reply, Refusal> {
    let text = text(flags)?;
    let tag = format!("\"{}\"", sha256_hex(text.as_bytes()));
    let known = matches(asked, &tag);
    let mut reply = if known {
        problem::json(StatusCode::NOT_MODIFIED, JSON, String::new(), &Method::HEAD)
    } else {
        problem::json(StatusCode::OK, JSON, text, &Method::POST)
    };
    let headers = reply.headers_mut();
    if known {
        headers.remove(http::header::CONTENT_TYPE);
        headers.remove(http::header::CONTENT_LENGTH);
    }
    headers.insert(ETAG, super::text(&tag)?);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(reply)
}

/// Whether one of the given tags is this one; the comparison is the weak one (RFC 9110 §13.1.2).
fn matches(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|given| given.trim().trim_start_matches("W/"))
        .any(|given| given == "*" || given == tag)
}

const JSON: &str = "application/json";

fn reply(status: StatusCode, body: &impl Serialize) -> Result<Reply, Refusal> {
    let mut reply = problem::json(status, JSON, text(body)?, &Method::POST);
    let uncached = HeaderValue::from_static("no-store");
    reply.headers_mut().insert(CACHE_CONTROL, uncached);
    Ok(reply)
}

fn text(body: &impl Serialize) -> Result<String, Fault> {
    serde_json::to_string(body).map_err(|error| {
        fault::INTERNAL
            .fault("the answer can't be written")
            .cause(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path read carelessly would answer where nothing is promised.
    #[test]
    fn paths_name_one_flag_or_all() {
        let all = "/ofrep/v1/evaluate/flags";
        assert_eq!(Asked::parse(all), Some(Asked::All));
        assert_eq!(
            Asked::parse("/ofrep/v1/evaluate/flags/crm.board"),
            Some(Asked::One("crm.board"))
        );
        for nothing in ["", "/", "/a/b", "x", "/x/"] {
            assert_eq!(
                Asked::parse(&format!("{all}{nothing}")),
                if nothing.is_empty() {
                    Some(Asked::All)
                } else {
                    None
                }
            );
        }
        assert_eq!(Asked::parse("/ofrep/v1/configuration"), None);
    }

    /// An ordinary client without a targeting key must be served; nonsense must be called that.
    #[test]
    fn contexts_are_read_and_not_believed() {
        let code = |body: &str| check(body.as_bytes()).map_err(|(code, _)| code);
        for fine in [
            r#"{"context":{}}"#,
            r#"{"context":{"targetingKey":"u","tenant":"other","n":1}}"#,
            r#"{"context":{},"flags":["a"]}"#,
        ] {
            assert_eq!(code(fine), Ok(()), "{fine}");
        }
        assert_eq!(code(""), Err("PARSE_ERROR"));
        assert_eq!(code("{"), Err("PARSE_ERROR"));
        for bad in [
            "{}",
            "[]",
            "7",
            r#"{"context":[]}"#,
            r#"{"context":{"targetingKey":7}}"#,
        ] {
            assert_eq!(code(bad), Err("INVALID_CONTEXT"), "{bad}");
        }
    }
}
