//! Proves on a live catalogue that nothing has drifted from the uniform rules.
//!
//! What the catalogue says is read as facts by `sql/facts/*.sql`: an object, an aspect of it and a
//! value, each with the statement that makes it so and the one that undoes it. What it should say
//! stands in `sql/expected.json`, which a test writes from a fresh database made by `sql/core.sql`,
//! `sql/protect.sql` and the roles' script: those stay the only place where a rule is written.
//!
//! Invariants:
//! - it only looks: a read-only transaction, catalogues that every login may read;
//! - whatever is not expected is a drift, so that what nobody has thought of is one, too.
//!
//! Left out: rows, and what PostgreSQL shows to nobody but a superuser (passwords, `pg_hba.conf`).

use std::fmt;

use futures_util::future::try_join4;
use futures_util::try_join;
use serde::{Serialize, Serializer};
use tokio_postgres::Client;
use tokio_postgres::types::{FromSql, Type};
use waangu_kernel::manifest::Manifest;
use waangu_kernel::{Fault, ModuleId, fault};

use crate::ToSql;
use crate::error::from_driver;
use crate::version;
use crate::wire::{Once, Row, Wire};

mod cell;
mod facts;

pub use cell::Inspected;
use facts::{Expected, Names, Seen};

const MODULE: &str = include_str!("../sql/facts/module.sql");
const HELPER: &str = include_str!("../sql/facts/helper.sql");
const DATABASE: &str = include_str!("../sql/facts/database.sql");

/// Names are written out in full in what the catalogue answers; nothing is compiled for one reading; and
/// nobody waits for ever for a table that has to be opened.
const BEGIN: [&str; 4] = [
    "begin transaction read only",
    "set local search_path = pg_catalog",
    "set local jit = off",
    "set local lock_timeout = '10s'",
];

const SERVER: &str = "select current_setting('server_version_num')::integer
     , (select quote_ident(rolname) from pg_roles r
         where oid = 10 or oid = (select datdba from pg_database where datname = current_database())
           and not exists (select from pg_auth_members where member = r.oid
                             and roleid in ('waangu_module'::regrole, 'waangu_tree'::regrole))
         order by oid = 10 limit 1)
     , quote_ident(current_database())";

/// One departure from the uniform rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// What has drifted.
    pub object: String,
    /// What is the matter with it.
    pub found: String,
    /// What puts it right.
    pub mend: Mend,
}

/// What puts a drift right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mend {
    /// Statements, to be run by the database's administrator in that database.
    Sql(String),
    /// Something that SQL can't do.
    Advice(&'static str),
}

/// What an inspection has to know of the installed modules.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    modules: Vec<String>,
    append_only: Vec<String>,
}

impl Rules {
    /// The rules of these modules.
    pub fn new<'a>(manifests: impl IntoIterator<Item = &'a Manifest>) -> Self {
        let mut rules = Self::default();
        for manifest in manifests {
            rules.add(&manifest.id, &manifest.append_only);
        }
        rules
    }

    /// Adds a module and its append-only tables.
    pub fn add(&mut self, module: &ModuleId, append_only: &[String]) {
        self.modules.push(module.to_string());
        let tables = append_only.iter().map(|table| format!("{module}.{table}"));
        self.append_only.extend(tables);
    }
}

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// The whole database, and who may connect to the server's others.
    Everything,
    /// The helper schema, the catalogues, the module's own tables and logins.
    OwnModule,
}

/// Looks at the whole database that the client is connected to, as its administrator.
///
/// # Errors
/// `database-unavailable`.
pub async fn inspect(client: &Client, rules: &Rules) -> Result<Vec<Drift>, Fault> {
    read(client, rules, Scope::Everything).await?.compare(rules)
}

/// Looks at what a module's rows depend on, with the module's own login. Each drift is logged with
/// its mend.
///
/// # Errors
/// `isolation-drift` when anything has drifted; `database-unavailable`.
pub async fn inspect_as_module(client: &Client, rules: &Rules) -> Result<(), Fault> {
    told(
        &read(client, rules, Scope::OwnModule)
            .await?
            .compare(rules)?,
    )
}

/// The same on a connection that is to serve tenants.
///
/// # Errors
/// As [`inspect_as_module`].
pub(crate) async fn inspect_before_use(wire: &mut Wire, rules: &Rules) -> Result<(), Fault> {
    told(&read_before_use(wire, rules).await?.compare(rules)?)
}

/// Logs each drift, and refuses on the first.
fn told(drifts: &[Drift]) -> Result<(), Fault> {
    for Drift {
        object,
        found,
        mend,
    } in drifts
    {
        tracing::error!(object, found, %mend, "the database's isolation has drifted");
    }
    let Some(first) = drifts.first() else {
        return Ok(());
    };
    let Drift {
        object,
        found,
        mend,
    } = first;
    let more = drifts.len() - 1;
    Err(fault::ISOLATION_DRIFT
        .fault("the tenant's database does not have the rules that keep tenants apart")
        .cause(format!("{object}: {found}; mend: {mend}; {more} more")))
}

