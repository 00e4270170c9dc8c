//! The gateway's keys through their lives: next, current, retiring.
//!
//! A ring is a value; who keeps it in a file, and who tells it to whom, is decided elsewhere (the
//! control plane's `keys`).
//!
//! Invariants:
//! - each kind has exactly one current key, and at most one next;
//! - a key's id is never given twice: a context key's follows from the key itself, a proof key's is one
//!   more than the highest of the ring, which always holds the youngest;
//! - nothing here shows a secret, and no message about a bad file repeats any of it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use waangu_kernel::{KeyKind, KeyState, RotationId};

use crate::context::ContextSigner;
use crate::keys::{Jwks, KeyError, SigningKey};
use crate::proof::ContextKey;
use crate::random_bytes;

/// One key and how far it is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RingKey {
    /// What it is for.
    pub kind: KeyKind,
    /// Its id: a thumbprint, or a number.
    pub id: String,
    /// How far it is.
    pub state: KeyState,
    /// When it was made, in unix seconds.
    pub created: i64,
    /// Since when it is in this state, in unix seconds.
    pub since: i64,
    /// The wish that it was made for; the first ones were made for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationId>,
    /// PKCS#8, or 32 bytes; base64.
    secret: String,
}

impl RingKey {
    fn context(pkcs8: &[u8], now: i64) -> Result<Self, KeyError> {
        let id = SigningKey::from_pkcs8(pkcs8)?.id().to_owned();
        Ok(Self::new(KeyKind::Context, id, pkcs8, now))
    }

    fn proof(kid: i32, secret: [u8; 32], now: i64) -> Self {
        Self::new(KeyKind::Proof, kid.to_string(), &secret, now)
    }

    fn new(kind: KeyKind, id: String, secret: &[u8], now: i64) -> Self {
        Self {
            kind,
            id,
            state: KeyState::Current,
            created: now,
            since: now,
            rotation: None,
            secret: STANDARD.encode(secret),
        }
    }

    fn bytes(&self) -> Result<Vec<u8>, KeyError> {
        let bytes = STANDARD.decode(&self.secret);
        bytes.map_err(|_not_base64| KeyError::NotAKey)
    }

    fn as_context(&self) -> Result<SigningKey, KeyError> {
        let key = SigningKey::from_pkcs8(&self.bytes()?)?;
        if key.id() == self.id {
            Ok(key)
        } else {
            Err(KeyError::NotAKey)
        }
    }

    fn as_proof(&self) -> Result<ContextKey, KeyError> {
        let kid = self.id.parse();
        let kid = kid.map_err(|_not_a_number| KeyError::NotAKey)?;
        let secret = self.bytes()?.try_into();
        let secret = secret.map_err(|_wrong_length| KeyError::NotAKey)?;
        Ok(ContextKey::new(kid, secret))
    }
}

impl fmt::Debug for RingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.kind, self.id, self.state.as_str())
    }
}

/// What a gateway signs with.
#[derive(Debug)]
pub struct SigningKeys {
    /// Signs what modules are told.
    pub context: ContextSigner,
    /// Makes what PostgreSQL checks.
    pub proof: ContextKey,
}

/// All keys that are in use or soon will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRing {
    keys: Vec<RingKey>,
}

impl KeyRing {
    /// The first keys of a platform.
    ///
    /// # Errors
    /// [`KeyError::NoEntropy`].
    pub fn generate(now: i64) -> Result<Self, KeyError> {
        Self::of(&SigningKey::generate_pkcs8()?, 1, random_bytes()?, now)
    }

    /// A ring of keys that are already in use.
    ///
    /// # Errors
    /// [`KeyError::NotAKey`].
    pub fn of(pkcs8: &[u8], kid: i32, secret: [u8; 32], now: i64) -> Result<Self, KeyError> {
        Ok(Self {
            keys: vec![
                RingKey::context(pkcs8, now)?,
                RingKey::proof(kid, secret, now),
            ],
        })
    }

