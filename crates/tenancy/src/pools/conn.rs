//! One connection of a module's login to one database, with its prepared statements.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;
use waangu_kernel::{Fault, TenantId};

use super::opening::Kin;
use super::{CellAddress, WAIT, trace};
use crate::admin::{literal, quoted};
use crate::error::{from_driver, unavailable};
use crate::wire::{Cancel, Error, Prepared, Start, Wire};

/// Longest silence of a cell before its connections are given up, so that a cut network is noticed.
const SILENCE: Duration = Duration::from_secs(15);

/// A statement may not run, nor a transaction idle, for longer: its seal lives as long as it does.
/// What the login may have been made to say of itself (`alter role … set`) is overruled, but for reading
/// only: that may be the operator's word.
const BOUNDS: &str = "-c statement_timeout=30s -c idle_in_transaction_session_timeout=30s \
     -c default_transaction_isolation=read\\ committed";

/// A connection is closed when it is so old: its server process has gathered memory.
const MAX_AGE: Duration = Duration::from_mins(30);

/// A connection is closed when it has seen the schemas of so many tenants: each adds about 0.18 MB to
/// its server process that is never freed (data-plane design §4).
const MAX_SCHEMAS: usize = 200;

/// A connection is closed when so many statements are prepared on it: more than a module has, unless it
/// makes up SQL as it goes.
const MAX_STATEMENTS: usize = 500;

/// What ends a transaction well.
pub(crate) const COMMIT: &str = "commit";

const ENTER: &str = "select waangu.enter($1, $2, $3)";
const PATH: &str = "select waangu.path($1)";

/// An open connection.
pub(crate) struct Conn {
    wire: Wire,
    frame: Frame,
    statements: Statements,
    born: Instant,
    last: Option<TenantId>,
    schemas: HashSet<TenantId>,
    tainted: bool,
    /// Its share in those to the same database.
    kin: Option<Kin>,
}

/// What stands around the statements of a transaction.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) begin: Prepared,
    pub(crate) enter: Prepared,
    pub(crate) path: Prepared,
    pub(crate) commit: Prepared,
}

/// A statement that is prepared here.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) prepared: Prepared,
    /// Whether it has no meaning without a BEGIN.
    pub(crate) in_block: bool,
}

/// What is prepared on a connection, by its text.
pub(crate) type Statements = HashMap<Box<str>, Known>;

impl Frame {
    async fn prepare(wire: &mut Wire) -> Result<Self, Error> {
        Ok(Self {
            begin: wire.prepare("begin").await?,
            enter: wire.prepare(ENTER).await?,
            path: wire.prepare(PATH).await?,
            commit: wire.prepare(COMMIT).await?,
        })
    }
}

impl Conn {
    /// Connects.
    pub(super) async fn open(
        address: &CellAddress,
        login: &str,
        database: &str,
    ) -> Result<Self, Fault> {
        let start = Start {
            host: &address.host,
            port: address.port,
            login,
            password: &address.password,
            database,
            options: BOUNDS,
            silence: SILENCE,
        };
        let opened = tokio::time::timeout(WAIT, async {
            let mut wire = Wire::start(start).await?;
            let frame = Frame::prepare(&mut wire).await?;
            Ok::<_, Error>((wire, frame))
        });
        let (wire, frame) = opened.await.map_err(unavailable)?.map_err(from_driver)?;
        Ok(Self {
            wire,
            frame,
            statements: HashMap::new(),
            born: Instant::now(),
            last: None,
            schemas: HashSet::new(),
            tainted: false,
            kin: None,
        })
    }

    /// It counts among those to its database from here on.
    pub(super) fn join(&mut self, kin: Kin) {
        self.kin = Some(kin);
    }

    /// Has the server process read what any statement on a schema's tables needs of the catalogue, indexes
    /// and policies included: it makes plans and runs none. A table that somebody changes just now is not
    /// waited for.
    pub(super) async fn read_up(&mut self, schema: &str) -> Result<(), Fault> {
        let block = format!(
            "declare
                 v_table regclass;
             begin
                 set local lock_timeout = 100;
                 for v_table in
                     select oid from pg_catalog.pg_class
                      where relkind = 'r'
                        and relnamespace = pg_catalog.to_regnamespace({})
                 loop
                     begin
                         execute pg_catalog.format('explain table %s', v_table);
                     exception when lock_not_available then
                     end;
                 end loop;
             end",
            literal(&quoted(schema))
        );
        let sql = format!("do {}", literal(&block));
        self.wire.command(&sql).map_err(from_driver)?;
        self.wire.send().await.map_err(from_driver)?;
        self.wire.finish().await.map_err(from_driver)
    }

    /// The connection.
    pub(crate) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// What cancels the statement in hand.
    pub(crate) fn cancel(&self) -> Cancel {
        self.wire.cancel()
    }

    /// What a flight needs of it.
    pub(crate) fn parts(&mut self) -> (&mut Wire, &Frame, &Statements) {
        (&mut self.wire, &self.frame, &self.statements)
    }

    /// Whether a statement is prepared here already.
    pub(crate) fn knows(&self, sql: &str) -> bool {
        self.statements.contains_key(sql)
    }

    /// Whether a statement has no meaning without a BEGIN, as far as is known.
    pub(crate) fn needs_a_block(&self, sql: &str) -> bool {
        self.statements.get(sql).is_none_or(|known| known.in_block)
    }

    /// Remembers a statement that was prepared here.
    pub(crate) fn remember(&mut self, sql: &str, prepared: Prepared) {
        let in_block = trace::needs_a_block(sql);
        let known = Known { prepared, in_block };
        self.statements.insert(sql.into(), known);
    }

    /// A statement, prepared on this connection once.
    pub(crate) async fn prepare(&mut self, sql: &str) -> Result<Prepared, Error> {
        if let Some(known) = self.statements.get(sql) {
            return Ok(known.prepared.clone());
        }
        self.watch(sql);
        let prepared = self.wire.prepare(sql).await?;
        self.remember(sql, prepared.clone());
        Ok(prepared)
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
    pub(crate) fn is_tainted(&self) -> bool {
        self.tainted
    }

    /// The tenant has schemas of its own, which the server process will remember.
    pub(crate) fn remember_schema(&mut self, tenant: TenantId) {
        self.schemas.insert(tenant);
    }

    /// Whether it can serve again.
    pub(super) fn is_fresh(&self) -> bool {
        !self.tainted
            && self.wire.is_quiet()
            && !self.wire.has_ended()
            && self.statements.len() < MAX_STATEMENTS
            && self.born.elapsed() < MAX_AGE
            && self.schemas.len() < MAX_SCHEMAS
    }
}
