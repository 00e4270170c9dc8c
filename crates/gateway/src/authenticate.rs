//! Whose request it is: the bearer token (RFC 6750 §2.1) and the verified-token cache.
//!
//! Invariants (security design §2.3, edge design §1.4):
//! - the cache is keyed by the token's SHA-256 and holds successes only;
//! - a hit counts only while the token has not expired and the key set that verified it is still in
//!   use, so a key that was withdrawn ends the tokens it signed;
//! - a failed verification is counted against the client's address.

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use quick_cache::sync::Cache;
use waangu_identity::token::{LEEWAY_SECONDS, MAX_TOKEN_BYTES};
use waangu_identity::{AccessClaims, Rejection};
use waangu_kernel::{Clock, Fault, Slug, UserId, fault};

use crate::config::Limits;
use crate::limit::Failures;
use crate::problem::Refusal;

pub(crate) mod jwks;

use jwks::{KeySet, Verifier};

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    /// The user.
    pub(crate) user: UserId,
    /// The tenant that the token is for.
    pub(crate) tenant: Slug,
    /// Unix seconds of the token's end.
    expires: i64,
    /// Which key set verified it.
    version: u64,
}

/// Verifies tokens.
#[derive(Debug)]
pub(crate) struct Authenticator {
    keys: Arc<KeySet>,
    verified: Cache<[u8; SHA256_OUTPUT_LEN], Arc<Principal>>,
    failures: Failures,
    clock: Arc<dyn Clock>,
}

impl Authenticator {
    pub(crate) fn new(keys: Arc<KeySet>, limits: &Limits, clock: Arc<dyn Clock>) -> Self {
        Self {
            keys,
            verified: Cache::new(limits.token_cache),
            failures: Failures::new(limits.failed_token_rate),
            clock,
        }
    }

    /// Whether tokens can be verified at all.
    pub(crate) fn ready(&self) -> bool {
        self.keys.current().is_some()
    }

    /// The caller, by its token.
    pub(crate) async fn authenticate(
        &self,
        headers: &HeaderMap,
        ip: IpAddr,
    ) -> Result<Arc<Principal>, Refusal> {
        let token = bearer(headers)?;
        let key = fingerprint(token)?;
        if let Some(known) = self.remembered(&key) {
            return Ok(known);
        }
        self.failures.check(ip)?;
        match self.verify(token).await {
            Ok(principal) => {
                let principal = Arc::new(principal);
                self.verified.insert(key, Arc::clone(&principal));
                Ok(principal)
            }
            Err(refusal) => {
                if refusal.fault.status() == 401 {
                    self.failures.count(ip);
                }
                Err(refusal)
            }
        }
    }

    fn remembered(&self, key: &[u8; SHA256_OUTPUT_LEN]) -> Option<Arc<Principal>> {
        let known = self.verified.get(key)?;
        let version = self.keys.current()?.version;
        if known.version == version && !self.is_over(known.expires) {
            return Some(known);
        }
        self.verified.remove(key);
        None
    }

    async fn verify(&self, token: &str) -> Result<Principal, Refusal> {
        let Some(verifier) = self.keys.current_or_fetched().await else {
            // Nothing is known against the token; we are the ones who can't look.
            let fault = fault::OVERLOADED.fault("the keys that verify tokens are not loaded yet");
            return Err(Refusal::after(fault, 1));
        };
        let now = self.clock.unix_seconds();
        let claims = match verifier.tokens.verify(token, now) {
            Ok(claims) => claims,
            Err(Rejection::UnknownKey) => {
                let fresh = self.keys.newer_than(verifier.version).await;
                let fresh = fresh.ok_or_else(|| refused(Rejection::UnknownKey))?;
                let claims = fresh.tokens.verify(token, now).map_err(refused)?;
                return self.principal(&claims, &fresh);
            }
            Err(rejection) => return Err(refused(rejection).into()),
        };
        self.principal(&claims, &verifier)
    }

    fn principal(&self, claims: &AccessClaims, by: &Verifier) -> Result<Principal, Refusal> {
        if self.is_over(claims.exp) {
            return Err(refused(Rejection::Expired).into());
        }
        let user = claims.sub.parse();
        let tenant = claims.tenant.parse();
        let (Ok(user), Ok(tenant)) = (user, tenant) else {
            return Err(refused(Rejection::Malformed).into());
        };
        Ok(Principal {
            user,
            tenant,
            expires: claims.exp,
            version: by.version,
        })
    }

    fn is_over(&self, expires: i64) -> bool {
        expires.saturating_add(LEEWAY_SECONDS) < self.clock.unix_seconds()
    }
}

/// The one bearer token of a request.
fn bearer(headers: &HeaderMap) -> Result<&str, Fault> {
    let missing = || fault::UNAUTHENTICATED.fault("an `Authorization: Bearer` header is needed");
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or_else(missing)?;
    if values.next().is_some() {
        return Err(fault::UNAUTHENTICATED.fault("there is more than one `Authorization` header"));
    }
    let text = value.to_str().map_err(|_not_text| missing())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(missing)?;
    // The scheme is case-insensitive (RFC 9110 §11.1).
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(token.trim_matches(' '))
    } else {
        Err(missing())
    }
}

fn fingerprint(token: &str) -> Result<[u8; SHA256_OUTPUT_LEN], Fault> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(refused(Rejection::Malformed));
    }
    digest(&SHA256, token.as_bytes())
        .as_ref()
        .try_into()
        .map_err(|error| {
            fault::INTERNAL
                .fault("the token can't be looked at")
                .cause(error)
        })
}

/// A client learns that its token is not valid, or that it has expired; the log has the reason.
fn refused(rejection: Rejection) -> Fault {
    match rejection {
        Rejection::Expired => fault::TOKEN_EXPIRED.fault("the token has expired"),
        _ => fault::UNAUTHENTICATED
            .fault("the token is not valid here")
            .cause(rejection),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// Two tokens in one request could be checked as one person and used as another.
    #[test]
    fn exactly_one_bearer_token_is_read() {
        let mut headers = HeaderMap::new();
        assert!(bearer(&headers).is_err());
        headers.insert(AUTHORIZATION, HeaderValue::from_static("bEaReR abc"));
        assert_eq!(bearer(&headers).unwrap(), "abc");
        headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer abc"));
        assert!(bearer(&headers).is_err());
        for bad in ["Basic abc", "Bearer", "abc", ""] {
            headers.insert(AUTHORIZATION, HeaderValue::from_static(bad));
            assert!(bearer(&headers).is_err(), "{bad}");
        }
    }
}
