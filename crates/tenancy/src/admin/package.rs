//! A module's package: its declaration and its tables, and the statements that bring them in.

use serde::{Deserialize, Serialize};
use waangu_identity::proof::Access;
use waangu_identity::sha256_hex;
use waangu_kernel::ModuleId;
use waangu_kernel::manifest::Manifest;

use super::{literal, quoted};

/// A module as it is installed: its declaration and its tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModulePackage {
    /// The declaration.
    pub manifest: Manifest,
    /// Its migrations, oldest first.
    pub migrations: Vec<Migration>,
}

/// One step of a module's tables, in plain SQL without schema names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// Its name, for people.
    pub name: String,
    /// The statements.
    pub sql: String,
}

impl ModulePackage {
    /// The hash of what the package makes of a database: its migrations and its append-only tables.
    /// Two releases that differ in nothing else have the same, so the second has nothing to do.
    pub fn fingerprint(&self) -> String {
        let mut text = Vec::new();
        let mut part = |bytes: &str| {
            // With its length, so that no two packages read the same.
            text.extend_from_slice(bytes.len().to_string().as_bytes());
            text.push(b':');
            text.extend_from_slice(bytes.as_bytes());
        };
        part(self.manifest.id.as_str());
        for table in &self.manifest.append_only {
            part(table);
        }
        part("migrations");
        for migration in &self.migrations {
            part(&migration.name);
            part(&migration.sql);
        }
        sha256_hex(&text)
    }

    /// Whether this package begins with all migrations of the other.
    pub fn continues(&self, other: &Self) -> bool {
        self.migrations.starts_with(&other.migrations)
    }

    /// The module.
    pub fn id(&self) -> &ModuleId {
        &self.manifest.id
    }
}

/// The statements that bring a schema from its `have` first migrations to the package's last.
pub(super) fn upgrade_sql(schema: &str, package: &ModulePackage, have: usize) -> String {
    let create = format!(
        "create schema if not exists {} authorization waangu_owner;\n",
        quoted(schema)
    );
    create + &migration_sql(schema, package, have) + &protection_sql(schema, package)
}

/// Ends what a migration could leave behind for statements that follow with the administrator's rights: a
/// cursor that COMMIT would run, a path on which their functions and types are others, another way to read
/// strings or bytes, a commit that the disk does not have yet when it is said to be done. None of that is
/// undone when `waangu.migrate` returns, if it was said without LOCAL. Other settings stay in the session:
/// they can make what follows fail, so who uses the connection for more than packages' upgrades closes it.
/// Prepared statements and deferred triggers are refused by `waangu.protect`.
const BACK: &str =
    "close all; set search_path = pg_catalog, pg_temp; reset standard_conforming_strings;
             reset client_encoding; reset synchronous_commit;";

/// The migrations after the `have` first. Each one's number is taken before it runs: where another
/// transaction was first, that says so, and not whatever the migration trips over.
pub(super) fn migration_sql(schema: &str, package: &ModulePackage, have: usize) -> String {
    let module = &package.manifest.id;
    let steps = package.migrations.iter().enumerate().skip(have);
    let script = steps.map(|(number, migration)| {
        format!(
            "insert into waangu.migration (schema_name, module, number, name)
             values ({name}, {}, {number}, {});
             select waangu.migrate({name}, {});
             {BACK}\n",
            literal(module.as_str()),
            literal(&migration.name),
            literal(&migration.sql),
            name = literal(schema),
        )
    });
    script.collect()
}

/// Puts the uniform rules on every table of a schema.
pub(super) fn protection_sql(schema: &str, package: &ModulePackage) -> String {
    let append_only: Vec<String> = package
        .manifest
        .append_only
        .iter()
        .map(|table| literal(table))
        .collect();
    format!(
        "call waangu.protect({}, {}, array[{}]::text[])",
        literal(schema),
        literal(&Access::Write.login(&package.manifest.id)),
        append_only.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(version: &str, append_only: &[&str], migrations: &[(&str, &str)]) -> ModulePackage {
        let manifest = format!(
            "id = 'stock'\nversion = '{version}'\ntitle = {{ en = 'Test' }}\nroutes = []\n\
             append_only = {append_only:?}\n[permissions]\n[roles]\n"
        );
        ModulePackage {
            manifest: Manifest::parse(&manifest).unwrap(),
            migrations: migrations
                .iter()
                .map(|(name, sql)| Migration {
                    name: (*name).to_owned(),
                    sql: (*sql).to_owned(),
                })
                .collect(),
        }
    }

    /// A release that changes no table would otherwise visit ten thousand tenants for nothing; one
    /// that does would pass for nothing to do.
    #[test]
    fn a_fingerprint_is_of_what_a_database_gets() {
        let one = package("0.1.0", &[], &[("a", "select 1")]);
        let release = package("0.2.0", &[], &[("a", "select 1")]);
        assert_eq!(one.fingerprint(), release.fingerprint());
        let others = [
            package("0.1.0", &["a"], &[("a", "select 1")]),
            package("0.1.0", &[], &[("a", "select 2")]),
            package("0.1.0", &[], &[("a", "select 1"), ("b", "")]),
            package("0.1.0", &[], &[("aselect", " 1")]),
        ];
        for other in others {
            assert_ne!(one.fingerprint(), other.fingerprint(), "{other:?}");
        }
    }

    /// Migrations that were changed after they ran stand in no database.
    #[test]
    fn a_package_continues_only_what_it_begins_with() {
        let one = package("0.1.0", &[], &[("a", "select 1")]);
        let two = package("0.2.0", &[], &[("a", "select 1"), ("b", "select 2")]);
        let rewritten = package("0.2.0", &[], &[("a", "select 3"), ("b", "select 2")]);
        assert!(two.continues(&one) && one.continues(&one));
        assert!(!one.continues(&two) && !rewritten.continues(&one));
    }
}
