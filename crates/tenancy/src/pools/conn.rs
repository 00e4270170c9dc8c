//! One connection of a module's login to one database, with its prepared statements.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::future;
use tokio::time::Instant;
use tokio_postgres::{CancelToken, Client, Config, NoTls, Statement};
use waangu_kernel::{Fault, TenantId};

use super::{CellAddress, WAIT, trace};
use crate::error::{from_driver, unavailable};

/// Longest silence of a cell before its connections are given up, so that a cut network is noticed.
const SILENCE: Duration = Duration::from_secs(15);

/// A statement may not run, nor a transaction idle, for longer: its seal lives as long as it does.
const BOUNDS: &str = "-c statement_timeout=30s -c idle_in_transaction_session_timeout=30s";

/// A connection is closed when it is so old: its server process has gathered memory.
const MAX_AGE: Duration = Duration::from_mins(30);

/// A connection is closed when it has seen the schemas of so many tenants: each adds about 0.18 MB to
/// its server process that is never freed (data-plane design §4).
const MAX_SCHEMAS: usize = 200;

/// Prepared statements of one connection; more than a module has, unless it makes up SQL as it goes.
const MAX_STATEMENTS: usize = 500;

const ENTER: &str = "select waangu.enter($1, $2, $3)";
const PATH: &str = "select waangu.path($1)";

/// An open connection.
pub(crate) struct Conn {
    client: Client,
    enter: Statement,
    path: Statement,
    statements: HashMap<Box<str>, Statement>,
    born: Instant,
    last: Option<TenantId>,
    schemas: HashSet<TenantId>,
    tainted: bool,
}

impl Conn {
    /// Connects.
    pub(super) async fn open(
        address: &CellAddress,
        login: &str,
        database: &str,
    ) -> Result<Self, Fault> {
        let mut config = Config::new();
        config
            .host(&address.host)
            .port(address.port)
            .user(login)
            .password(&address.password)
            .dbname(database)
            .application_name(login)
            .options(BOUNDS)
            .tcp_user_timeout(SILENCE)
            .connect_timeout(WAIT);
        let connected = tokio::time::timeout(WAIT, config.connect(NoTls)).await;
        let (client, connection) = connected.map_err(unavailable)?.map_err(from_driver)?;
        #[expect(
            clippy::disallowed_methods,
            reason = "the driver's own task; it ends when the client is dropped"
        )]
        drop(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a database connection ended");
            }
        }));
        let enter = client.prepare(ENTER);
        let prepared = future::try_join(enter, client.prepare(PATH)).await;
        let (enter, path) = prepared.map_err(from_driver)?;
        Ok(Self {
            client,
            enter,
            path,
            statements: HashMap::new(),
            born: Instant::now(),
            last: None,
            schemas: HashSet::new(),
            tainted: false,
        })
    }

    /// The driver's client.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// What cancels the statement in hand.
    pub(crate) fn cancel_token(&self) -> CancelToken {
        self.client.cancel_token()
    }

    /// `waangu.enter`, prepared.
    pub(crate) fn enter(&self) -> &Statement {
        &self.enter
    }

    /// What sets the search path for one transaction, prepared.
    pub(crate) fn path(&self) -> &Statement {
        &self.path
    }

    /// Whether a statement is prepared here already.
    pub(crate) fn knows(&self, sql: &str) -> bool {
        self.statements.contains_key(sql)
    }

    /// A statement, prepared on this connection once.
    pub(crate) async fn prepare(&mut self, sql: &str) -> Result<Statement, tokio_postgres::Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        self.watch(sql);
        let statement = self.client.prepare(sql).await?;
        if self.statements.len() >= MAX_STATEMENTS {
            self.statements.clear();
        }
        self.statements.insert(sql.into(), statement.clone());
        Ok(statement)
    }

    /// The tenant served last.
    pub(super) fn last(&self) -> Option<TenantId> {
        self.last
    }

    /// The tenant served next.
    pub(crate) fn pass_to(&mut self, tenant: TenantId) {
        self.last = Some(tenant);
    }

    /// To be told of each statement before it is sent for the first time: after one that may leave
    /// traces, the connection serves nobody else.
    pub(crate) fn watch(&mut self, sql: &str) {
        if !trace::leaves_none(sql) {
            self.tainted = true;
        }
    }

    /// Whether a statement may have left traces.
    pub(super) fn is_tainted(&self) -> bool {
        self.tainted
    }

    /// The tenant has schemas of its own, which the server process will remember.
    pub(crate) fn remember_schema(&mut self, tenant: TenantId) {
        self.schemas.insert(tenant);
    }

    /// Whether it can serve again.
    pub(super) fn is_fresh(&self) -> bool {
        !self.tainted
            && !self.client.is_closed()
            && self.born.elapsed() < MAX_AGE
            && self.schemas.len() < MAX_SCHEMAS
    }
}