    /// Reads a ring.
    ///
    /// # Errors
    /// [`KeyError::NotARing`]; [`KeyError::NotAKey`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, KeyError> {
        // The parser's own report might repeat what it stumbled over.
        let ring: Self =
            serde_json::from_slice(bytes).map_err(|error| KeyError::NotARing(error.line()))?;
        for kind in KeyKind::ALL {
            let count = |state| ring.of_kind(kind).filter(|key| key.state == state).count();
            if count(KeyState::Current) != 1 || count(KeyState::Next) > 1 {
                return Err(KeyError::NotARing(1));
            }
        }
        ring.proofs()?;
        ring.public()?;
        Ok(ring)
    }

    /// The ring as a file holds it, secrets included.
    ///
    /// # Errors
    /// [`KeyError::NotARing`], which would be a mistake of ours.
    pub fn to_json(&self) -> Result<Vec<u8>, KeyError> {
        serde_json::to_vec_pretty(self).map_err(|error| KeyError::NotARing(error.line()))
    }

    /// All keys, the oldest of each kind first.
    pub fn keys(&self) -> &[RingKey] {
        &self.keys
    }

    /// What a gateway signs with now.
    ///
    /// # Errors
    /// [`KeyError::NotAKey`].
    pub fn signing(&self) -> Result<SigningKeys, KeyError> {
        let current = |kind| {
            let mut keys = self.of_kind(kind);
            let found = keys.find(|key| key.state == KeyState::Current);
            found.ok_or(KeyError::NotAKey)
        };
        Ok(SigningKeys {
            context: ContextSigner::new(current(KeyKind::Context)?.as_context()?),
            proof: current(KeyKind::Proof)?.as_proof()?,
        })
    }

    /// What PostgreSQL accepts.
    ///
    /// # Errors
    /// [`KeyError::NotAKey`].
    pub fn proofs(&self) -> Result<Vec<ContextKey>, KeyError> {
        self.of_kind(KeyKind::Proof)
            .map(RingKey::as_proof)
            .collect()
    }

    /// What modules accept.
    ///
    /// # Errors
    /// [`KeyError::NotAKey`].
    pub fn public(&self) -> Result<Jwks, KeyError> {
        let keys = self.of_kind(KeyKind::Context);
        let keys = keys.map(|key| Ok(key.as_context()?.public().clone()));
        Ok(Jwks {
            keys: keys.collect::<Result<_, KeyError>>()?,
        })
    }

    /// Makes the key that a rotation asks for, unless it has been made.
    ///
    /// # Errors
    /// [`KeyError::NoEntropy`]; [`KeyError::NotAKey`] when another rotation of that kind is under way.
    pub fn prepare(
        &mut self,
        kind: KeyKind,
        rotation: RotationId,
        now: i64,
    ) -> Result<bool, KeyError> {
        if self.knows(kind, rotation) {
            return Ok(false);
        }
        if self.of_kind(kind).any(|key| key.state == KeyState::Next) {
            return Err(KeyError::NotAKey);
        }
        let mut key = match kind {
            KeyKind::Context => RingKey::context(&SigningKey::generate_pkcs8()?, now)?,
            KeyKind::Proof => {
                let highest = self.proofs()?.iter().map(ContextKey::kid).max();
                let number = highest.and_then(|highest| highest.checked_add(1));
                RingKey::proof(number.ok_or(KeyError::NotAKey)?, random_bytes()?, now)
            }
        };
        key.state = KeyState::Next;
        key.rotation = Some(rotation);
        self.keys.push(key);
        Ok(true)
    }

    /// The keys that wait to become current.
    pub fn next(&self) -> impl Iterator<Item = &RingKey> {
        self.keys.iter().filter(|key| key.state == KeyState::Next)
    }

    /// The ring in which every next key is current, and what it replaces is retiring.
    #[must_use]
    pub fn promoted(&self, now: i64) -> Self {
        let mut ring = self.clone();
        let kinds: Vec<KeyKind> = self.next().map(|key| key.kind).collect();
        for key in &mut ring.keys {
            let state = match key.state {
                KeyState::Current if kinds.contains(&key.kind) => KeyState::Retiring,
                KeyState::Next => KeyState::Current,
                KeyState::Current | KeyState::Retiring => continue,
            };
            (key.state, key.since) = (state, now);
        }
        ring
    }

    /// The ring without the keys that have been retiring for `grace` seconds.
    #[must_use]
    pub fn without_retired(&self, now: i64, grace: i64) -> Self {
        let mut ring = self.clone();
        ring.keys
            .retain(|key| key.state != KeyState::Retiring || now.saturating_sub(key.since) < grace);
        ring
    }

    /// When the first retiring key has had its `grace` seconds.
    pub fn next_retirement(&self, grace: i64) -> Option<i64> {
        let retiring = self.keys.iter();
        let retiring = retiring.filter(|key| key.state == KeyState::Retiring);
        retiring.map(|key| key.since.saturating_add(grace)).min()
    }

    /// Whether a rotation has come to its end: its key signs, and nothing older is accepted.
    pub fn finished(&self, kind: KeyKind, rotation: RotationId) -> bool {
        self.knows(kind, rotation) && self.of_kind(kind).all(|key| key.state == KeyState::Current)
    }

    fn knows(&self, kind: KeyKind, rotation: RotationId) -> bool {
        self.of_kind(kind).any(|key| key.rotation == Some(rotation))
    }

    fn of_kind(&self, kind: KeyKind) -> impl Iterator<Item = &RingKey> {
        self.keys.iter().filter(move |key| key.kind == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: i64 = 75;

    fn states(ring: &KeyRing, kind: KeyKind) -> Vec<KeyState> {
        ring.of_kind(kind).map(|key| key.state).collect()
    }

    /// A rotation that skipped a state would refuse requests in flight, or keep a stolen key alive.
    #[test]
    fn a_key_goes_through_all_states() {
        let mut ring = KeyRing::generate(0).unwrap();
        let old = ring.signing().unwrap();
        let rotation = RotationId::generate();
        assert!(ring.prepare(KeyKind::Proof, rotation, 10).unwrap());
        // Repeated after a crash.
        assert!(!ring.prepare(KeyKind::Proof, rotation, 11).unwrap());
        assert_eq!(ring.signing().unwrap().proof.kid(), old.proof.kid());
        assert_eq!(ring.proofs().unwrap().len(), 2);

        let promoted = ring.promoted(20);
        let expected = [KeyState::Retiring, KeyState::Current];
        assert_eq!(states(&promoted, KeyKind::Proof), expected);
        assert_eq!(states(&promoted, KeyKind::Context), [KeyState::Current]);
        assert_eq!(promoted.signing().unwrap().proof.kid(), old.proof.kid() + 1);
        assert_eq!(promoted.next_retirement(GRACE), Some(20 + GRACE));
        assert!(!promoted.finished(KeyKind::Proof, rotation));

        assert_eq!(promoted.without_retired(20 + GRACE - 1, GRACE), promoted);
        let ended = promoted.without_retired(20 + GRACE, GRACE);
        assert_eq!(ended.proofs().unwrap().len(), 1);
        assert!(ended.finished(KeyKind::Proof, rotation));
        assert!(!ended.finished(KeyKind::Context, rotation));
        // Nothing is left to do.
        assert_eq!(ended.promoted(200), ended);
        assert_eq!(ended.next_retirement(GRACE), None);
    }

    /// A key that is lost on its way through the file would lock everybody out at the next start.
    #[test]
    fn a_ring_survives_its_file() {
        let mut ring = KeyRing::generate(5).unwrap();
        for kind in KeyKind::ALL {
            assert!(ring.prepare(kind, RotationId::generate(), 6).unwrap());
        }
        let read = KeyRing::from_json(&ring.to_json().unwrap()).unwrap();
        assert_eq!(read, ring);
        assert_eq!(read.public().unwrap().keys.len(), 2);
        assert_ne!(
            read.promoted(7).signing().unwrap().context.public(),
            ring.signing().unwrap().context.public()
        );
    }

    /// A message about a damaged file goes to logs.
    #[test]
    fn what_is_no_ring_is_refused_without_a_secret() {
        let ring = KeyRing::generate(5).unwrap();
        let text = String::from_utf8(ring.to_json().unwrap()).unwrap();
        let secret = ring.keys[1].secret.clone();
        for broken in [
            text.replace("\"current\"", "\"next\""),
            text.replace("\"1\"", "\"one\""),
            text.replace(&secret, "c2hvcnQ="),
            text.replace("\"secret\"", "\"secrets\""),
            text.replace(&format!("\"{secret}\""), "7"),
            String::new(),
        ] {
            let refused = KeyRing::from_json(broken.as_bytes()).unwrap_err();
            assert!(!refused.to_string().contains(&secret), "{refused}");
        }
        assert!(!format!("{ring:?}").contains(&secret));
    }
}
