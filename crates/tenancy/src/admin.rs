//! The control plane's side of a cell: roles, databases, and what each of them must hold.
//!
//! Every step is idempotent and asks the catalogue rather than remembering, so that a control plane
//! killed between two steps finishes by running them again.
//!
//! Invariants:
//! - every database that holds tenants is a copy of [`TEMPLATE_DATABASE`], where `sql/core.sql` stands;
//! - module logins are members of `waangu_module`, or of `waangu_tree` to read a subtree, never of
//!   both; they own nothing, and bypass nothing;
//! - passwords reach PostgreSQL only as SCRAM verifiers (RFC 5803), so no log can show them.
//!
//! Left out: which tenant goes where, and when.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use postgres_protocol::password::scram_sha_256;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls, Row};
use waangu_identity::ContextKey;
use waangu_identity::proof::Access;
use waangu_kernel::{CellId, Fault, ModuleId, fault};

use crate::error::{from_driver, is_state, sql_state, unavailable};
use crate::version;

mod compat;
mod core;
mod package;
mod places;
mod stock;
mod survey;
mod tenant;
mod upgrade;
mod upkeep;
mod volume;

pub use package::{Migration, ModulePackage};
pub use places::{MoveFacts, TenantRows};
pub use stock::{Recipe, StockTurn, StockedSchema};
pub use survey::Surveyed;
pub use tenant::{HomeState, Observed, Place};
pub use upgrade::{UpgradeLimits, Upgraded, Upgrader};
pub use upkeep::CellMeasure;
pub use volume::{Held, Volumes};

/// The database that all tenant databases are copied from.
pub const TEMPLATE_DATABASE: &str = "waangu_template";

/// Longest wait for a connection to a cell.
const WAIT: Duration = Duration::from_secs(10);

/// Longest wait for a sign of life.
const PROBE: Duration = Duration::from_secs(3);

/// Longest silence of a server that is waited for an answer: one whose machine is gone never says so.
const SILENCE: Duration = Duration::from_secs(20);

/// What the lock is called under which a cell's template and keys change.
const PREPARE: &str = "prepare";

const ROLES: &str = include_str!("../sql/roles.sql");
const CORE: &str = include_str!("../sql/core.sql");
const PROTECT: &str = include_str!("../sql/protect.sql");

/// Where a cell answers, and its administrator's login.
#[derive(Clone)]
pub struct CellAdminConfig {
    /// The cell.
    pub id: CellId,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The administrator's login.
    pub user: String,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for CellAdminConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "CellAdminConfig({} {}:{})",
            self.id, self.host, self.port
        )
    }
}

/// A module's two logins on one cell.
#[derive(Clone)]
pub struct LoginSecret {
    /// The module.
    pub module: ModuleId,
    /// The password of `waangu_<module>`.
    pub password: String,
    /// The password of `waangu_<module>_tree`, which reads subtrees.
    pub tree_password: String,
}

impl fmt::Debug for LoginSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LoginSecret({})", self.module)
    }
}

/// One cell, as its administrator.
pub struct CellAdmin {
    config: CellAdminConfig,
    /// Pools of the long-lived databases; a dedicated database gets a connection for each visit.
    pools: Mutex<HashMap<String, Pool>>,
}

impl CellAdmin {
    /// A cell. Connects lazily.
    pub fn new(config: CellAdminConfig) -> Self {
        Self {
            config,
            pools: Mutex::default(),
        }
    }

    /// The cell's id.
    pub fn id(&self) -> &CellId {
        &self.config.id
    }

    /// Makes the cell ready: version gate, roles, logins, template and shared database, keys.
    ///
    /// # Errors
    /// `database-unavailable`; `internal` when the server is too old.
    pub async fn prepare(&self, logins: &[LoginSecret], keys: &[ContextKey]) -> Result<(), Fault> {
        // Several control planes may start at once.
        let client = self.locked(PREPARE).await?;
        check_version(&client).await?;
        client.batch_execute(ROLES).await.map_err(from_driver)?;
        for login in logins {
            client
                .batch_execute(&logins_sql(login))
                .await
                .map_err(from_driver)?;
        }
        self.bring_up_to_date(&client, keys).await
    }

    /// Makes these, and no others, the keys whose proofs the cell accepts. The cell is prepared.
    ///
    /// # Errors
    /// `database-unavailable`: then some databases may know the keys and others not.
    pub async fn replace_keys(&self, keys: &[ContextKey]) -> Result<(), Fault> {
        let client = self.locked(PREPARE).await?;
        self.bring_up_to_date(&client, keys).await
    }

