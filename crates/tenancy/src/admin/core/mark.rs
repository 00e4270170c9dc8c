//! What a database is known to hold, as a comment on it says.

use std::fmt;
use std::str::FromStr;

use waangu_identity::{ContextKey, sha256_hex};

use super::super::literal;
use super::super::{PREPARE, TEMPLATE_DATABASE, quoted};
use super::{HASH, VERSION};

/// Hexadecimal digits of a hash in a mark.
const DIGITS: usize = 16;

/// A mark without keys: a database that nobody has told any.
pub(super) const UNTOLD: &str = "none";

/// What a database is known to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) version: i32,
    pub(super) hash: String,
    pub(super) keys: String,
}

impl Mark {
    /// What this program makes.
    pub(super) fn own(keys: &str) -> Self {
        Self {
            version: VERSION,
            hash: HASH.clone(),
            keys: keys.to_owned(),
        }
    }

    /// Whether this program has something newer.
    pub(super) fn is_behind(&self) -> bool {
        self.version < VERSION || self.version == VERSION && self.hash != *HASH
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            hash,
            keys,
        } = self;
        write!(f, "waangu core {version} {hash} keys {keys}")
    }
}

impl FromStr for Mark {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let words: Vec<&str> = text.split(' ').collect();
        let ["waangu", "core", version, hash, "keys", keys] = words.as_slice() else {
            return Err(());
        };
        Ok(Self {
            version: version.parse().map_err(|_number| ())?,
            hash: (*hash).to_owned(),
            keys: (*keys).to_owned(),
        })
    }
}

/// Keys to be told, and what stands for them in a mark: they can't be found out from that.
pub(super) struct Told<'k> {
    pub(super) keys: &'k [ContextKey],
    pub(super) digest: String,
}

impl<'k> Told<'k> {
    pub(super) fn new(keys: &'k [ContextKey]) -> Self {
        let mut ordered: Vec<&ContextKey> = keys.iter().collect();
        ordered.sort_by_key(|key| key.kid());
        let mut text = b"waangu keys".to_vec();
        for key in ordered {
            let (inner, outer) = key.pads();
            text.extend_from_slice(&key.kid().to_be_bytes());
            text.extend_from_slice(&inner);
            text.extend_from_slice(&outer);
        }
        Self {
            keys,
            digest: digest(&text),
        }
    }
}

/// Marks a database with what it holds.
pub(in crate::admin) fn mark_sql(database: &str, mark: &str) -> String {
    format!(
        "comment on database {} is {}",
        quoted(database),
        literal(mark)
    )
}

/// Marks a copy of the template with the mark that the template had when it was copied, if it still has
/// it: else what was copied is not known.
pub(in crate::admin) fn copied_mark_sql(database: &str, mark: Option<&str>) -> String {
    let Some(mark) = mark else {
        return String::new();
    };
    format!(
        "do $$ begin
             if pg_try_advisory_xact_lock_shared(-4, hashtext('{PREPARE}'))
                and (select shobj_description(oid, 'pg_database') from pg_database
                      where datname = '{TEMPLATE_DATABASE}') = {}
             then
                 {};
             end if;
         end $$",
        literal(mark),
        mark_sql(database, mark)
    )
}

pub(super) fn digest(text: &[u8]) -> String {
    sha256_hex(text).chars().take(DIGITS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An older program that is still running would take back what a newer one has made, and they would
    /// go on like that for ever.
    #[test]
    fn only_what_is_older_is_behind() {
        let mark = |version, hash: &str| Mark {
            version,
            hash: hash.to_owned(),
            keys: UNTOLD.to_owned(),
        };
        assert!(!Mark::own(UNTOLD).is_behind());
        assert!(mark(VERSION - 1, &HASH).is_behind());
        assert!(mark(VERSION, "of a change not yet released").is_behind());
        assert!(!mark(VERSION + 1, "unknown").is_behind());
        let own = Mark::own("0123");
        assert_eq!(own.to_string().parse(), Ok(own));
        assert_eq!("a comment of somebody's".parse::<Mark>(), Err(()));
    }
}
