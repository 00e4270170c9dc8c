//! Ed25519 signing keys (RFC 8032) and their public sets (RFC 7517, RFC 8037).
//!
//! Invariant: a key's id is derived from its public half (RFC 7638 thumbprint), so the same key has
//! the same id after every restart and two keys never share one.

use std::fmt;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, EncodingKey};
use serde::{Deserialize, Serialize};

/// A key could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The operating system gave no random bytes.
    #[error("the operating system has no randomness to give")]
    NoEntropy,
    /// The stored bytes are not an Ed25519 key.
    #[error("the stored key is not an Ed25519 key in PKCS#8 form")]
    NotAKey,
    /// The file does not hold a ring of keys.
    #[error("line {0}: this is not a ring of keys")]
    NotARing(usize),
}

/// A private signing key.
pub struct SigningKey {
    id: String,
    public: PublicKey,
    encoding: EncodingKey,
}

impl SigningKey {
    /// Makes a fresh key and returns its PKCS#8 document, to be stored secretly.
    ///
    /// # Errors
    /// [`KeyError::NoEntropy`].
    pub fn generate_pkcs8() -> Result<Vec<u8>, KeyError> {
        let random = aws_lc_rs::rand::SystemRandom::new();
        Ed25519KeyPair::generate_pkcs8(&random)
            .map(|document| document.as_ref().to_vec())
            .map_err(|_unspecified| KeyError::NoEntropy)
    }

    /// Reads a key from its PKCS#8 document.
    ///
    /// # Errors
    /// [`KeyError::NotAKey`].
    pub fn from_pkcs8(document: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8(document).map_err(|_rejected| KeyError::NotAKey)?;
        let public = PublicKey::from_point(pair.public_key().as_ref());
        Ok(Self {
            id: public.kid.clone(),
            public,
            encoding: EncodingKey::from_ed_der(document),
        })
    }

    /// The key's id, as `kid`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(crate) fn encoding(&self) -> &EncodingKey {
        &self.encoding
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.id)
    }
}

/// A public key as a JWK (RFC 8037 §2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey {
    /// Key type; only `OKP` is used here.
    pub kty: String,
    /// Curve; only `Ed25519` is used here.
    #[serde(default)]
    pub crv: String,
    /// The point, base64url.
    #[serde(default)]
    pub x: String,
    /// The key's id.
    #[serde(default)]
    pub kid: String,
    /// Algorithm, `EdDSA`.
    #[serde(default)]
    pub alg: String,
    /// Use, `sig`.
    #[serde(rename = "use", default)]
    pub usage: String,
}

impl PublicKey {
    fn from_point(point: &[u8]) -> Self {
        let x = URL_SAFE_NO_PAD.encode(point);
        // RFC 7638 §3: members in lexicographic order, no white space.
        let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, canonical.as_bytes());
        Self {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            kid: URL_SAFE_NO_PAD.encode(digest.as_ref()),
            x,
            alg: "EdDSA".to_owned(),
            usage: "sig".to_owned(),
        }
    }

    /// The decoding key, if this is a key that we can use at all.
    pub(crate) fn decoding(&self) -> Option<DecodingKey> {
        let usable = self.kty == "OKP"
            && self.crv == "Ed25519"
            && (self.usage.is_empty() || self.usage == "sig")
            && (self.alg.is_empty() || self.alg == "EdDSA");
        if usable {
            DecodingKey::from_ed_components(&self.x).ok()
        } else {
            None
        }
    }
}

/// A set of public keys (RFC 7517 §5).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwks {
    /// The keys.
    pub keys: Vec<PublicKey>,
}
