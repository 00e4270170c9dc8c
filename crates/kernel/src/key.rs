//! The gateway's two kinds of key, and the states of a key's life. No secrets.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fault::{self, Fault};

/// What a key of the gateway is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// Signs request contexts, which modules verify.
    Context,
    /// Proves tenant contexts to PostgreSQL.
    Proof,
}

impl KeyKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Context, Self::Proof];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Context => "context",
            Self::Proof => "proof",
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for KeyKind {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| {
            fault::INVALID_FIELD.fault(format!(
                "`{}` is not a kind of key: context, proof",
                fault::excerpt(text)
            ))
        })
    }
}

/// How far a key is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// Being made known to all who verify; nothing is signed with it yet.
    Next,
    /// Signs.
    Current,
    /// Signs no more; what it has signed is still accepted for a while.
    Retiring,
}

impl KeyState {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Current => "current",
            Self::Retiring => "retiring",
        }
    }
}