    /// Creates a database from the template if it does not exist, and closes it to strangers.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn ensure_database(&self, name: &str) -> Result<(), Fault> {
        let client = self.client("postgres").await?;
        let closed = database_closed(&client, name).await?;
        if closed == Some(true) {
            return Ok(());
        }
        let mut mark = String::new();
        if closed.is_none() {
            let copied = self.comment(TEMPLATE_DATABASE).await?;
            let sql = format!(
                "create database {} template {TEMPLATE_DATABASE}",
                quoted(name)
            );
            // The template is in use while it is brought up to date.
            match retry_in_use(&client, &sql).await {
                // Another worker was faster.
                Err(fault) if is_taken(&fault) => {}
                made => {
                    made?;
                    mark = core::copied_mark_sql(name, copied.as_deref());
                }
            }
        }
        // Two who change the rights of one database at once fail; a message is one transaction.
        let script = format!(
            "set local lock_timeout = '60s';
             select pg_advisory_xact_lock(-4, hashtext({}));
             {}; {mark}",
            literal(name),
            access_sql(name)
        );
        client.batch_execute(&script).await.map_err(from_driver)
    }

    /// Drops a database, ending its connections.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn drop_database(&self, name: &str) -> Result<(), Fault> {
        let pool = self
            .pools
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
        drop(pool);
        let client = self.client("postgres").await?;
        client
            .batch_execute(&drop_sql(name))
            .await
            .map_err(from_driver)
    }

    /// All databases of this platform on the cell, the template excepted.
    pub(crate) async fn list_databases(&self) -> Result<Vec<String>, Fault> {
        let client = self.client("postgres").await?;
        let sql = "select datname from pg_database
                    where (datname = 'waangu' or datname like 'waangu\\_schema\\_%'
                           or datname like 'waangu\\_t\\_%')
                      and datconnlimit <> -2";
        let rows = client.query(sql, &[]).await.map_err(from_driver)?;
        rows.iter()
            .map(|row| row.try_get(0).map_err(from_driver))
            .collect()
    }

    /// Builds the template under another name and renames it, so that a half-made one is never used.
    async fn build_template(&self, admin: &Object) -> Result<(), Fault> {
        let draft = "waangu_template_draft";
        self.drop_database(draft).await?;
        let create = format!("create database {draft} template template0 encoding 'UTF8'");
        let close = format!("revoke all on database {draft} from public");
        for statement in [create, close] {
            admin.batch_execute(&statement).await.map_err(from_driver)?;
        }
        {
            let client = self.visit(draft).await?;
            client
                .batch_execute(&core::fresh_sql())
                .await
                .map_err(from_driver)?;
        }
        // Renaming waits for the visitor's backend to be gone; that takes a few milliseconds.
        let rename = format!("alter database {draft} rename to {TEMPLATE_DATABASE}");
        retry_in_use(admin, &rename).await
    }

    /// A connection that holds a lock until it is dropped. Not a pooled one, so that the lock ends
    /// even if the caller is cancelled.
    async fn locked(&self, what: &str) -> Result<Object, Fault> {
        let client = self.visit("postgres").await?;
        client
            .batch_execute("set lock_timeout = '60s'")
            .await
            .map_err(from_driver)?;
        let sql = "select pg_advisory_lock(-4, hashtext($1))";
        client.execute(sql, &[&what]).await.map_err(from_driver)?;
        Ok(client)
    }

    /// Whether the cell answers.
    ///
    /// # Errors
    /// `database-unavailable` when it does not, within [`PROBE`].
    pub async fn ping(&self) -> Result<(), Fault> {
        // Not a pooled one: what an old connection says tells nothing of a new one.
        let asked = async {
            let client = self.visit("postgres").await?;
            client
                .simple_query("select 1")
                .await
                .map(drop)
                .map_err(from_driver)
        };
        tokio::time::timeout(PROBE, asked)
            .await
            .unwrap_or_else(|_late| Err(unavailable("no answer in time")))
    }

    /// A pooled connection to a long-lived database.
    pub(crate) async fn client(&self, database: &str) -> Result<Object, Fault> {
        let pool = {
            let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(pool) = pools.get(database) {
                pool.clone()
            } else {
                let pool = self.pool(database, 6)?;
                pools.insert(database.to_owned(), pool.clone());
                pool
            }
        };
        pool.get().await.map_err(unavailable)
    }

    /// A connection of its own, closed when dropped.
    pub(crate) async fn visit(&self, database: &str) -> Result<Object, Fault> {
        self.pool(database, 1)?.get().await.map_err(unavailable)
    }

    fn pool(&self, database: &str, size: usize) -> Result<Pool, Fault> {
        let mut config = Config::new();
        config
            .host(&self.config.host)
            .port(self.config.port)
            .user(&self.config.user)
            .password(&self.config.password)
            .dbname(database)
            .application_name("waangu-control")
            .connect_timeout(WAIT)
            .keepalives_idle(SILENCE / 2)
            .keepalives_interval(SILENCE / 4)
            .keepalives_retries(2)
            .tcp_user_timeout(SILENCE);
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        Pool::builder(Manager::from_config(config, NoTls, recycling))
            .max_size(size)
            .wait_timeout(Some(WAIT))
            .create_timeout(Some(WAIT))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(unavailable)
    }
}

