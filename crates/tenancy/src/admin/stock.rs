//! Databases that are made before anybody needs them, so that a dedicated tenant does not wait for
//! `CREATE DATABASE`: taking one is a change of its name. Schemas likewise (`stock/schemas.rs`).
//!
//! What a database in stock holds is its [`Recipe`], whose hash is part of its name: the helper schema
//! and the newest migrations of some modules. So the catalogue of the cell says all there is to know,
//! and one of another recipe, made before a module's or this program's next version, is never taken.
//!
//! Invariants:
//! - a database in stock has no tenant, and no login may connect to it; from its first moment nobody
//!   can, and only a whole one gets a name under which it is taken;
//! - it is taken by one transaction that renames it and lets modules in: whoever dies before has taken
//!   nothing, and of two who want the same one, one finds it gone;
//! - it knows the gateway's keys of today: nobody takes or makes one while keys are being replaced.
//!
//! Left out: how many there should be, and of which modules.

use std::collections::HashSet;

use deadpool_postgres::Object;
use tokio_postgres::error::SqlState;
use waangu_identity::sha256_hex;
use waangu_kernel::Fault;

use super::core::{HASH, mark_sql};
use super::package::{ModulePackage, upgrade_sql};
use super::{CellAdmin, PREPARE, TEMPLATE_DATABASE, access_sql, column, quoted, retry_in_use};
use crate::error::{from_driver, is_state};

mod schemas;

pub use schemas::StockedSchema;

/// What all names in stock begin with.
const PREFIX: &str = "waangu_stock_";

/// One that is being made; only whose turn it is makes one.
const DRAFT: &str = "waangu_stock_draft";

/// What the lock of that turn is called.
const TURN: &str = "stock";

/// Hexadecimal digits of a recipe's hash in a name.
const DIGITS: usize = 16;

/// Databases that are tried before one is made after all.
const TRIES: i64 = 4;

/// With more modules than this, a tenant gets a database with all of them or with none.
const MOST_COMBINED: usize = 5;

/// SQLSTATE of a taker who must not take now.
const NOT_NOW: &str = "WG003";

/// What is in a database, apart from rows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Recipe(String);

impl Recipe {
    /// The helper schema of this program with the tables of these packages.
    pub fn new(packages: &[&ModulePackage]) -> Self {
        Self::of(packages.iter().map(|package| package.fingerprint()))
    }

    fn of(fingerprints: impl Iterator<Item = String>) -> Self {
        let mut parts: Vec<String> = fingerprints.collect();
        parts.sort_unstable();
        parts.push(HASH.clone());
        let hash = sha256_hex(parts.concat().as_bytes());
        Self(hash.chars().take(DIGITS).collect())
    }

    /// The recipes that a tenant with these packages can begin with, the one with most of them first:
    /// what is missing is installed afterwards.
    fn usable(packages: &[&ModulePackage]) -> Vec<Self> {
        let prints: Vec<String> = packages.iter().map(|each| each.fingerprint()).collect();
        let mut choices: Vec<Vec<String>> = vec![Vec::new()];
        if prints.len() > MOST_COMBINED {
            choices.push(prints);
        } else {
            for print in prints {
                let with = |before: &Vec<String>| {
                    [before.as_slice(), std::slice::from_ref(&print)].concat()
                };
                let more: Vec<_> = choices.iter().map(with).collect();
                choices.extend(more);
            }
        }
        choices.sort_by_key(|chosen| std::cmp::Reverse(chosen.len()));
        let recipes = choices.into_iter().map(|each| Self::of(each.into_iter()));
        recipes.collect()
    }

    /// What the names of those made by it begin with.
    pub fn prefix(&self) -> String {
        format!("{PREFIX}{}_", self.0)
    }

    /// Whether a database in stock was made by it.
    pub fn made(&self, database: &str) -> bool {
        database.starts_with(&self.prefix())
    }
}

