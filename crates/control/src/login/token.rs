//! `POST /token` (RFC 6749 §3.2): authorization code with PKCE, and in development the password grant.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::Form;
use axum::extract::State;
use axum::extract::rejection::FormRejection;
use axum::http::header::{CACHE_CONTROL, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::json;
use waangu_identity::token::AUDIENCE;
use waangu_identity::{AccessClaims, random_secret, sha256_hex};
use waangu_kernel::{Fault, fault};
use waangu_registry::{AuthorizationCode, Credential};

use super::signin::{SignIn, sign_in, subject};
use crate::server::App;

/// Life of an access token, in seconds: roles are looked up per request, so it only limits how long
/// a stolen one works.
const LIFETIME_SECONDS: i64 = 900;

/// The form of a token request.
#[derive(Debug, Deserialize)]
pub(super) struct TokenRequest {
    grant_type: String,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    /// The tenant's slug, when the username is not `name@slug`.
    #[serde(default)]
    tenant: Option<String>,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    redirect_uri: Option<String>,
    #[serde(default)]
    client_id: Option<String>,
    #[serde(default)]
    code_verifier: Option<String>,
}

#[derive(Debug, Serialize)]
struct TokenReply {
    access_token: String,
    token_type: &'static str,
    expires_in: i64,
    id_token: String,
}

#[derive(Debug, Serialize)]
struct IdClaims<'a> {
    iss: &'a str,
    sub: String,
    aud: &'a str,
    exp: i64,
    iat: i64,
    tenant: String,
    preferred_username: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
}

/// An error of RFC 6749 §5.2.
#[derive(Debug)]
pub(super) struct OAuthError {
    status: StatusCode,
    error: &'static str,
    description: String,
    retry_after: Option<i64>,
}

impl OAuthError {
    fn bad(error: &'static str, description: &str) -> Self {
        let description = description.to_owned();
        Self {
            status: StatusCode::BAD_REQUEST,
            error,
            description,
            retry_after: None,
        }
    }

    fn wait(seconds: i64) -> Self {
        Self {
            status: StatusCode::TOO_MANY_REQUESTS,
            error: "slow_down",
            description: format!("too many failed sign-ins; try again in {seconds} s"),
            retry_after: Some(seconds),
        }
    }
}

impl From<Fault> for OAuthError {
    fn from(fault: Fault) -> Self {
        tracing::error!(
            code = fault.code(),
            cause = fault.operator_cause(),
            "{fault}"
        );
        Self {
            status: StatusCode::from_u16(fault.status())
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            error: if fault.def().retryable() {
                "temporarily_unavailable"
            } else {
                "server_error"
            },
            description: fault.to_string(),
            retry_after: fault.def().retryable().then_some(1),
        }
    }
}

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.error, "error_description": self.description });
        let mut response = (self.status, no_store(), axum::Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Gives a token for a code or, in development, for a password.
pub(super) async fn issue(
    State(app): State<Arc<App>>,
    form: Result<Form<TokenRequest>, FormRejection>,
) -> Result<Response, OAuthError> {
    let Form(request) =
        form.map_err(|rejection| OAuthError::bad("invalid_request", &rejection.body_text()))?;
    match request.grant_type.as_str() {
        "authorization_code" => code_grant(&app, request).await,
        "password" if app.config.directory.password_grant => password_grant(&app, request).await,
        _ => Err(OAuthError::bad(
            "unsupported_grant_type",
            "this grant is not offered here",
        )),
    }
}

async fn password_grant(app: &App, request: TokenRequest) -> Result<Response, OAuthError> {
    let (Some(username), Some(password)) = (request.username, request.password) else {
        return Err(OAuthError::bad(
            "invalid_request",
            "username and password are needed",
        ));
    };
    let Some(subject) = subject(&username, request.tenant.as_deref()) else {
        return Err(OAuthError::bad(
            "invalid_grant",
            "sign in as name@tenant, or name the tenant",
        ));
    };
    match sign_in(app, &subject, password).await? {
        SignIn::Welcome(credential) => Ok(tokens(app, &credential, AUDIENCE, None)?),
        SignIn::Wrong => Err(OAuthError::bad(
            "invalid_grant",
            "name or password is wrong",
        )),
        SignIn::Wait(seconds) => Err(OAuthError::wait(seconds)),
    }
}

async fn code_grant(app: &App, request: TokenRequest) -> Result<Response, OAuthError> {
    let (Some(code), Some(verifier), Some(client), Some(redirect)) = (
        request.code,
        request.code_verifier,
        request.client_id,
        request.redirect_uri,
    ) else {
        let needed = "code, code_verifier, client_id and redirect_uri are needed";
        return Err(OAuthError::bad("invalid_request", needed));
    };
    let refused = || OAuthError::bad("invalid_grant", "the code is not valid");
    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    // Taken even if what follows refuses: a code is for one try.
    let stored = tx
        .take_code(&sha256_hex(code.as_bytes()))
        .await?
        .ok_or_else(refused)?;
    let credential = tx.get_credential_by_id(stored.user).await?;
    tx.commit().await?;
    let AuthorizationCode {
        client_id,
        redirect_uri,
        challenge,
        nonce,
        expires_at,
        ..
    } = stored;
    let fresh = expires_at > app.clock.now();
    let same = client_id == client && redirect_uri == redirect;
    if !(fresh && same && proves(&verifier, &challenge)) {
        return Err(refused());
    }
    let credential = credential.ok_or_else(refused)?;
    Ok(tokens(app, &credential, &client_id, nonce)?)
}

/// RFC 7636 §4.6, S256.
fn proves(verifier: &str, challenge: &str) -> bool {
    let computed = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
    verify_slices_are_equal(computed.as_bytes(), challenge.as_bytes()).is_ok()
}

fn tokens(
    app: &App,
    credential: &Credential,
    client: &str,
    nonce: Option<String>,
) -> Result<Response, Fault> {
    let directory = &app.config.directory;
    let iat = app.clock.unix_seconds();
    let exp = iat.saturating_add(LIFETIME_SECONDS);
    let (sub, tenant) = (credential.user.to_string(), credential.tenant.to_string());
    let preferred_username = credential.username.to_string();
    let access = AccessClaims {
        iss: directory.issuer.clone(),
        sub: sub.clone(),
        aud: AUDIENCE.to_owned(),
        exp,
        iat,
        nbf: None,
        tenant: tenant.clone(),
        preferred_username: Some(preferred_username.clone()),
        jti: Some(random_secret::<16>().map_err(unsigned)?),
    };
    let iss = &directory.issuer;
    let id = IdClaims {
        iss,
        sub,
        aud: client,
        exp,
        iat,
        tenant,
        preferred_username,
        nonce,
    };
    let reply = TokenReply {
        access_token: directory.key.issue(&access).map_err(unsigned)?,
        token_type: "Bearer",
        expires_in: LIFETIME_SECONDS,
        id_token: directory.key.issue_id_token(&id).map_err(unsigned)?,
    };
    Ok((no_store(), axum::Json(reply)).into_response())
}

fn unsigned(error: waangu_identity::keys::KeyError) -> Fault {
    fault::INTERNAL
        .fault("the token can't be signed")
        .cause(error)
}

/// RFC 6749 §5.1.
fn no_store() -> HeaderMap {
    HeaderMap::from_iter([(CACHE_CONTROL, HeaderValue::from_static("no-store"))])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7636, appendix B.
    #[test]
    fn pkce_matches_the_standards_example() {
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        assert!(proves(
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
            challenge
        ));
        assert!(!proves("another", challenge));
    }
}
