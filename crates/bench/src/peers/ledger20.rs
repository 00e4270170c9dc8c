//! The module that all sides of a comparison run: a small company's books, 20 tables with a primary key
//! each, 25 further indexes and 22 foreign keys, in three migrations (base, clients, invoices), and
//! further ones, of one column and one index each, for who measures upgrades.
//!
//! Invariant: one list makes all of it. Ours has `tenant_id` first in every table, key and index, as the
//! platform demands; the others' tables are the same without it, which is as they would be written.
//!
//! Left out: routes. The module serves nothing but its health; the benches measure its tables.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::LazyLock;

use waangu_sdk::{Module, Router};

/// The module's id.
pub(crate) const ID: &str = "ledger20";

/// The file name under which the bench program is this module.
pub(crate) const PROGRAM: &str = "waangu-ledger20";

const MANIFEST: &str = r#"
id = "ledger20"
version = "0.1.0"
depends = []
roles = { reader = ["ledger20:book.read"] }
routes = []
[title]
en = "Books"
fr = "Livres"
[permissions]
"ledger20:book.read" = "See the books"
"#;

/// For whom SQL is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Tables that hold the rows of many tenants, or could.
    Platform,
    /// Tables of one tenant alone.
    Plain,
}

/// One table: its columns beside the key, what it refers to, its indexes beside the key.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    columns: &'static str,
    /// Tables whose `<name>_id` it has.
    pub(crate) refers: &'static [&'static str],
    /// Columns of each; `!` first makes it unique.
    pub(crate) indexes: &'static [&'static str],
}

const fn table(
    name: &'static str,
    columns: &'static str,
    refers: &'static [&'static str],
    indexes: &'static [&'static str],
) -> Table {
    Table {
        name,
        columns,
        refers,
        indexes,
    }
}

const BASE: [Table; 7] = [
    table(
        "language",
        "code text not null, title text not null",
        &[],
        &["!code"],
    ),
    table(
        "currency",
        "code text not null, digits integer not null",
        &[],
        &["!code"],
    ),
    table(
        "unit",
        "code text not null, title text not null",
        &[],
        &["!code"],
    ),
    table(
        "tax",
        "title text not null, rate numeric(7, 4) not null",
        &[],
        &["title"],
    ),
    table(
        "company",
        "title text not null, address text, settings jsonb not null default '{}'",
        &["currency", "language"],
        &["!title"],
    ),
    table(
        "member",
        "email text not null, title text not null, active boolean not null default true",
        &["company"],
        &["!email"],
    ),
    table(
        "numbering",
        "kind text not null, prefix text not null, last bigint not null default 0",
        &["company"],
        &["!company_id, kind"],
    ),
];

const CLIENTS: [Table; 6] = [
    table(
        "party",
        "title text not null, vat text, remark text",
        &["language"],
        &["title", "vat"],
    ),
    table(
        "place",
        "street text not null, city text not null, country text not null",
        &["party"],
        &["party_id"],
    ),
    table(
        "contact",
        "kind text not null, address text not null",
        &["party"],
        &["party_id", "address"],
    ),
    table(
        "lead",
        "title text not null, stage text not null, expected numeric(18, 4)",
        &["party", "member"],
        &["stage", "party_id"],
    ),
    table(
        "activity",
        "subject text not null, due date, done boolean not null default false",
        &["lead"],
        &["due"],
    ),
    table(
        "label",
        "title text not null, colour text",
        &["party"],
        &["!title"],
    ),
];

const INVOICES: [Table; 7] = [
    table(
        "product",
        "code text not null, title text not null, remark text, price numeric(18, 4) not null",
        &["unit", "tax"],
        &["!code", "title"],
    ),
    table(
        "price_list",
        "title text not null, valid_from date",
        &["currency"],
        &[],
    ),
    table(
        "price",
        "amount numeric(18, 4) not null",
        &["price_list", "product"],
        &["!price_list_id, product_id"],
    ),
    table(
        "invoice",
        "number text not null, issued date not null, state text not null, remark text",
        &["party", "company"],
        &["!number", "party_id, issued"],
    ),
    table(
        "invoice_line",
        "position integer not null, quantity numeric(18, 4) not null, amount numeric(18, 4) not null",
        &["invoice", "product"],
        &["!invoice_id, position", "product_id"],
    ),
    table(
        "payment",
        "paid date not null, amount numeric(18, 4) not null, reference text",
        &["invoice"],
        &["invoice_id"],
    ),
    table(
        "entry",
        "account text not null, booked date not null, debit numeric(18, 4), credit numeric(18, 4)",
        &["invoice"],
        &["account, booked"],
    ),
];

