//! What leaves in one flight: all messages are written before the first answer is awaited.
//!
//! tokio-postgres sends each message when its future is first polled, and `join` polls in order; so
//! the order of the futures is the order on the wire. When one fails, PostgreSQL refuses those after
//! it (25P02) without running them, and the first error in order is the one that counts.

use futures_util::future::{OptionFuture, join_all, join5};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row, Statement};
use waangu_identity::{Proof, RequestContext};
use waangu_kernel::placement::Tier;

use crate::pools::conn::Conn;

const BEGIN: &str = "begin";

/// Ends a transaction. Nothing of the session has to be taken back: what can change a role or a setting
/// costs the connection ([`crate::pools`]), and queries can't since `core.sql` took away `set_config`.
const COMMIT: &str = "commit";

/// The same without the transaction's changes; nobody waits for it, so it takes back what it can.
pub(super) const ROLL_BACK: &str = "rollback; reset role; reset all";

/// Where a flight failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Beginning.
    Begin,
    /// Proving the context.
    Enter,
    /// The statement.
    Statement,
    /// The commit.
    Commit,
}

/// A statement with its parameters.
pub type Call<'a> = (&'a str, &'a [&'a (dyn ToSql + Sync)]);

/// What came back: the rows of each statement, and how many the last one touched.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) rows: Vec<Vec<Row>>,
    pub(super) count: u64,
}

impl Answer {
    /// The rows of the only statement.
    pub(super) fn only(self) -> Vec<Row> {
        self.rows.into_iter().next().unwrap_or_default()
    }
}

/// Most statements of one flight: up to so many futures `join_all` polls in their order.
pub(super) const MOST: usize = 30;

/// What to send.
pub(super) struct Flight<'a> {
    calls: Vec<Call<'a>>,
    counts: bool,
    commits: bool,
}

impl<'a> Flight<'a> {
    /// Only what begins a transaction.
    pub(super) fn only_open() -> Self {
        Self {
            calls: Vec::new(),
            counts: false,
            commits: false,
        }
    }

    /// Only the commit.
    pub(super) fn only_commit() -> Self {
        Self {
            calls: Vec::new(),
            counts: false,
            commits: true,
        }
    }

    /// A statement that gives rows.
    pub(super) fn rows(sql: &'a str, params: &'a [&'a (dyn ToSql + Sync)]) -> Self {
        Self {
            calls: vec![(sql, params)],
            counts: false,
            commits: false,
        }
    }

    /// Several statements that give rows, at most [`MOST`].
    pub(super) fn all(calls: &[Call<'a>]) -> Self {
        Self {
            calls: calls.to_vec(),
            counts: false,
            commits: false,
        }
    }

    /// A statement that gives a number of rows.
    pub(super) fn count(sql: &'a str, params: &'a [&'a (dyn ToSql + Sync)]) -> Self {
        Self {
            calls: vec![(sql, params)],
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
        if let Some(context) = context {
            conn.pass_to(context.tenant);
        }
        if let Some(own) = context.filter(|context| context.placement.tier == Tier::Schema) {
            conn.remember_schema(own.tenant);
        }
        // Names are looked up when a statement is prepared, so the search path must stand by then.
        if context.is_some() && self.calls.iter().any(|(sql, _)| !conn.knows(sql)) {
            transmit(conn, context.take(), &[], false, false).await?;
        }
        let mut calls = Vec::with_capacity(self.calls.len());
        for (sql, params) in &self.calls {
            let prepared = conn.prepare(sql).await;
            calls.push((
                prepared.map_err(|error| (Stage::Statement, error))?,
                *params,
            ));
        }
        transmit(conn, context, &calls, self.counts, self.commits).await
    }
}

async fn transmit(
    conn: &Conn,
    context: Option<&RequestContext>,
    calls: &[(Statement, &[&(dyn ToSql + Sync)])],
    counts: bool,
    commits: bool,
) -> Result<Answer, (Stage, Error)> {
    let client = conn.client();
    let begin = context.map(|_| client.batch_execute(BEGIN));
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
    let run = calls.iter().map(|(statement, params)| async move {
        if counts {
            return Ok((Vec::new(), client.execute(statement, params).await?));
        }
        Ok((client.query(statement, params).await?, 0))
    });
    let commit = commits.then(|| client.batch_execute(COMMIT));
    let (started, entered, pathed, ran, committed) = join5(
        OptionFuture::from(begin),
        OptionFuture::from(enter),
        OptionFuture::from(path),
        join_all(run),
        OptionFuture::from(commit),
    )
    .await;
    let failed = |stage| move |error| (stage, error);
    started.transpose().map_err(failed(Stage::Begin))?;
    entered.transpose().map_err(failed(Stage::Enter))?;
    pathed.transpose().map_err(failed(Stage::Enter))?;
    let mut answer = Answer::default();
    for one in ran {
        let (rows, count) = one.map_err(failed(Stage::Statement))?;
        answer.rows.push(rows);
        answer.count = count;
    }
    committed.transpose().map_err(failed(Stage::Commit))?;
    Ok(answer)
}
