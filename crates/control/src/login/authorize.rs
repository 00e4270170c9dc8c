//! `/authorize` (RFC 6749 §3.1): a form for people, and a code for their client.
//!
//! Invariant: nothing is sent to a redirect URI before it has been matched against the client's; a
//! request with a wrong one is answered here, in plain words.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Form;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, RETRY_AFTER,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use waangu_identity::{random_secret, sha256_hex};
use waangu_kernel::{Slug, fault};
use waangu_registry::AuthorizationCode;

use super::signin::{SignIn, sign_in, subject};
use crate::reply::Refusal;
use crate::server::App;

/// The first-party public client: console, command line.
const CLIENT: &str = "waangu";

/// Life of a code (RFC 6749 §4.1.2 asks for at most ten minutes).
const CODE_LIFETIME: time::Duration = time::Duration::seconds(60);

/// An authorization request.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct AuthorizeRequest {
    client_id: String,
    redirect_uri: String,
    response_type: String,
    code_challenge: String,
    code_challenge_method: String,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    nonce: Option<String>,
    #[serde(default)]
    tenant: Option<String>,
}

/// The same, with what the person typed.
#[derive(Debug, Deserialize)]
pub(super) struct Submission {
    #[serde(flatten)]
    request: AuthorizeRequest,
    username: String,
    password: String,
}

/// Shows the sign-in form.
pub(super) async fn form(
    State(app): State<Arc<App>>,
    query: Result<Query<AuthorizeRequest>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(request) =
        query.map_err(|rejection| fault::MALFORMED_REQUEST.fault(rejection.body_text()))?;
    check(&app, &request)?;
    Ok(page(StatusCode::OK, &request, None))
}

/// Checks the password and sends the client its code.
pub(super) async fn submit(
    State(app): State<Arc<App>>,
    form: Result<Form<Submission>, FormRejection>,
) -> Result<Response, Refusal> {
    let Form(Submission {
        request,
        username,
        password,
    }) = form.map_err(|rejection| fault::MALFORMED_REQUEST.fault(rejection.body_text()))?;
    check(&app, &request)?;
    let wrong = "Name or password is wrong. Sign in as name@company.";
    let Some(subject) = subject(&username, request.tenant.as_deref()) else {
        return Ok(page(StatusCode::UNAUTHORIZED, &request, Some(wrong)));
    };
    if !leads_home(&app.config.domain, &request.redirect_uri, &subject.0) {
        return Err(Refusal(
            fault::INVALID_FIELD
                .fault("the redirect address is another tenant's")
                .field("redirect_uri"),
        ));
    }
    let credential = match sign_in(&app, &subject, password).await? {
        SignIn::Welcome(credential) => credential,
        SignIn::Wrong => return Ok(page(StatusCode::UNAUTHORIZED, &request, Some(wrong))),
        SignIn::Wait(seconds) => return Ok(wait(&request, seconds)),
    };
    let code = random_secret::<32>()
        .map_err(|error| fault::INTERNAL.fault("no code could be made").cause(error))?;
    let stored = AuthorizationCode {
        user: credential.user,
        client_id: request.client_id.clone(),
        redirect_uri: request.redirect_uri.clone(),
        challenge: request.code_challenge.clone(),
        nonce: request.nonce.clone(),
        expires_at: app.clock.now() + CODE_LIFETIME,
    };
    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    tx.put_code(&sha256_hex(code.as_bytes()), &stored).await?;
    tx.commit().await?;
    Ok(redirect(&app, &request, &code))
}

fn check(app: &App, request: &AuthorizeRequest) -> Result<(), Refusal> {
    let wrong = |why: &'static str, field: &'static str| {
        Err(Refusal(fault::INVALID_FIELD.fault(why).field(field)))
    };
    if request.client_id != CLIENT {
        return wrong("the client is not known", "client_id");
    }
    if !redirect_allowed(
        &app.config.domain,
        app.config.public_port,
        &request.redirect_uri,
    ) {
        return wrong("the redirect address is not the client's", "redirect_uri");
    }
    if request.response_type != "code" {
        return wrong("only `code` is offered", "response_type");
    }
    if request.code_challenge_method != "S256" || request.code_challenge.len() != 43 {
        return wrong("PKCE with S256 is required", "code_challenge");
    }
    for (value, field) in [(&request.state, "state"), (&request.nonce, "nonce")] {
        if value
            .as_deref()
            .is_some_and(|text| text.contains(char::is_control))
        {
            return wrong("it must not have control characters", field);
        }
    }
    Ok(())
}

/// A tenant's own callback, or a command line's on loopback (RFC 8252 §7.3, any port).
fn redirect_allowed(domain: &str, port: u16, redirect: &str) -> bool {
    // A fragment (RFC 6749 §3.1.2 forbids it) is left out by the parser, not refused.
    let Some(uri) = redirect
        .parse::<Uri>()
        .ok()
        .filter(|_| !redirect.contains('#'))
    else {
        return false;
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return false;
    };
    if authority.as_str().contains('@') || uri.path() != "/auth/callback" || uri.query().is_some() {
        return false;
    }
    let host = uri.host().unwrap_or_default();
    match scheme {
        "http" => host == "127.0.0.1" && uri.port_u16().is_some(),
        "https" => {
            uri.port_u16().unwrap_or(443) == port
                && host
                    .strip_suffix(domain)
                    .and_then(|rest| rest.strip_suffix('.'))
                    .is_some_and(|label| label.parse::<Slug>().is_ok())
        }
        _ => false,
    }
}

