//! Tryton: a database for each tenant, with its own modules and ours, in the place of Odoo, which no
//! package registry of ours has.
//!
//! Our module is written from the same list of tables, as Tryton's models; so its tables have Tryton's
//! five columns more, and each database has Tryton's own tables (users, rights, translations) beside
//! them: it is more than ours is, and it stands here for orientation, without a goal.

use std::fmt::Write as _;
use std::path::Path;

use tokio::process::Command;

use super::Pass;
use super::crew::Crew;
use super::ledger20::{self, TABLES, Table};
use super::python::python;
use super::server::Server;
use crate::failure::{Failure, Of as _};
use crate::scratch::Scratch;

/// Pinned: a result names what it was measured with.
pub(crate) const PACKAGES: &[&str] = &["trytond==8.2.1", "psycopg[binary,pool]==3.3.9"];

/// What these packages are imported as.
const IMPORTS: &str = "trytond, psycopg, psycopg_pool";

/// How the module is found by Tryton: the entry point of an installed package.
const ENTRY: &str = "[trytond.modules]\nledger20 = ledger20_tryton\n";

const METADATA: &str = "Metadata-Version: 2.1\nName: ledger20-tryton\nVersion: 8.2.0\n";

const HEAD: &str = "from sql import Column

from trytond.model import Index, ModelSQL, Unique, fields


";

/// Workers that wait.
#[derive(Debug)]
pub(crate) struct Tryton {
    crew: Crew,
}

impl Tryton {
    /// Writes the module and starts so many workers.
    pub(crate) async fn prepare(
        server: &Server,
        scratch: &Scratch,
        workers: usize,
    ) -> Result<Self, Failure> {
        let python = python(IMPORTS, PACKAGES).await?;
        let folder = scratch.path("tryton");
        let package = folder.join("ledger20_tryton");
        let info = folder.join("ledger20_tryton-8.2.0.dist-info");
        for (path, text) in [
            (
                folder.join("worker.py"),
                include_str!("tryton/worker.py").to_owned(),
            ),
            (package.join("__init__.py"), String::new()),
            (package.join("books.py"), models()),
            (package.join("tryton.cfg"), declaration()),
            (info.join("METADATA"), METADATA.to_owned()),
            (info.join("entry_points.txt"), ENTRY.to_owned()),
            (folder.join("password"), "waangu-bench-8\n".to_owned()),
        ] {
            write(&path, &text)?;
        }
        let Server {
            host,
            port,
            user,
            password,
            ..
        } = server;
        let uri = format!("postgresql://{user}:{password}@{host}:{port}");
        let start = || {
            let mut worker = Command::new(&python);
            worker
                .current_dir(&folder)
                .args(["worker.py", &TABLES.to_string()])
                .env("TRYTON_URI", &uri)
                .env("PYTHONPATH", &folder)
                .env("TRYTONPASSFILE", folder.join("password"));
            worker
        };
        let crew = Crew::start(workers, &folder, start).await?;
        Ok(Self { crew })
    }

    /// A database for each number, by so many processes at once.
    pub(crate) async fn onboard(
        &mut self,
        at_once: usize,
        numbers: std::ops::Range<usize>,
    ) -> Result<Pass, Failure> {
        self.crew.run(at_once, "database", numbers).await
    }
}

fn declaration() -> String {
    let mut text =
        "[tryton]\nversion=8.2.0\ndepends:\n    ir\n    res\n\n[register]\nmodel:\n".to_owned();
    for table in ledger20::tables() {
        // A string takes all that is written to it.
        let _ = writeln!(text, "    books.{}", class(table));
    }
    text
}

/// Our tables as Tryton's models.
fn models() -> String {
    let mut text = HEAD.to_owned();
    for table in ledger20::tables() {
        model(table, &mut text);
    }
    text
}

fn model(table: &Table, text: &mut String) {
    let mut lines = vec![
        format!("class {}(ModelSQL):", class(table)),
        format!("    __name__ = 'ledger20.{}'", table.name),
    ];
    for (name, kind, required) in table.fields() {
        let field = match kind {
            "text" => "Char",
            "jsonb" => "Text",
            "date" => "Date",
            "boolean" => "Boolean",
            "integer" | "bigint" => "Integer",
            _ => "Numeric",
        };
        let must = if required { ", required=True" } else { "" };
        lines.push(format!("    {name} = fields.{field}('{name}'{must})"));
    }
    for to in table.refers {
        lines.push(format!(
            "    {to} = fields.Many2One('ledger20.{to}', '{to}', required=True)"
        ));
    }
    lines.extend([
        String::new(),
        "    @classmethod".to_owned(),
        "    def __setup__(cls):".to_owned(),
        "        super().__setup__()".to_owned(),
        "        t = cls.__table__()".to_owned(),
    ]);
    for index in table.indexes {
        let columns = index.trim_start_matches('!').split(", ");
        let columns: Vec<&str> = columns.map(|name| name.trim_end_matches("_id")).collect();
        let called = columns.join("_");
        let of = |form: &dyn Fn(&str) -> String| {
            columns
                .iter()
                .map(|name| form(name))
                .collect::<Vec<_>>()
                .join(", ")
        };
        lines.push(if index.starts_with('!') {
            let all = of(&|name| format!("Column(t, '{name}')"));
            format!(
                "        cls._sql_constraints.append(('{called}', Unique(t, {all}), 'ir.msg_id'))"
            )
        } else {
            let all = of(&|name| format!("(Column(t, '{name}'), Index.Range())"));
            format!("        cls._sql_indexes.add(Index(t, {all}))")
        });
    }
    // A string takes all that is written to it.
    let _ = write!(text, "{}\n\n\n", lines.join("\n"));
}

fn class(table: &Table) -> String {
    let words = table.name.split('_').map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    });
    words.collect()
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).of(folder.display())?;
    }
    std::fs::write(path, text).of(path.display())
}
