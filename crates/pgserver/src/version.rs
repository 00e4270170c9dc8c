//! PostgreSQL's version numbers, as `postgres --version` prints them.
//!
//! Invariant: a pre-release sorts before every release of its major version.

use std::fmt;

/// The oldest version that we run: a younger one of the same major has fixes that we need.
pub const MINIMUM: Version = Version {
    major: 15,
    stable: true,
    minor: 14,
};

/// A version of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The number that data folders depend on.
    pub major: u16,
    /// False for development, beta and release-candidate builds.
    pub stable: bool,
    /// The number of the bug-fix release, or of the beta.
    pub minor: u16,
}

impl Version {
    /// Reads it from a line such as `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
    pub(crate) fn from_banner(line: &str) -> Option<Self> {
        let token = line
            .split_whitespace()
            .find(|token| token.starts_with(|c: char| c.is_ascii_digit()))?;
        let (major, rest) = split_number(token)?;
        if let Some(minor) = rest.strip_prefix('.') {
            return Some(Self {
                major,
                stable: true,
                minor: split_number(minor)?.0,
            });
        }
        let stable = rest.is_empty();
        let number = rest.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        Some(Self {
            major,
            stable,
            minor: split_number(number).map_or(0, |(number, _)| number),
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.stable {
            write!(f, "{}.{}", self.major, self.minor)
        } else {
            write!(f, "{} (a pre-release)", self.major)
        }
    }
}

fn split_number(text: &str) -> Option<(u16, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, rest) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(major: u16, stable: bool, minor: u16) -> Version {
        Version {
            major,
            stable,
            minor,
        }
    }

    /// A user with Debian's or a beta build would be told that PostgreSQL is missing.
    #[test]
    fn banners_of_all_kinds_are_read() {
        let known = [
            (
                "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)",
                version(15, true, 18),
            ),
            ("postgres (PostgreSQL) 18.4", version(18, true, 4)),
            (
                "postgres (PostgreSQL) 18beta1 (Debian 18~beta1-1.pgdg)",
                version(18, false, 1),
            ),
            ("postgres (PostgreSQL) 19devel", version(19, false, 0)),
        ];
        for (banner, expected) in known {
            assert_eq!(Version::from_banner(banner), Some(expected), "{banner}");
        }
        assert_eq!(Version::from_banner("postgres: command not found"), None);
        assert_eq!(Version::from_banner(""), None);
    }

    /// A user would get a beta although the release is there, or an old build with known holes.
    #[test]
    fn order_is_by_major_then_stability_then_minor() {
        assert!(version(15, true, 13) < MINIMUM);
        assert!(version(15, true, 14) >= MINIMUM);
        assert!(version(18, false, 2) < version(18, true, 0));
        assert!(version(18, false, 1) > version(17, true, 9));
    }
}