impl CellAdmin {
    /// Gives a database in stock this name, and lets modules in; says whether there was one.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub(super) async fn take_from_stock(
        &self,
        packages: &[&ModulePackage],
        name: &str,
    ) -> Result<bool, Fault> {
        let prefixes: Vec<String> = Recipe::usable(packages)
            .iter()
            .map(Recipe::prefix)
            .collect();
        let client = self.client("postgres").await?;
        // One that somebody is connected to can't be renamed, and PostgreSQL would wait for it.
        let sql = "select d.datname::text
                     from unnest($1::text[]) with ordinality as r (prefix, place)
                     join pg_database d on starts_with(d.datname::text, r.prefix)
                    where d.datconnlimit <> -2
                      and not exists (select from pg_stat_activity a
                                       where a.datid = d.oid and a.backend_type = 'client backend')
                    order by r.place, random()
                    limit $2";
        let found = client.query(sql, &[&prefixes, &TRIES]).await;
        for row in found.map_err(from_driver)? {
            let stocked: &str = column(&row, 0)?;
            // Statements of one message are one transaction.
            let script = format!(
                "set local lock_timeout = '2s';
                 do $$ begin
                     if not pg_try_advisory_xact_lock_shared(-4, hashtext('{PREPARE}')) then
                         raise exception using errcode = '{NOT_NOW}', message = 'keys are being replaced';
                     end if;
                 end $$;
                 alter database {} rename to {};
                 {}",
                quoted(stocked),
                quoted(name),
                access_sql(name),
            );
            match client.batch_execute(&script).await {
                Ok(()) => return Ok(true),
                Err(error) if is_state(&error, &SqlState::INVALID_CATALOG_NAME) => {}
                Err(error) if is_state(&error, &SqlState::OBJECT_IN_USE) => {}
                // Else it is made as if there were no stock.
                Err(error) if error.as_db_error().is_some() => return Ok(false),
                Err(error) => return Err(from_driver(error)),
            }
        }
        Ok(false)
    }

    /// The turn to look after the stock, unless another process has it.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn stock_turn(&self) -> Result<Option<StockTurn<'_>>, Fault> {
        let client = self.visit("postgres").await?;
        let turn = StockTurn {
            admin: self,
            client,
        };
        let sql = "select pg_try_advisory_lock(-4, hashtext($1))";
        Ok(turn.try_lock(sql, TURN).await?.then_some(turn))
    }

    /// The databases in stock, those half made left out.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_stock(&self) -> Result<Vec<String>, Fault> {
        let sql = "select datname::text from pg_database
                    where starts_with(datname::text, $1) and datname <> $2 and datconnlimit <> -2
                    order by 1";
        let client = self.client("postgres").await?;
        let rows = client.query(sql, &[&PREFIX, &DRAFT]).await;
        let rows = rows.map_err(from_driver)?;
        rows.iter().map(|row| column(row, 0)).collect()
    }
}

/// The turn of the one who looks after a cell's stock. It ends when this is dropped.
#[derive(Debug)]
pub struct StockTurn<'a> {
    admin: &'a CellAdmin,
    client: Object,
}

