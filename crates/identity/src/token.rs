//! Access tokens: issuing them (built-in directory) and verifying them (gateway).
//!
//! Invariants (security design §2.3): the unverified `iss` only selects a row of the trusted-issuer
//! table; the algorithm is the issuer's, not the token's; `kid` is looked up only in that issuer's
//! set; `exp`, `iss`, `aud`, `sub` and `iat` must be present.
//!
//! Left out: roles. They come from the registry, never from a token.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::Rejection;
use crate::keys::{Jwks, KeyError, SigningKey};

/// The audience that every access token must name.
pub const AUDIENCE: &str = "waangu";

/// Accepted clock difference, in seconds.
pub const LEEWAY_SECONDS: i64 = 30;

/// Longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The claims we read (RFC 9068 names, plus `tenant`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessClaims {
    /// Issuer.
    pub iss: String,
    /// The user's id at the issuer; with the built-in directory `usr_…`.
    pub sub: String,
    /// Audience.
    pub aud: String,
    /// Unix seconds after which it is refused.
    pub exp: i64,
    /// Unix seconds of its making.
    pub iat: i64,
    /// Unix seconds before which it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    /// The tenant's slug.
    pub tenant: String,
    /// The user's name, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferred_username: Option<String>,
    /// Unique id of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
}

/// Signs access tokens for the built-in directory.
pub struct TokenIssuer {
    key: SigningKey,
    header: Header,
}

impl TokenIssuer {
    /// Wraps the directory's key.
    pub fn new(key: SigningKey) -> Self {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(key.id().to_owned());
        header.typ = Some("at+jwt".to_owned());
        Self { key, header }
    }

    /// The public key set to publish.
    pub fn jwks(&self) -> Jwks {
        Jwks {
            keys: vec![self.key.public().clone()],
        }
    }

    /// Signs an access token (RFC 9068).
    ///
    /// # Errors
    /// [`KeyError::NotAKey`] when the key can't sign.
    pub fn issue(&self, claims: &AccessClaims) -> Result<String, KeyError> {
        jsonwebtoken::encode(&self.header, claims, self.key.encoding())
            .map_err(|_error| KeyError::NotAKey)
    }

    /// Signs an ID token (OpenID Connect Core 1.0 §2): same key, other `typ`, other audience.
    ///
    /// # Errors
    /// [`KeyError::NotAKey`] when the key can't sign.
    pub fn issue_id_token<C: Serialize>(&self, claims: &C) -> Result<String, KeyError> {
        let mut header = self.header.clone();
        header.typ = Some("JWT".to_owned());
        jsonwebtoken::encode(&header, claims, self.key.encoding())
            .map_err(|_error| KeyError::NotAKey)
    }
}

impl fmt::Debug for TokenIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenIssuer({})", self.key.id())
    }
}

/// Verifies the tokens of one trusted issuer against one version of its key set.
pub struct TokenVerifier {
    issuer: String,
    keys: Vec<(String, DecodingKey)>,
    validation: Validation,
}

impl TokenVerifier {
    /// A verifier for `issuer` with the keys that it publishes now.
    pub fn new(issuer: &str, jwks: &Jwks) -> Self {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub", "iat"]);
        // Times are checked below, against the clock that the caller is given.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let keys = jwks
            .keys
            .iter()
            .filter_map(|key| key.decoding().map(|decoding| (key.kid.clone(), decoding)))
            .collect();
        Self {
            issuer: issuer.to_owned(),
            keys,
            validation,
        }
    }

    /// Checks a compact JWS at unix time `now`.
    ///
    /// # Errors
    /// [`Rejection`]; `UnknownKey` means that fetching the key set again may help.
    pub fn verify(&self, token: &str, now: i64) -> Result<AccessClaims, Rejection> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Rejection::Malformed);
        }
        if unverified_issuer(token)? != self.issuer {
            return Err(Rejection::Issuer);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_error| Rejection::Malformed)?;
        if header.alg != Algorithm::EdDSA {
            return Err(Rejection::Algorithm);
        }
        // RFC 9068 §4: the type tells an access token from an ID token.
        if !header
            .typ
            .as_deref()
            .is_some_and(|typ| typ.eq_ignore_ascii_case("at+jwt"))
        {
            return Err(Rejection::Malformed);
        }
        let kid = header.kid.ok_or(Rejection::UnknownKey)?;
        let (_, key) = self
            .keys
            .iter()
            .find(|(id, _)| *id == kid)
            .ok_or(Rejection::UnknownKey)?;
        let claims = jsonwebtoken::decode::<AccessClaims>(token, key, &self.validation)
            .map_err(|error| Rejection::from_jwt(&error))?
            .claims;
        if claims.exp <= now.saturating_sub(LEEWAY_SECONDS) {
            return Err(Rejection::Expired);
        }
        let begins = claims.iat.max(claims.nbf.unwrap_or(i64::MIN));
        if begins > now.saturating_add(LEEWAY_SECONDS) {
            return Err(Rejection::NotYetValid);
        }
        Ok(claims)
    }
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "TokenVerifier({}, {} keys)",
            self.issuer,
            self.keys.len()
        )
    }
}

