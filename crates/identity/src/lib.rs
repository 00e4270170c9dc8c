//! Who is calling, and the proofs of it.
//!
//! - [`keys`] – Ed25519 signing keys and their public form (a JWKS, RFC 7517 and RFC 8037);
//! - [`token`] – access tokens of the directories we trust;
//! - [`context`] – the short-lived statement that the gateway signs for one module;
//! - [`proof`] – the part of that statement which PostgreSQL itself checks;
//! - [`ring`] – the gateway's keys for both, and how they are replaced;
//! - [`password`] – Argon2id.
//!
//! Invariants: algorithms are pinned by us, never read from the token; a key is looked up only
//! inside the set of the issuer it belongs to; secrets have no `Debug` that shows them.
//!
//! Left out: HTTP (who fetches a JWKS, who answers `/token`), and what a role may do.

pub mod context;
pub mod keys;
pub mod password;
pub mod proof;
pub mod ring;
pub mod token;

pub use context::{ContextSigner, ContextVerifier, RequestContext};
pub use keys::{Jwks, PublicKey, SigningKey};
pub use proof::{ContextKey, Proof};
pub use ring::{KeyRing, RingKey, SigningKeys};
pub use token::{AccessClaims, TokenIssuer, TokenVerifier};

/// Why a token or context is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Not a compact JWS, or a claim has the wrong form.
    #[error("the token is malformed")]
    Malformed,
    /// Signed with an algorithm that this issuer does not use.
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// The issuer is not one that we trust.
    #[error("the token's issuer is not trusted here")]
    Issuer,
    /// No key of the issuer has this id; its key set may have to be fetched again.
    #[error("the token's key is not known")]
    UnknownKey,
    /// The signature does not fit.
    #[error("the token's signature is not valid")]
    Signature,
    /// Meant for somebody else.
    #[error("the token is meant for another audience")]
    Audience,
    /// Its time has passed.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come (`nbf` or `iat` in the future).
    #[error("the token is not valid yet")]
    NotYetValid,
}

impl Rejection {
    fn from_jwt(error: &jsonwebtoken::errors::Error) -> Self {
        use jsonwebtoken::errors::ErrorKind;
        match error.kind() {
            ErrorKind::ExpiredSignature => Self::Expired,
            ErrorKind::ImmatureSignature => Self::NotYetValid,
            ErrorKind::InvalidAudience => Self::Audience,
            ErrorKind::InvalidIssuer => Self::Issuer,
            ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => Self::Algorithm,
            ErrorKind::InvalidSignature => Self::Signature,
            _ => Self::Malformed,
        }
    }
}

/// Random bytes from the operating system, for keys and secrets.
///
/// # Errors
/// When the operating system has no entropy source, which is not survivable for the caller.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], keys::KeyError> {
    let mut bytes = [0_u8; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_unspecified| keys::KeyError::NoEntropy)?;
    Ok(bytes)
}

/// A random URL-safe secret of `N` bytes of entropy.
///
/// # Errors
/// As [`random_bytes`].
pub fn random_secret<const N: usize>() -> Result<String, keys::KeyError> {
    use base64::Engine as _;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random_bytes::<N>()?))
}

/// SHA-256 in lower-case hex: how tokens and keys are stored when only equality matters.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}
