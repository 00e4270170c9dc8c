//! The built-in directory: OpenID Connect discovery, JWKS, sign-in, tokens. The gateway puts it at
//! `https://login.{domain}`; here everything is below `/login`.
//!
//! Invariants:
//! - a token says who and which tenant, never which roles: those come from the registry per request;
//! - failed sign-ins are counted per (tenant, name) whether or not they exist, and slow down;
//! - PKCE with S256 is required, codes work once and for a minute, redirects are matched exactly;
//! - the password grant exists in development only.
//!
//! Left out for now: refresh tokens, consent, logout, multi-factor. Keycloak and Cognito come beside
//! this directory, not behind it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::{get, post};
use serde_json::{Value, json};
use waangu_identity::Jwks;
use waangu_kernel::fault;

use crate::reply::Refusal;
use crate::server::App;

mod authorize;
mod signin;
mod token;

/// Largest form, in bytes.
const BODY_LIMIT: usize = 16 * 1024;

/// The directory's routes.
pub(crate) fn router(app: Arc<App>) -> axum::Router {
    axum::Router::new()
        .route("/login/.well-known/openid-configuration", get(discovery))
        .route("/login/jwks", get(jwks))
        .route(
            "/login/authorize",
            get(authorize::form).post(authorize::submit),
        )
        .route("/login/token", post(token::issue))
        .method_not_allowed_fallback(|| async {
            Refusal(fault::METHOD_NOT_ALLOWED.fault("the address does not take this method"))
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(app)
}

/// OpenID Connect Discovery 1.0 §3, RFC 8414 §2. Lists only what is there.
async fn discovery(State(app): State<Arc<App>>) -> Json<Value> {
    let directory = &app.config.directory;
    let issuer = &directory.issuer;
    let mut grants = vec!["authorization_code"];
    if directory.password_grant {
        grants.push("password");
    }
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/jwks"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": grants,
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["EdDSA"],
        "token_endpoint_auth_methods_supported": ["none"],
        "code_challenge_methods_supported": ["S256"],
        "scopes_supported": ["openid"],
        "claims_supported": ["iss", "sub", "aud", "exp", "iat", "tenant", "preferred_username"],
    }))
}

async fn jwks(State(app): State<Arc<App>>) -> Json<Jwks> {
    Json(app.config.directory.key.jwks())
}