/// Whether a code for somebody of this tenant may go there. With a link to their own callback, another
/// tenant's people would get the code, and they have chosen its PKCE verifier, too.
fn leads_home(domain: &str, redirect: &str, tenant: &Slug) -> bool {
    redirect.parse::<Uri>().is_ok_and(|uri| {
        uri.scheme_str() == Some("http")
            || uri
                .host()
                .and_then(|host| host.strip_suffix(domain)?.strip_suffix('.'))
                == Some(tenant.as_str())
    })
}

fn redirect(app: &App, request: &AuthorizeRequest, code: &str) -> Response {
    let mut target = format!("{}?code={code}", request.redirect_uri);
    if let Some(state) = &request.state {
        target.push_str("&state=");
        target.push_str(&percent(state));
    }
    // RFC 9207: the client can tell which issuer answered.
    target.push_str("&iss=");
    target.push_str(&percent(&app.config.directory.issuer));
    match HeaderValue::from_str(&target) {
        Ok(location) => (StatusCode::SEE_OTHER, [(LOCATION, location)]).into_response(),
        Err(_unprintable) => Refusal(
            fault::INVALID_FIELD
                .fault("the redirect address can't be written")
                .field("redirect_uri"),
        )
        .into_response(),
    }
}

fn wait(request: &AuthorizeRequest, seconds: i64) -> Response {
    let text = format!("Too many failed sign-ins. Try again in {seconds} seconds.");
    let mut response = page(StatusCode::TOO_MANY_REQUESTS, request, Some(&text));
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// The form. No script, no style from elsewhere, not to be framed.
fn page(status: StatusCode, request: &AuthorizeRequest, message: Option<&str>) -> Response {
    let mut hidden = String::new();
    let fields = [
        ("client_id", Some(request.client_id.as_str())),
        ("redirect_uri", Some(&request.redirect_uri)),
        ("response_type", Some(&request.response_type)),
        ("code_challenge", Some(&request.code_challenge)),
        (
            "code_challenge_method",
            Some(&request.code_challenge_method),
        ),
        ("state", request.state.as_deref()),
        ("nonce", request.nonce.as_deref()),
        ("tenant", request.tenant.as_deref()),
    ];
    for (name, value) in fields
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    {
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            hidden,
            r#"      <input type="hidden" name="{name}" value="{}">"#,
            escape(value)
        );
    }
    let message = message.map_or(String::new(), |text| {
        format!("      <p role=\"alert\">{}</p>\n", escape(text))
    });
    let html = include_str!("authorize.html")
        .replace("{{hidden}}", hidden.trim_end())
        .replace("{{message}}", message.trim_end());
    (status, page_headers(), html).into_response()
}

fn page_headers() -> HeaderMap {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                  frame-ancestors 'none'";
    HeaderMap::from_iter([
        (
            CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        ),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ])
}

/// HTML text and attribute escaping.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// Percent-encoding of everything but unreserved characters (RFC 3986 §2.3).
fn percent(text: &str) -> String {
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut out, byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                let _infallible = write!(out, "%{byte:02X}");
            }
            out
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A code sent to a stranger's address is an account given away.
    #[test]
    fn redirects_go_only_to_the_clients_own_addresses() {
        let allowed = |uri: &str| redirect_allowed("waangu.localhost", 8443, uri);
        assert!(allowed(
            "https://teranga.waangu.localhost:8443/auth/callback"
        ));
        assert!(allowed("http://127.0.0.1:40000/auth/callback"));
        for stranger in [
            "https://evil.example/auth/callback",
            "https://teranga.waangu.localhost.evil.example:8443/auth/callback",
            "https://evilwaangu.localhost:8443/auth/callback",
            "https://teranga.waangu.localhost:8443@evil.example/auth/callback",
            "https://teranga.waangu.localhost:8443/auth/callback/../../x",
            "https://teranga.waangu.localhost:8443/auth/callback?next=x",
            "https://teranga.waangu.localhost:8443/auth/callback#x",
            "https://a.b.waangu.localhost:8443/auth/callback",
            "https://login.waangu.localhost:8443/auth/callback",
            "http://teranga.waangu.localhost:8443/auth/callback",
            "https://teranga.waangu.localhost:9443/auth/callback",
            "http://127.0.0.1.evil.example:80/auth/callback",
            "javascript:alert(1)",
            "",
        ] {
            assert!(!allowed(stranger), "{stranger}");
        }
    }

    /// A code that goes to another tenant's address is an account given away, too.
    #[test]
    fn codes_go_to_the_tenant_of_whoever_signs_in() {
        let home = |uri: &str| leads_home("waangu.localhost", uri, &"teranga".parse().unwrap());
        assert!(home("https://teranga.waangu.localhost:8443/auth/callback"));
        assert!(home("http://127.0.0.1:40000/auth/callback"));
        assert!(!home("https://other.waangu.localhost:8443/auth/callback"));
        assert!(!home(
            "https://xteranga.waangu.localhost:8443/auth/callback"
        ));
    }

    /// A name in the form must stay a name.
    #[test]
    fn the_form_escapes_what_it_repeats() {
        assert_eq!(
            escape("\"><script>'&"),
            "&quot;&gt;&lt;script&gt;&#39;&amp;"
        );
        assert_eq!(percent("a b&c=ü"), "a%20b%26c%3D%C3%BC");
    }
}
