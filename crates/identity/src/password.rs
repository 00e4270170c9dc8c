//! Passwords: Argon2id (RFC 9106) with the parameters of its second recommended option for
//! memory-constrained environments, narrowed to 19 MiB, t = 2, p = 1 (OWASP Password Storage Cheat
//! Sheet), in PHC string form. About 20 ms of CPU on a server core: a brute-force brake on its own.
//!
//! Invariant: verifying takes the same time whether or not the user exists ([`verify_nobody`]).

use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};

use crate::keys::KeyError;

/// Hash of no password: verified when there is no user, so that timing tells nothing.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$d2Fhbmd1LW5vYm9keQ$\
                      8l3gsZ7dWbG8wXSYxQkO4lFbxbqk8Kx9Wc2rj3Wb3Yw";

fn hasher() -> Argon2<'static> {
    // The parameters are constants within the allowed range; the default equals them.
    let params = Params::new(19_456, 2, 1, None).unwrap_or_default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Hashes a password with a fresh salt. Takes tens of milliseconds: call it off the event loop.
///
/// # Errors
/// [`KeyError::NoEntropy`].
pub fn hash(password: &str) -> Result<String, KeyError> {
    hasher()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|_error| KeyError::NoEntropy)
}

/// Whether the password fits the stored hash. A hash that can't be read fits nothing.
pub fn verify(password: &str, stored: &str) -> bool {
    PasswordHash::new(stored)
        .is_ok_and(|hash| hasher().verify_password(password.as_bytes(), &hash).is_ok())
}

/// Spends the time of [`verify`] for a user that does not exist.
pub fn verify_nobody(password: &str) {
    let _fits_nobody: bool = verify(password, NOBODY);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stolen table must not give the passwords away, and the right one must still open.
    #[test]
    fn hashes_open_only_with_their_password() {
        let stored = hash("sésame").unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(verify("sésame", &stored));
        assert!(!verify("sesame", &stored));
        assert!(!verify("", "not a hash"));
        assert_ne!(stored, hash("sésame").unwrap());
    }

    /// If the decoy could not be parsed, verification would return at once and reveal who exists.
    #[test]
    fn the_decoy_costs_what_a_real_hash_costs() {
        assert!(PasswordHash::new(NOBODY).is_ok());
    }
}
