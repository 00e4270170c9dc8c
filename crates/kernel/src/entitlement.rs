//! Flags and limits: what a tenant may use, and how much of it.
//!
//! A declaration stands in a module's manifest (`[flags.KEY]`, `[limits.KEY]`), or in [`platform`] for
//! what the platform itself enforces. A value comes from the strongest layer that has one that fits
//! the declaration: default, plan, profile, the tenant's own ([`Layers::find`]).
//!
//! Invariants: a module's key is `module.key`, one of the platform's has no dot, so they can't clash;
//! a declaration's default fits it; what a module's declarations hold is bounded ([`MAX_DECLARED`],
//! [`MAX_VALUE`]), because it travels in a header of each request to the module.
//!
//! Left out: where layers are stored, who carries them, and what happens when a limit is reached.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fault::{self, Fault, excerpt};
use crate::manifest::Manifest;

mod declared;
mod layers;

pub(crate) use declared::check_declared;
pub use declared::{Flag, Limit, declared, platform};
pub use layers::{Layers, Lookup};

/// Most flags and limits of one module.
pub const MAX_DECLARED: usize = 32;

/// Longest value, in bytes of its JSON text.
pub const MAX_VALUE: usize = 512;

/// Largest limit: every JSON reader counts exactly up to here.
const MAX_SAFE: u64 = (1 << 53) - 1;

/// The platform's own limit of a tenant's people.
pub const USERS: &str = "users";

/// The platform's own limit of a tenant's requests to modules and flags.
pub const REQUESTS_PER_MINUTE: &str = "requests_per_minute";

/// Values by full key.
pub type Values = BTreeMap<String, Value>;

/// What kind of value a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// True or false.
    Bool,
    /// Any number.
    Number,
    /// A text.
    String,
    /// Any JSON.
    Json,
    /// A whole number from 0, or null for no limit.
    Limit,
}

impl Kind {
    /// The name in API and manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Number => "number",
            Self::String => "string",
            Self::Json => "json",
            Self::Limit => "limit",
        }
    }

    /// Reads a value as a person writes it: a text stands as it is, a limit may be `unlimited`.
    ///
    /// # Errors
    /// `entitlement-type`.
    pub fn read(self, text: &str) -> Result<Value, Fault> {
        let value = match self {
            Self::String => Some(Value::from(text)),
            Self::Limit if text == "unlimited" => Some(Value::Null),
            Self::Bool | Self::Number | Self::Json | Self::Limit => text.parse().ok(),
        };
        value.filter(|value| self.fits(value)).ok_or_else(|| {
            fault::ENTITLEMENT_TYPE
                .fault(format!("`{}` is not a {self}", excerpt(text)))
                .field("value")
        })
    }

    fn fits(self, value: &Value) -> bool {
        match self {
            Self::Bool => value.is_boolean(),
            Self::Number => value.is_number(),
            Self::String => value.is_string(),
            Self::Json => true,
            Self::Limit => value.is_null() || value.as_u64().is_some_and(|n| n <= MAX_SAFE),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a value comes from, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The declaration.
    Default,
    /// The tenant's plan.
    Plan,
    /// The tenant's profile.
    Profile,
    /// The tenant itself.
    Override,
}

impl Origin {
    /// The name in API and OFREP.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Plan => "plan",
            Self::Profile => "profile",
            Self::Override => "override",
        }
    }
}

/// One key that may have a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Declaration {
    /// The full key.
    pub key: String,
    /// What it takes.
    pub kind: Kind,
    /// Its weakest value.
    pub default: Value,
    /// What a limit counts.
    pub unit: Option<String>,
    /// For people.
    pub description: String,
}

impl Declaration {
    /// The module's id, if it is a module's.
    pub fn module(&self) -> Option<&str> {
        self.key.split_once('.').map(|(module, _)| module)
    }

    /// Refuses a value that it does not take.
    ///
    /// # Errors
    /// `entitlement-type`.
    pub fn check(&self, value: &Value) -> Result<(), Fault> {
        if !self.kind.fits(value) {
            let wanted = match self.kind {
                Kind::Bool => "true or false",
                Kind::Number => "a number",
                Kind::String => "a text",
                Kind::Json => "JSON",
                Kind::Limit => "a whole number from 0 to 2^53 - 1, or null for no limit",
            };
            return Err(
                fault::ENTITLEMENT_TYPE.fault(format!("`{}` takes {wanted}", excerpt(&self.key)))
            );
        }
        check_value(value)
    }
}

/// Refuses what can't be a key, whoever may declare it.
///
/// # Errors
/// `entitlement-unknown`.
pub fn check_key(key: &str) -> Result<(), Fault> {
    let fine = (1..=80).contains(&key.len())
        && key.starts_with(|c: char| c.is_ascii_lowercase())
        && key
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._".contains(c));
    if fine {
        return Ok(());
    }
    Err(fault::ENTITLEMENT_UNKNOWN.fault(format!(
        "`{}` can't be a key: module.key, or one of the platform's own",
        excerpt(key)
    )))
}