/// Reads `iss` without trusting it: only to choose the row of the issuer table.
fn unverified_issuer(token: &str) -> Result<String, Rejection> {
    #[derive(Deserialize)]
    struct OnlyIssuer {
        iss: String,
    }
    let payload = token.split('.').nth(1).ok_or(Rejection::Malformed)?;
    let bytes = URL_SAFE_NO_PAD
        .decode(payload)
        .map_err(|_error| Rejection::Malformed)?;
    serde_json::from_slice::<OnlyIssuer>(&bytes)
        .map(|claims| claims.iss)
        .map_err(|_error| Rejection::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 4_000_000_000;

    fn issuer() -> TokenIssuer {
        let pkcs8 = SigningKey::generate_pkcs8().unwrap();
        TokenIssuer::new(SigningKey::from_pkcs8(&pkcs8).unwrap())
    }

    fn claims() -> AccessClaims {
        AccessClaims {
            iss: "https://login.test".to_owned(),
            sub: "usr_1".to_owned(),
            aud: AUDIENCE.to_owned(),
            exp: NOW + 300,
            iat: NOW,
            nbf: None,
            tenant: "acme".to_owned(),
            preferred_username: None,
            jti: None,
        }
    }

    /// People must get in with the token they were given.
    #[test]
    fn a_good_token_is_accepted() {
        let issuer = issuer();
        let verifier = TokenVerifier::new("https://login.test", &issuer.jwks());
        let token = issuer.issue(&claims()).unwrap();
        assert_eq!(verifier.verify(&token, NOW).unwrap(), claims());
    }

    /// Each of these would let somebody in who must stay out.
    #[test]
    fn bad_tokens_are_refused() {
        let issuer = issuer();
        let verifier = TokenVerifier::new("https://login.test", &issuer.jwks());
        let refused = |claims: &AccessClaims| {
            verifier
                .verify(&issuer.issue(claims).unwrap(), NOW)
                .unwrap_err()
        };
        assert_eq!(
            refused(&AccessClaims {
                iss: "https://evil".to_owned(),
                ..claims()
            }),
            Rejection::Issuer
        );
        assert_eq!(
            refused(&AccessClaims {
                aud: "other".to_owned(),
                ..claims()
            }),
            Rejection::Audience
        );
        assert_eq!(
            refused(&AccessClaims {
                exp: NOW - 31,
                ..claims()
            }),
            Rejection::Expired
        );
        assert_eq!(
            refused(&AccessClaims {
                iat: NOW + 3600,
                exp: NOW + 7200,
                ..claims()
            }),
            Rejection::NotYetValid
        );

        let id_token = issuer.issue_id_token(&claims()).unwrap();
        assert_eq!(
            verifier.verify(&id_token, NOW).unwrap_err(),
            Rejection::Malformed
        );

        let stranger = self::issuer().issue(&claims()).unwrap();
        assert_eq!(
            verifier.verify(&stranger, NOW).unwrap_err(),
            Rejection::UnknownKey
        );

        let token = issuer.issue(&claims()).unwrap();
        let (body, _signature) = token.rsplit_once('.').unwrap();
        let none = format!(
            "{}.{}.",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"at+jwt"}"#),
            body.split_once('.').unwrap().1
        );
        assert!(verifier.verify(&none, NOW).is_err());
        let mut tampered = token.clone().into_bytes();
        let last = tampered.len() - 10;
        tampered[last] = if tampered[last] == b'A' { b'B' } else { b'A' };
        let tampered = String::from_utf8(tampered).unwrap();
        assert_eq!(
            verifier.verify(&tampered, NOW).unwrap_err(),
            Rejection::Signature
        );
        assert!(verifier.verify("", NOW).is_err());
        assert!(verifier.verify(&"a.".repeat(10_000), NOW).is_err());
    }
}