impl StockTurn<'_> {
    /// Throws a database in stock away; nothing happens if it has been taken.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn discard(&self, database: &str) -> Result<(), Fault> {
        self.admin.drop_database(database).await
    }

    /// Makes one more with the tables of these packages; says whether that was possible now.
    ///
    /// # Errors
    /// `database-unavailable`; `internal` when a migration fails.
    pub async fn make(&self, packages: &[&ModulePackage]) -> Result<bool, Fault> {
        // Until it has its name: who replaces keys then finds it, or it is made after that.
        let sql = "select pg_try_advisory_lock_shared(-4, hashtext($1))";
        if !self.try_lock(sql, PREPARE).await? {
            return Ok(false);
        }
        self.admin.drop_database(DRAFT).await?;
        let create =
            format!("create database {DRAFT} template {TEMPLATE_DATABASE} allow_connections false");
        retry_in_use(&self.client, &create).await?;
        let open = format!(
            "revoke all on database {DRAFT} from public;
             alter database {DRAFT} with allow_connections true"
        );
        self.client
            .batch_execute(&open)
            .await
            .map_err(from_driver)?;
        self.furnish(packages).await?;
        // The template can't have changed since it was copied.
        if let Some(mark) = self.admin.comment(TEMPLATE_DATABASE).await? {
            let marked = self.client.batch_execute(&mark_sql(DRAFT, &mark)).await;
            marked.map_err(from_driver)?;
        }
        let name = self.free_name(&Recipe::new(packages)).await?;
        let rename = format!("alter database {DRAFT} rename to {}", quoted(&name));
        retry_in_use(&self.client, &rename).await?;
        let sql = "select pg_advisory_unlock_shared(-4, hashtext($1))";
        self.try_lock(sql, PREPARE).await
    }

    /// Also when there are no packages: the first visitor pays for what later ones find cached.
    async fn furnish(&self, packages: &[&ModulePackage]) -> Result<(), Fault> {
        let client = self.admin.visit(DRAFT).await?;
        // Each in a transaction of its own, because `waangu.protect` refuses one that has changed more than
        // its schema.
        let scripts: Vec<String> = packages
            .iter()
            .map(|package| {
                let script = upgrade_sql(package.id().as_str(), package, 0);
                format!("begin; {script}; commit")
            })
            .collect();
        client
            .batch_execute(&scripts.join(";\n"))
            .await
            .map_err(from_driver)
    }

    async fn free_name(&self, recipe: &Recipe) -> Result<String, Fault> {
        let taken: HashSet<String> = self.admin.list_stock().await?.into_iter().collect();
        let names = (1_u32..).map(|number| format!("{}{number}", recipe.prefix()));
        let mut free = names.filter(|name| !taken.contains(name));
        Ok(free.next().unwrap_or_default())
    }

    async fn try_lock(&self, sql: &str, what: &str) -> Result<bool, Fault> {
        let row = self.client.query_one(sql, &[&what]).await;
        column(&row.map_err(from_driver)?, 0)
    }
}

#[cfg(test)]
mod tests {
    use waangu_kernel::manifest::Manifest;

    use super::*;
    use crate::admin::Migration;

    fn package(id: &str, sql: &str) -> ModulePackage {
        let manifest = format!(
            "id = '{id}'\nversion = '0.1.0'\ntitle = {{ en = 'Test' }}\nroutes = []\n\
             [permissions]\n[roles]\n"
        );
        ModulePackage {
            manifest: Manifest::parse(&manifest).unwrap(),
            migrations: vec![Migration {
                name: "step".to_owned(),
                sql: sql.to_owned(),
            }],
        }
    }

    /// A database with tables of another version, or of a module that the tenant does not have, would
    /// be taken for a whole one.
    #[test]
    fn a_tenant_begins_with_what_it_needs_and_no_more() {
        let (crm, stock) = (package("crm", "select 1"), package("stock", "select 1"));
        let (newer, other) = (package("stock", "select 2"), package("ledger", "select 1"));
        assert_eq!(Recipe::new(&[&crm, &stock]), Recipe::new(&[&stock, &crm]));
        let usable = Recipe::usable(&[&crm, &stock]);
        assert_eq!(usable.first(), Some(&Recipe::new(&[&crm, &stock])));
        assert_eq!(usable.last(), Some(&Recipe::new(&[])));
        assert_eq!(usable.len(), 4);
        for foreign in [
            &[&newer][..],
            &[&other],
            &[&crm, &newer],
            &[&crm, &stock, &other],
        ] {
            assert!(!usable.contains(&Recipe::new(foreign)), "{foreign:?}");
        }
        let name = format!("{}7", Recipe::new(&[&crm]).prefix());
        assert!(Recipe::new(&[&crm]).made(&name) && !Recipe::new(&[]).made(&name));
        assert!(!Recipe::new(&[]).made(DRAFT));
    }
}
