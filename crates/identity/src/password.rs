//! Passwords: Argon2id (RFC 9106) with 19 MiB, t = 2, p = 1 (OWASP Password Storage Cheat Sheet), in PHC
//! string form. About 20 ms of CPU on a server core: a brute-force brake on its own.
//!
//! Invariants: verifying takes the same time whether or not the user exists
//! ([`Hasher::verify_nobody`]); the 19 MiB are allocated once for each [`Hasher`], because an allocator
//! that gets such blocks from many threads keeps one for each of them.

use std::fmt;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::keys::KeyError;
use crate::random_bytes;

const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Bytes of a hash.
const OUTPUT: usize = 32;

/// Hash of no password: verified when there is no user, so that timing tells nothing.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$d2Fhbmd1LW5vYm9keQ$\
                      8l3gsZ7dWbG8wXSYxQkO4lFbxbqk8Kx9Wc2rj3Wb3Yw";

/// Hashes passwords, one at a time, in memory of its own. Each takes tens of milliseconds: use it off
/// the event loop.
pub struct Hasher {
    memory: Vec<Block>,
}

impl Hasher {
    /// A hasher with its memory.
    pub fn new() -> Self {
        let blocks = params().map_or(0, |params| params.block_count());
        Self {
            memory: vec![Block::default(); blocks],
        }
    }

    /// Hashes a password with a fresh salt.
    ///
    /// # Errors
    /// [`KeyError::NoEntropy`].
    pub fn hash(&mut self, password: &str) -> Result<String, KeyError> {
        let salt = random_bytes::<16>()?;
        let hash = params()
            .and_then(|params| self.compute(params, password, &salt))
            .ok_or(KeyError::NoEntropy)?;
        let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
        Ok(format!(
            "$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${salt}${hash}"
        ))
    }

    /// Whether the password fits the stored hash. A hash that can't be read, or that asks for more
    /// memory than ours, fits nothing.
    pub fn verify(&mut self, password: &str, stored: &str) -> bool {
        let Ok(stored) = PasswordHash::new(stored) else {
            return false;
        };
        let (Some(salt), Some(expected)) = (&stored.salt, &stored.hash) else {
            return false;
        };
        let Ok(params) = Params::try_from(&stored) else {
            return false;
        };
        stored.algorithm == argon2::ARGON2ID_IDENT
            && self
                .compute(params, password, salt.as_ref())
                .is_some_and(|hash| verify_slices_are_equal(&hash, expected.as_ref()).is_ok())
    }

    /// Spends the time of [`Hasher::verify`] for a user that does not exist.
    pub fn verify_nobody(&mut self, password: &str) {
        let _fits_nobody: bool = self.verify(password, NOBODY);
    }

    fn compute(&mut self, params: Params, password: &str, salt: &[u8]) -> Option<[u8; OUTPUT]> {
        let memory = self.memory.get_mut(..params.block_count())?;
        let mut hash = [0_u8; OUTPUT];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(password.as_bytes(), salt, &mut hash, memory)
            .ok()?;
        Some(hash)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

/// Our parameters; constants within the allowed range.
fn params() -> Option<Params> {
    Params::new(MEMORY_KIB, PASSES, LANES, Some(OUTPUT)).ok()
}

#[cfg(test)]
mod tests {
    use argon2::PasswordVerifier as _;

    use super::*;

    /// A stolen table must not give the passwords away, and the right one must still open.
    #[test]
    fn hashes_open_only_with_their_password() {
        let mut hasher = Hasher::new();
        let stored = hasher.hash("sésame").unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(hasher.verify("sésame", &stored));
        assert!(!hasher.verify("sesame", &stored));
        assert!(!hasher.verify("", "not a hash"));
        assert!(!hasher.verify(
            "x",
            "$argon2id$v=19$m=4194304,t=2,p=1$d2Fhbmd1LW5vYm9keQ$AAAA"
        ));
        assert_ne!(stored, hasher.hash("sésame").unwrap());
    }

    /// The stored form must stay readable by every other Argon2 program.
    #[test]
    fn the_stored_form_is_the_standard_one() {
        let stored = Hasher::new().hash("sésame").unwrap();
        let parsed = PasswordHash::new(&stored).unwrap();
        Argon2::default()
            .verify_password("sésame".as_bytes(), &parsed)
            .unwrap();
    }

    /// If the decoy could not be parsed, verification would return at once and reveal who exists.
    #[test]
    fn the_decoy_costs_what_a_real_hash_costs() {
        assert!(PasswordHash::new(NOBODY).is_ok());
    }
}
