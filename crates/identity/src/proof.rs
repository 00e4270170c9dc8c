//! The proof of a tenant context that PostgreSQL checks by itself.
//!
//! A module can't make one: the key is with the gateway and, as HMAC pads, in a table of each tenant
//! database that no module login may read. `waangu.enter(claims, kid, mac, write)` recomputes
//! HMAC-SHA-256 (RFC 2104) over the very claims text.
//!
//! What a fully compromised module process can do with the proofs it holds: act as the tenants whose
//! requests it is serving, until those proofs expire (≤ 60 s). Nothing else.

use std::fmt;

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};
use waangu_kernel::ModuleId;

use crate::hex;

/// Whether a context may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Reads only: `waangu.enter` makes the transaction read-only.
    Read,
    /// Reads and writes.
    Write,
    /// Reads the tenant and all below it, through a login of its own that has no right to write.
    Tree,
}

impl Access {
    /// The database login of a module that a proof of this access is for.
    pub fn login(self, module: &ModuleId) -> String {
        match self {
            Self::Read | Self::Write => format!("waangu_{module}"),
            Self::Tree => format!("waangu_{module}_tree"),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Read => "r",
            Self::Write => "w",
            Self::Tree => "t",
        }
    }
}

/// What the proof says.
#[derive(Debug, Clone, Copy)]
pub struct ProofClaims<'a> {
    /// The database login that may use it: [`Access::login`].
    pub login: &'a str,
    /// The tenant's number.
    pub tenant: i64,
    /// The placement's epoch.
    pub epoch: i64,
    /// Unix seconds after which it is refused.
    pub expires: i64,
    /// Reads only, writes too, or reads a whole subtree.
    pub access: Access,
    /// Who acts, for the database's log and triggers.
    pub actor: &'a str,
    /// The request, likewise.
    pub request: &'a str,
}

impl ProofClaims<'_> {
    /// The text that is signed. Fields can't contain the separator: they are ids.
    fn text(&self) -> String {
        format!(
            "v1|{}|{}|{}|{}|{}|{}|{}",
            self.login,
            self.tenant,
            self.epoch,
            self.expires,
            self.access.as_str(),
            self.actor.replace('|', "_"),
            self.request.replace('|', "_"),
        )
    }
}

/// A proof on its way from the gateway through a module to PostgreSQL.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The signed text.
    pub claims: String,
    /// Which key signed it.
    pub kid: i32,
    /// HMAC-SHA-256 over `claims`, hex.
    pub mac: String,
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A proof is a bearer secret for its short life; keep the mac out of logs.
        write!(f, "Proof({}, kid {})", self.claims, self.kid)
    }
}

/// The key that makes proofs: held by the gateway and, as pads, by each tenant database.
#[derive(Clone)]
pub struct ContextKey {
    kid: i32,
    secret: [u8; 32],
}

impl ContextKey {
    /// Wraps a stored key.
    pub fn new(kid: i32, secret: [u8; 32]) -> Self {
        Self { kid, secret }
    }

    /// The key's number.
    pub fn kid(&self) -> i32 {
        self.kid
    }

    /// Makes a proof.
    pub fn prove(&self, claims: &ProofClaims<'_>) -> Proof {
        let text = claims.text();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.secret);
        let mac = hex(hmac::sign(&key, text.as_bytes()).as_ref());
        Proof {
            claims: text,
            kid: self.kid,
            mac,
        }
    }

    /// Inner and outer pad of RFC 2104, so that SQL needs nothing but `sha256`.
    pub fn pads(&self) -> ([u8; 64], [u8; 64]) {
        let mut inner = [0x36_u8; 64];
        let mut outer = [0x5c_u8; 64];
        for ((inner, outer), byte) in inner.iter_mut().zip(&mut outer).zip(self.secret) {
            *inner ^= byte;
            *outer ^= byte;
        }
        (inner, outer)
    }
}

impl fmt::Debug for ContextKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContextKey(kid {})", self.kid)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::{SHA256, digest};

    use super::*;

    /// PostgreSQL computes sha256(opad || sha256(ipad || text)); if the pads were wrong, every
    /// request would be refused by the database.
    #[test]
    fn pads_give_the_same_mac_as_hmac() {
        let key = ContextKey::new(1, [7; 32]);
        let proof = key.prove(&ProofClaims {
            login: "waangu_inventory",
            tenant: 42,
            epoch: 3,
            expires: 1_900_000_000,
            access: Access::Write,
            actor: "usr_a|b",
            request: "req_1",
        });
        assert_eq!(
            proof.claims,
            "v1|waangu_inventory|42|3|1900000000|w|usr_a_b|req_1"
        );
        let (inner, outer) = key.pads();
        let inner = digest(&SHA256, &[&inner[..], proof.claims.as_bytes()].concat());
        let outer = digest(&SHA256, &[&outer[..], inner.as_ref()].concat());
        assert_eq!(proof.mac, hex(outer.as_ref()));
        assert!(!format!("{proof:?}").contains(&proof.mac));
    }
}