/// Name and tables of each migration.
const MIGRATIONS: [(&str, &[Table]); 3] = [
    ("0001_base", &BASE),
    ("0002_clients", &CLIENTS),
    ("0003_invoices", &INVOICES),
];

/// How many tables there are.
pub(crate) const TABLES: usize = BASE.len() + CLIENTS.len() + INVOICES.len();

/// All tables, each after those that it refers to.
pub(crate) fn tables() -> impl Iterator<Item = &'static Table> {
    MIGRATIONS.iter().flat_map(|(_, tables)| tables.iter())
}

/// Name and SQL of each migration.
pub(crate) fn migrations(side: Side) -> Vec<(&'static str, String)> {
    let sql = |tables: &[Table]| tables.iter().map(|table| table.sql(side)).collect();
    MIGRATIONS
        .iter()
        .map(|(name, tables)| (*name, sql(tables)))
        .collect()
}

/// The SQL of all migrations.
pub(crate) fn whole(side: Side) -> String {
    let scripts = migrations(side).into_iter().map(|(_, sql)| sql);
    scripts.collect::<Vec<_>>().join("\n")
}

/// One added column and one added index: what upgrades are measured with.
pub(crate) fn next(side: Side, column: &str) -> String {
    let keys = side.keys(column);
    format!(
        "alter table party add column {column} text;\ncreate index party_{column} on party ({keys});\n"
    )
}

/// Runs the module as a program.
pub(crate) fn run() -> ExitCode {
    static MODULE: LazyLock<Module> = LazyLock::new(|| {
        let text = |sql: String| -> &'static str { sql.leak() };
        let migrations = migrations(Side::Platform).into_iter();
        let migrations: Vec<_> = migrations.map(|(name, sql)| (name, text(sql))).collect();
        Module {
            manifest: MANIFEST,
            migrations: migrations.leak(),
            errors: &[],
            router: Router::new,
        }
    });
    waangu_sdk::run(&MODULE)
}

impl Side {
    /// Columns of a key or an index.
    fn keys(self, columns: &str) -> String {
        match self {
            Self::Platform => format!("tenant_id, {columns}"),
            Self::Plain => columns.to_owned(),
        }
    }
}

impl Table {
    /// Name and type of each column beside the key, and whether it must have a value.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        // Not the comma of a number's precision, which has no name behind it.
        let is_column = |part: &&str| part.starts_with(|first: char| first.is_ascii_lowercase());
        self.columns.split(", ").filter(is_column).map(|column| {
            let (name, rest) = column.split_once(' ').unwrap_or((column, ""));
            let kind = rest.split([' ', '(']).next().unwrap_or_default();
            let required = rest.contains("not null") && !rest.contains("default");
            (name, kind, required)
        })
    }

    fn sql(&self, side: Side) -> String {
        let name = self.name;
        let tenant = match side {
            Side::Platform => "tenant_id bigint not null default waangu.tenant(), ",
            Side::Plain => "",
        };
        let mut parts = vec![
            format!("{tenant}id uuid not null"),
            "created_at timestamptz not null default now()".to_owned(),
            self.columns.to_owned(),
        ];
        parts.extend(
            self.refers
                .iter()
                .map(|to| format!("{to}_id uuid not null")),
        );
        let key = side.keys("id");
        parts.push(format!("constraint {name}_pkey primary key ({key})"));
        parts.extend(self.refers.iter().map(|to| {
            let own = side.keys(&format!("{to}_id"));
            format!("constraint {name}_{to}_fkey foreign key ({own}) references {to} ({key})")
        }));
        let mut sql = format!("create table {name} (\n    {}\n);\n", parts.join("\n  , "));
        for index in self.indexes {
            let (unique, columns) = match index.strip_prefix('!') {
                Some(columns) => ("unique ", columns),
                None => ("", *index),
            };
            let called = columns.replace(", ", "_");
            let keys = side.keys(columns);
            // A string takes all that is written to it.
            let _ = writeln!(
                sql,
                "create {unique}index {name}_{called} on {name} ({keys});"
            );
        }
        sql
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reports say 20 tables, 25 indexes and 22 foreign keys; a comparison that says one thing and
    /// measures another convinces nobody.
    #[test]
    fn it_has_as_many_tables_indexes_and_foreign_keys_as_it_says() {
        for side in [Side::Platform, Side::Plain] {
            let sql = whole(side);
            let count = |what: &str| sql.matches(what).count();
            assert_eq!((TABLES, count("create table ")), (20, 20));
            assert_eq!(count("create index ") + count("create unique index "), 25);
            assert_eq!(count(" foreign key "), 22);
            assert_eq!(side == Side::Platform, count("tenant_id") > 0);
        }
    }
}
