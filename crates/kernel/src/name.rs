//! Names that people choose: slugs, module, region, cell and profile ids, usernames.
//!
//! Invariant: each of them is safe in a DNS label, a URL path segment, a PostgreSQL identifier
//! (after quoting) and a log line, because the alphabet is `a-z 0-9 -`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fault::{self, ErrorDef, Fault, excerpt};

/// Sub-domains that the platform keeps for itself.
pub const RESERVED_SLUGS: [&str; 20] = [
    "admin", "api", "app", "auth", "cdn", "console", "docs", "ftp", "help", "internal", "login",
    "mail", "ns", "public", "root", "static", "status", "support", "waangu", "www",
];

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, max $max:literal, $def:expr, $field:literal, $extra:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Fault;

            fn from_str(text: &str) -> Result<Self, Fault> {
                let extra: fn(&str) -> Option<Fault> = $extra;
                if let Some(why) = label_problem(text, $max) {
                    let def: &'static ErrorDef = $def;
                    return Err(def.fault(format!("`{}` {why}", excerpt(text))).field($field));
                }
                match extra(text) {
                    Some(fault) => Err(fault.field($field)),
                    None => Ok(Self(text.into())),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = Fault;

            fn try_from(text: String) -> Result<Self, Fault> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.into()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// What is wrong with a lower-case DNS label (RFC 1123 §2.1, narrowed to start with a letter).
fn label_problem(text: &str, max: usize) -> Option<String> {
    if text.is_empty() || text.len() > max {
        return Some(format!("must have 1 to {max} characters"));
    }
    if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Some("must start with a letter a-z".to_owned());
    }
    if !text
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    {
        return Some("may contain only a-z, 0-9 and hyphens".to_owned());
    }
    if text.ends_with('-') || text.contains("--") {
        return Some("must not end with a hyphen or contain two in a row".to_owned());
    }
    None
}

fn reserved(text: &str) -> Option<Fault> {
    RESERVED_SLUGS
        .contains(&text)
        .then(|| fault::SLUG_RESERVED.fault(format!("`{text}` is kept for the platform itself")))
}

/// Module ids become schemas and `waangu_<id>` logins; these are the platform's or PostgreSQL's own.
const RESERVED_MODULES: [&str; 12] = [
    "bench", "context", "control", "gateway", "module", "owner", "pg", "public", "template",
    "testkit", "tree", "waangu",
];

fn module_clash(text: &str) -> Option<Fault> {
    // No hyphen: the id becomes part of SQL names without quotes in logs and scripts.
    let clash = text.contains('-') || RESERVED_MODULES.contains(&text);
    clash.then(|| fault::MODULE_UNKNOWN.fault(format!("`{text}` can't be a module's id")))
}

name_type!(
    /// A tenant's name in addresses: its sub-domain.
    Slug, max 40, &fault::SLUG_INVALID, "slug", reserved
);
name_type!(
    /// An installable module, such as `inventory`; also its schema and part of its login's name.
    ModuleId, max 30, &fault::MODULE_UNKNOWN, "module", module_clash
);
name_type!(
    /// A place with a provider, such as `aws-eu-west-1`.
    RegionId, max 60, &fault::REGION_UNKNOWN, "region", |_| None
);
name_type!(
    /// One PostgreSQL server (or cluster) in one region.
    CellId, max 60, &fault::CELL_UNKNOWN, "cell", |_| None
);
name_type!(
    /// A sector blueprint, such as `fintech`.
    ProfileId, max 40, &fault::PROFILE_UNKNOWN, "profile", |_| None
);
name_type!(
    /// What a tenant has subscribed to, such as `starter`.
    PlanId, max 40, &fault::PLAN_UNKNOWN, "plan", |_| None
);

/// A user's name within one tenant: a local part without `@` (people may sign in as `name@slug`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Username(Box<str>);

impl Username {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Username {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let fine = (1..=64).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.chars().all(|c| {
                c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_')
            });
        if fine {
            Ok(Self(text.into()))
        } else {
            Err(fault::INVALID_FIELD
                .fault(format!(
                    "`{}` is not a username: 1 to 64 of a-z, 0-9, dot, hyphen, underscore, starting with a letter",
                    excerpt(text)
                ))
                .field("username"))
        }
    }
}

impl TryFrom<String> for Username {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        text.parse()
    }
}

impl From<Username> for String {
    fn from(name: Username) -> Self {
        name.0.into()
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever a client sends, an accepted slug is a DNS label and nothing panics.
        #[test]
        fn accepted_slugs_are_dns_labels(text in "\\PC{0,60}") {
            if let Ok(slug) = text.parse::<Slug>() {
                prop_assert!(slug.as_str().len() <= 63);
                prop_assert!(slug.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
                prop_assert!(!slug.as_str().starts_with('-') && !slug.as_str().ends_with('-'));
            }
        }
    }

    /// A tenant named `admin` would answer on the operators' address.
    #[test]
    fn reserved_names_are_refused_with_their_own_code() {
        assert_eq!("admin".parse::<Slug>().unwrap_err().code(), "slug-reserved");
        assert_eq!("Acme".parse::<Slug>().unwrap_err().code(), "slug-invalid");
        assert!("acme-2".parse::<Slug>().is_ok());
        // Its login would be the group of all logins that read subtrees.
        assert!("tree".parse::<ModuleId>().is_err());
        assert!("inventory_tree".parse::<ModuleId>().is_err());
    }
}
