//! Where flags and limits are declared: a module's manifest, and the platform itself.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Declaration, Kind, MAX_DECLARED, REQUESTS_PER_MINUTE, USERS};
use crate::fault::excerpt;
use crate::manifest::Manifest;

/// A flag in a manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flag {
    /// `bool`, `number`, `string` or `json`.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The value of a tenant for whom nobody said anything.
    pub default: Value,
    /// For people.
    pub description: String,
}

/// A limit in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// The number for whom nobody said anything; none is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<u64>,
    /// What is counted, in the plural.
    pub unit: String,
    /// For people.
    pub description: String,
}

impl Declaration {
    fn flag(key: String, flag: &Flag) -> Self {
        Self {
            key,
            kind: flag.kind,
            default: flag.default.clone(),
            unit: None,
            description: flag.description.clone(),
        }
    }

    fn limit(key: String, limit: &Limit) -> Self {
        Self {
            key,
            kind: Kind::Limit,
            default: limit.default.into(),
            unit: Some(limit.unit.clone()),
            description: limit.description.clone(),
        }
    }
}

/// What the platform itself enforces.
pub fn platform() -> Vec<Declaration> {
    let limit = |key: &str, unit: &str, description: &str| {
        let limit = Limit {
            default: None,
            unit: unit.to_owned(),
            description: description.to_owned(),
        };
        Declaration::limit(key.to_owned(), &limit)
    };
    vec![
        limit(
            REQUESTS_PER_MINUTE,
            "requests",
            "Requests of all its people together, to modules and for flags; so many may also come at once",
        ),
        limit(USERS, "users", "People in its directory"),
    ]
}

/// What a manifest declares.
pub fn declared(manifest: &Manifest) -> Vec<Declaration> {
    let full = |key: &String| format!("{}.{key}", manifest.id);
    let flags = manifest
        .flags
        .iter()
        .map(|(key, flag)| Declaration::flag(full(key), flag));
    let limits = manifest
        .limits
        .iter()
        .map(|(key, limit)| Declaration::limit(full(key), limit));
    flags.chain(limits).collect()
}

/// Refuses a manifest's flags and limits that break a rule of this module.
pub(crate) fn check_declared(manifest: &Manifest) -> Result<(), String> {
    let (flags, limits) = (&manifest.flags, &manifest.limits);
    if flags.len() + limits.len() > MAX_DECLARED {
        return Err(format!("more than {MAX_DECLARED} flags and limits"));
    }
    if let Some(both) = flags.keys().find(|key| limits.contains_key(*key)) {
        return Err(format!("`{both}` is a flag and a limit"));
    }
    if let Some(bad) = flags.keys().chain(limits.keys()).find(|key| !is_key(key)) {
        return Err(format!(
            "`{}` is not a key of a flag or limit: 1 to 40 of a-z, 0-9, underscore, beginning with a letter",
            excerpt(bad)
        ));
    }
    if let Some((key, _)) = flags.iter().find(|(_, flag)| flag.kind == Kind::Limit) {
        return Err(format!(
            "flag `{key}` is a limit: declare it in [limits.{key}]"
        ));
    }
    for declaration in declared(manifest) {
        declaration
            .check(&declaration.default)
            .map_err(|fault| format!("default of `{}`: {fault}", declaration.key))?;
    }
    Ok(())
}

fn is_key(text: &str) -> bool {
    (1..=40).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::super::tests::MANIFEST;
    use super::*;

    /// A manifest that promises a default it does not itself accept would fail at each request.
    #[test]
    fn manifests_declare_what_they_mean() {
        for (from, to) in [
            ("default = false", "default = \"no\""),
            ("default = false", "default = \"{}\"\nunit = \"x\""),
            ("[flags.board]", "[flags.people]"),
            ("[flags.board]", "[flags.Board]"),
            ("[flags.board]", "[flags.\"a.b\"]"),
            ("type = \"bool\"", "type = \"limit\""),
            ("type = \"bool\"", "type = \"json\"\n# "),
            ("default = 100", "default = -1"),
        ] {
            let text = MANIFEST.replace(from, to);
            let parsed = Manifest::parse(&text);
            if to.ends_with("# ") {
                assert!(parsed.is_ok(), "{parsed:?}");
                continue;
            }
            let code = parsed.unwrap_err().code();
            assert_eq!(code, "module-manifest-invalid", "{to}");
        }
    }
}