impl fmt::Debug for CellAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CellAdmin({:?})", self.config)
    }
}

async fn check_version(client: &Object) -> Result<(), Fault> {
    let row = client
        .query_one("select current_setting('server_version_num')::integer", &[])
        .await
        .map_err(from_driver)?;
    match version::problem(row.try_get(0).map_err(from_driver)?) {
        Some(problem) => Err(fault::INTERNAL.fault(problem)),
        None => Ok(()),
    }
}

/// Whether a database has the rights of [`access_sql`]: its maker may have been killed before. `None`
/// if it does not exist. One whose removal a crash of the server has interrupted lets nobody in and can only
/// be removed (`datconnlimit` is -2; PostgreSQL's documentation of DROP DATABASE): that is done first.
async fn database_closed(client: &Object, name: &str) -> Result<Option<bool>, Fault> {
    let sql = "select datconnlimit = -2
                    , not has_database_privilege('public', oid, 'connect, temporary')
                      and has_database_privilege('waangu_module', oid, 'connect')
                      and has_database_privilege('waangu_tree', oid, 'connect')
                 from pg_database where datname = $1";
    let row = client.query_opt(sql, &[&name]).await.map_err(from_driver)?;
    let Some(row) = row else {
        return Ok(None);
    };
    if column(&row, 0)? {
        client
            .batch_execute(&drop_sql(name))
            .await
            .map_err(from_driver)?;
        return Ok(None);
    }
    column(&row, 1).map(Some)
}

fn drop_sql(name: &str) -> String {
    format!("drop database if exists {} with (force)", quoted(name))
}

/// Whether a database of that name had been made meanwhile.
fn is_taken(fault: &Fault) -> bool {
    let states = [SqlState::DUPLICATE_DATABASE, SqlState::UNIQUE_VIOLATION];
    let found = sql_state(fault);
    states.iter().any(|state| found == Some(state.code()))
}

async fn retry_in_use(client: &Object, statement: &str) -> Result<(), Fault> {
    for _attempt in 0..50 {
        match client.batch_execute(statement).await {
            Err(error) if is_state(&error, &SqlState::OBJECT_IN_USE) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => return other.map_err(from_driver),
        }
    }
    Err(unavailable(format!(
        "a database stayed in use: {statement}"
    )))
}

/// Only module logins may connect, and nobody may make temporary tables, which could shadow a
/// module's own (data-plane design §2.2).
fn access_sql(database: &str) -> String {
    let name = quoted(database);
    format!(
        "revoke all on database {name} from public;
         grant connect on database {name} to waangu_module, waangu_tree"
    )
}

/// Makes a module's two logins.
fn logins_sql(login: &LoginSecret) -> String {
    let module = &login.module;
    let own = login_sql(Access::Write, "waangu_module", module, &login.password);
    let tree = login_sql(Access::Tree, "waangu_tree", module, &login.tree_password);
    format!("{own}; {tree}")
}

fn login_sql(access: Access, group: &str, module: &ModuleId, password: &str) -> String {
    let name = access.login(module);
    let verifier = scram_sha_256(password.as_bytes());
    // Both come from closed alphabets: a module id, and base64 with separators.
    // A login may change its own settings, for all sessions to come: they are put back. One that is stolen
    // can't take more than half of the server's connections.
    format!(
        "do $$ begin
             if to_regrole('{name}') is null then
                 create role {name} login nosuperuser nocreatedb nocreaterole nobypassrls;
             end if;
             execute format('alter role {name} connection limit %s'
                          , current_setting('max_connections')::integer / 2);
         end $$;
         alter role {name} password '{verifier}';
         alter role {name} reset all;
         alter role {name} set search_path = {module};
         grant {group} to {name}"
    )
}

/// A column of an answer.
fn column<'r, T: crate::FromSql<'r>>(row: &'r Row, index: usize) -> Result<T, Fault> {
    row.try_get(index).map_err(from_driver)
}

/// A quoted identifier (PostgreSQL documentation §4.1.1).
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A quoted string constant; backslashes are plain because `standard_conforming_strings` is on.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
