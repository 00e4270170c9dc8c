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
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};
use waangu_kernel::manifest::Manifest;
use waangu_kernel::{Fault, ModuleId, fault};

use crate::ToSql;
use crate::error::from_driver;
use crate::version;

mod cell;
mod facts;

pub use cell::Inspected;
use facts::{Names, Picture, Seen};

const MODULE: &str = include_str!("../sql/facts/module.sql");
const HELPER: &str = include_str!("../sql/facts/helper.sql");
const DATABASE: &str = include_str!("../sql/facts/database.sql");

/// Names are written out in full in what the catalogue answers; nothing is compiled for one reading.
const BEGIN: &str =
    "begin transaction read only; set local search_path = pg_catalog; set local jit = off";

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
    look(client, rules, Scope::Everything).await
}

/// Looks at what a module's rows depend on, with the module's own login. Each drift is logged with
/// its mend.
///
/// # Errors
/// `isolation-drift` when anything has drifted; `database-unavailable`.
pub async fn inspect_as_module(client: &Client, rules: &Rules) -> Result<(), Fault> {
    let drifts = look(client, rules, Scope::OwnModule).await?;
    for Drift {
        object,
        found,
        mend,
    } in &drifts
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
    let (_, seen) = read(client, rules, Scope::Everything).await?;
    Ok(facts::record(seen))
}

async fn look(client: &Client, rules: &Rules, scope: Scope) -> Result<Vec<Drift>, Fault> {
    let (server, seen) = read(client, rules, scope).await?;
    let version: i32 = server.try_get(0).map_err(from_driver)?;
    let names = Names {
        administrator: server.try_get(1).map_err(from_driver)?,
        database: server.try_get(2).map_err(from_driver)?,
    };
    let mut drifts = Picture::expected()?.compare(&seen, &rules.modules, &names);
    if let Some(problem) = version::problem(version) {
        drifts.push(Drift {
            object: "server".to_owned(),
            found: problem,
            mend: Mend::Advice("install PostgreSQL 15.14, 16.10, 17.6 or newer"),
        });
    }
    Ok(drifts)
}

/// Reads everything in one flight, and leaves no statement prepared.
async fn read(client: &Client, rules: &Rules, scope: Scope) -> Result<(Row, Vec<Seen>), Fault> {
    let own = scope == Scope::OwnModule;
    let params: [(&(dyn ToSql + Sync), Type); 3] = [
        (&rules.modules, Type::TEXT_ARRAY),
        (&own, Type::BOOL),
        (&rules.append_only, Type::TEXT_ARRAY),
    ];
    let begin = client.batch_execute(BEGIN);
    let facts = try_join4(
        client.query_typed(SERVER, &[]),
        client.query_typed(MODULE, &params),
        client.query_typed(HELPER, &[]),
        client.query_typed(DATABASE, &params),
    );
    let end = client.batch_execute("rollback");
    let ((), (server, modules, helper, database), ()) =
        try_join!(begin, facts, end).map_err(from_driver)?;
    let server = server.into_iter().next().ok_or_else(unreadable)?;
    let rows = modules.iter().chain(&helper).chain(&database);
    let seen: Result<_, Fault> = rows.map(Seen::read).collect();
    Ok((server, seen?))
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