/// Refuses a value that can't be stored and carried, whatever the type.
///
/// # Errors
/// `entitlement-type`.
pub fn check_value(value: &Value) -> Result<(), Fault> {
    let length = value.to_string().len();
    if length > MAX_VALUE {
        return Err(fault::ENTITLEMENT_TYPE.fault(format!(
            "a value has at most {MAX_VALUE} bytes as JSON, this one has {length}"
        )));
    }
    // PostgreSQL's JSON can't hold it.
    if has_null(value) {
        return Err(
            fault::ENTITLEMENT_TYPE.fault("a value must not have a null character (U+0000)")
        );
    }
    Ok(())
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_null),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| name.contains('\0') || has_null(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Everything that is declared, by key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalogue(BTreeMap<String, Declaration>);

impl Catalogue {
    /// The platform's own and those of some modules.
    pub fn new<'m>(manifests: impl IntoIterator<Item = &'m Manifest>) -> Self {
        let mut all = platform();
        all.extend(manifests.into_iter().flat_map(declared));
        Self::of(all)
    }

    /// Those of one module alone.
    pub fn of_module(manifest: &Manifest) -> Self {
        Self::of(declared(manifest))
    }

    fn of(all: Vec<Declaration>) -> Self {
        Self(all.into_iter().map(|one| (one.key.clone(), one)).collect())
    }

    /// The declaration of a key.
    pub fn get(&self, key: &str) -> Option<&Declaration> {
        self.0.get(key)
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl Iterator<Item = &Declaration> {
        self.0.values()
    }

    /// Refuses a key that nobody declares, and a value that it does not take.
    ///
    /// # Errors
    /// `entitlement-unknown`, `entitlement-type`.
    pub fn check(&self, key: &str, value: &Value) -> Result<(), Fault> {
        let Some(declaration) = self.get(key) else {
            return Err(fault::ENTITLEMENT_UNKNOWN.fault(format!(
                "no installed module and not the platform declares `{}`",
                excerpt(key)
            )));
        };
        declaration.check(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    pub(super) const MANIFEST: &str = r#"
        id = "crm"
        version = "0.1.0"
        title = { en = "CRM" }
        routes = []
        [permissions]
        [roles]
        [flags.board]
        type = "bool"
        default = false
        description = "A board of all deals"
        [limits.people]
        default = 100
        unit = "people"
        description = "People in the address book"
    "#;

    pub(super) fn catalogue() -> Catalogue {
        Catalogue::new([&Manifest::parse(MANIFEST).unwrap()])
    }

    proptest! {
        /// Whatever an operator types, a value that is accepted is one that the key takes.
        #[test]
        fn written_values_fit(text in "\\PC{0,20}") {
            for declaration in catalogue().iter() {
                if let Ok(value) = declaration.kind.read(&text) {
                    prop_assert!(declaration.check(&value).is_ok());
                }
            }
        }
    }

    /// A value that PostgreSQL can't store would be a failure of ours; one without end would travel in
    /// each request.
    #[test]
    fn values_can_be_stored_and_carried() {
        let declaration = Declaration {
            key: "crm.theme".to_owned(),
            kind: Kind::Json,
            default: Value::Null,
            unit: None,
            description: String::new(),
        };
        assert!(declaration.check(&json!({ "a": ["b", 1] })).is_ok());
        assert!(
            declaration.check(&json!("\\u0000")).is_ok(),
            "a backslash is a text"
        );
        assert!(declaration.check(&json!("x".repeat(MAX_VALUE - 2))).is_ok());
        for refused in [
            json!("a\u{0}"),
            json!({ "a\u{0}": 1 }),
            json!([["\u{0}"]]),
            json!("x".repeat(MAX_VALUE - 1)),
        ] {
            let code = declaration.check(&refused).map_err(|fault| fault.code());
            assert_eq!(code, Err("entitlement-type"), "{refused}");
        }
    }

    /// A misspelt key that is taken silently would look like a limit and hold nobody.
    #[test]
    fn unknown_keys_and_wrong_types_are_refused() {
        let catalogue = catalogue();
        let code = |key: &str, value: Value| catalogue.check(key, &value).map_err(|f| f.code());
        assert_eq!(code("crm.board", json!(true)), Ok(()));
        assert_eq!(code("crm.people", json!(null)), Ok(()));
        assert_eq!(code("users", json!(3)), Ok(()));
        assert_eq!(code("crm.bord", json!(true)), Err("entitlement-unknown"));
        for (key, value) in [
            ("crm.board", json!("true")),
            ("crm.board", json!(null)),
            ("crm.people", json!(-1)),
            ("crm.people", json!(1.5)),
            ("users", json!(u64::MAX)),
            ("users", json!("5")),
        ] {
            assert_eq!(
                code(key, value.clone()),
                Err("entitlement-type"),
                "{key} {value}"
            );
        }
    }
}