/// The facts of a database that is known to be as it should, as `sql/expected.json` holds them.
///
/// # Errors
/// `database-unavailable`.
#[doc(hidden)]
pub async fn record(client: &Client, rules: &Rules) -> Result<String, Fault> {
    let Picture { seen, .. } = read(client, rules, Scope::Everything).await?;
    Ok(facts::record(seen))
}

/// What the catalogue has answered.
struct Picture {
    version: i32,
    names: Names,
    seen: Vec<Seen>,
}

impl Picture {
    /// Reads the server's row, and a row for each group of objects.
    fn read<'r, R: Cells + 'r>(
        server: &R,
        objects: impl Iterator<Item = &'r R>,
    ) -> Result<Self, Fault> {
        Ok(Self {
            version: server.cell(0)?,
            names: Names {
                administrator: server.cell(1)?,
                database: server.cell(2)?,
            },
            seen: objects.map(Seen::read).collect::<Result<_, _>>()?,
        })
    }

    fn compare(self, rules: &Rules) -> Result<Vec<Drift>, Fault> {
        let mut drifts = Expected::known()?.compare(&self.seen, &rules.modules, &self.names);
        if let Some(problem) = version::problem(self.version) {
            drifts.push(Drift {
                object: "server".to_owned(),
                found: problem,
                mend: Mend::Advice("install PostgreSQL 15.14, 16.10, 17.6 or newer"),
            });
        }
        Ok(drifts)
    }
}

/// A row, whichever way it came.
trait Cells {
    fn cell<'a, T: FromSql<'a>>(&'a self, at: usize) -> Result<T, Fault>;
}

impl Cells for tokio_postgres::Row {
    fn cell<'a, T: FromSql<'a>>(&'a self, at: usize) -> Result<T, Fault> {
        self.try_get(at).map_err(|error| unreadable().cause(error))
    }
}

impl Cells for Row {
    fn cell<'a, T: FromSql<'a>>(&'a self, at: usize) -> Result<T, Fault> {
        self.try_get(at).map_err(|error| unreadable().cause(error))
    }
}

/// Reads everything in one flight, and leaves no statement prepared.
async fn read(client: &Client, rules: &Rules, scope: Scope) -> Result<Picture, Fault> {
    let own = scope == Scope::OwnModule;
    let params = params(rules, &own);
    let begin = BEGIN.join("; ");
    let begin = client.batch_execute(&begin);
    let facts = try_join4(
        client.query_typed(SERVER, &[]),
        client.query_typed(MODULE, &params),
        client.query_typed(HELPER, &[]),
        client.query_typed(DATABASE, &params),
    );
    let end = client.batch_execute("rollback");
    let ((), (server, modules, helper, database), ()) =
        try_join!(begin, facts, end).map_err(from_driver)?;
    let server = server.first().ok_or_else(unreadable)?;
    Picture::read(server, modules.iter().chain(&helper).chain(&database))
}

/// The same on a connection that is to serve tenants, about the module's own.
async fn read_before_use(wire: &mut Wire, rules: &Rules) -> Result<Picture, Fault> {
    let own = true;
    let params = params(rules, &own);
    let mut calls: Vec<Once<'_>> = BEGIN.map(|sql| -> Once<'_> { (sql, &[]) }).into();
    let asked: [Once<'_>; 5] = [
        (SERVER, &[]),
        (MODULE, &params),
        (HELPER, &[]),
        (DATABASE, &params),
        ("rollback", &[]),
    ];
    calls.extend(asked);
    let answers = wire.once(&calls).await.map_err(from_driver)?;
    let [.., server, modules, helper, database, _end] = answers.as_slice() else {
        return Err(unreadable());
    };
    let server = server.first().ok_or_else(unreadable)?;
    Picture::read(server, modules.iter().chain(helper).chain(database))
}

/// Parameters of [`MODULE`] and [`DATABASE`].
fn params<'a>(rules: &'a Rules, own: &'a bool) -> [(&'a (dyn ToSql + Sync), Type); 3] {
    [
        (&rules.modules, Type::TEXT_ARRAY),
        (own, Type::BOOL),
        (&rules.append_only, Type::TEXT_ARRAY),
    ]
}

fn unreadable() -> Fault {
    fault::INTERNAL.fault("the catalogue's answer has another shape than expected")
}

impl fmt::Display for Mend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sql(sql) => sql,
            Self::Advice(advice) => advice,
        })
    }
}

impl Serialize for Mend {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
