//! What leaves in one flight: all messages are written before the first answer is awaited.
//!
//! tokio-postgres sends each message when its future is first polled, and `join` polls in order; so
//! the order of the futures is the order on the wire. When one fails, PostgreSQL refuses those after
//! it (25P02) without running them, and the first error in order is the one that counts.

use futures_util::future::{OptionFuture, join, join5};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row, Statement};
use waangu_identity::{Proof, RequestContext};
use waangu_kernel::placement::Tier;

use crate::pools::conn::Conn;

const BEGIN: &str = "begin";

/// Removes whatever an earlier transaction may have left: role, settings, open cursors,
/// listeners, the last seal. Before the transaction, so that its rollback does not bring them back.
const CLEAN: &str = "set session authorization default; reset all; close all; unlisten *; \
                     discard sequences";

/// A statement prepared in SQL could have taken the place of one of the driver's: that is an error
/// here (division by zero), in the transaction, before any of them is used.
const BEGIN_CHECKED: &str = "begin; select 1 / (not exists \
     (select from pg_catalog.pg_prepared_statements where from_sql))::integer";

const COMMIT: &str = "commit";

/// Where a flight failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Beginning, and removing another tenant's traces.
    Clean,
    /// Proving the context.
    Enter,
    /// The statement.
    Statement,
    /// The commit.
    Commit,
}

/// What came back.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) rows: Vec<Row>,
    pub(super) count: u64,
}

/// What to send.
pub(super) struct Flight<'a> {
    statement: Option<(&'a str, &'a [&'a (dyn ToSql + Sync)])>,
    counts: bool,
    commits: bool,
}

impl<'a> Flight<'a> {
    /// Only what begins a transaction.
    pub(super) fn only_open() -> Self {
        Self {
            statement: None,
            counts: false,
            commits: false,
        }
    }

    /// Only the commit.
    pub(super) fn only_commit() -> Self {
        Self {
            statement: None,
            counts: false,
            commits: true,
        }
    }

    /// A statement that gives rows.
    pub(super) fn rows(sql: &'a str, params: &'a [&'a (dyn ToSql + Sync)]) -> Self {
        Self {
            statement: Some((sql, params)),
            counts: false,
            commits: false,
        }
    }

    /// A statement that gives a number of rows.
    pub(super) fn count(sql: &'a str, params: &'a [&'a (dyn ToSql + Sync)]) -> Self {
        Self {
            statement: Some((sql, params)),
            counts: true,
            commits: false,
        }
    }

    /// The same, and the commit.
    pub(super) fn last(self) -> Self {
        Self {
            commits: true,
            ..self
        }
    }

    /// Whether the transaction is over after it.
    pub(super) fn ends(&self) -> bool {
        self.commits
    }

    /// Sends it; with a context, what begins a transaction goes first.
    pub(super) async fn send(
        &self,
        conn: &mut Conn,
        context: Option<&RequestContext>,
    ) -> Result<Answer, (Stage, Error)> {
        let mut context = context;
        let mut dirty = context.is_some_and(|context| conn.pass_to(context.tenant));
        if let Some(own) = context.filter(|context| context.placement.tier == Tier::Schema) {
            conn.remember_schema(own.tenant);
        }
        let mut statement = None;
        if let Some((sql, _)) = self.statement {
            // Names are looked up when a statement is prepared, so the search path must stand by then.
            if context.is_some() && !conn.knows(sql) {
                transmit(conn, context.take(), dirty, None, false, false).await?;
                dirty = false;
            }
            let prepared = conn.prepare(sql).await;
            statement = Some(prepared.map_err(|error| (Stage::Statement, error))?);
        }
        let statement = match (&statement, self.statement) {
            (Some(statement), Some((_, params))) => Some((statement, params)),
            _ => None,
        };
        transmit(conn, context, dirty, statement, self.counts, self.commits).await
    }
}

async fn transmit(
    conn: &Conn,
    context: Option<&RequestContext>,
    dirty: bool,
    statement: Option<(&Statement, &[&(dyn ToSql + Sync)])>,
    counts: bool,
    commits: bool,
) -> Result<Answer, (Stage, Error)> {
    let client = conn.client();
    let clean = dirty.then(|| client.batch_execute(CLEAN));
    let begin = context.map(|_| client.batch_execute(if dirty { BEGIN_CHECKED } else { BEGIN }));
    let enter = context.map(|context| async move {
        let Proof { claims, kid, mac } = &context.proof;
        let params: [&(dyn ToSql + Sync); 3] = [claims, kid, mac];
        client.execute(conn.enter(), &params).await
    });
    let path = context
        .filter(|context| context.placement.tier == Tier::Schema)
        .map(|context| async move {
            let schema = context.schema();
            let params: [&(dyn ToSql + Sync); 1] = [&schema];
            client.execute(conn.path(), &params).await
        });
    let run = statement.map(|(statement, params)| async move {
        if counts {
            let count = client.execute(statement, params).await?;
            return Ok(Answer {
                count,
                ..Answer::default()
            });
        }
        let rows = client.query(statement, params).await?;
        Ok(Answer {
            rows,
            ..Answer::default()
        })
    });
    let commit = commits.then(|| client.batch_execute(COMMIT));
    let rest = join5(
        OptionFuture::from(begin),
        OptionFuture::from(enter),
        OptionFuture::from(path),
        OptionFuture::from(run),
        OptionFuture::from(commit),
    );
    let (cleaned, (started, entered, pathed, ran, committed)) =
        join(OptionFuture::from(clean), rest).await;
    let failed = |stage| move |error| (stage, error);
    cleaned.transpose().map_err(failed(Stage::Clean))?;
    started.transpose().map_err(failed(Stage::Clean))?;
    entered.transpose().map_err(failed(Stage::Enter))?;
    pathed.transpose().map_err(failed(Stage::Enter))?;
    let answer = ran.transpose().map_err(failed(Stage::Statement))?;
    committed.transpose().map_err(failed(Stage::Commit))?;
    Ok(answer.unwrap_or_default())
}
