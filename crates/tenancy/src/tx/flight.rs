//! What leaves in one flight: one piece of writing with one Sync at its end.
//!
//! PostgreSQL takes what stands between two Syncs as one transaction unless it is told otherwise. So a
//! flight that is the whole transaction has neither BEGIN nor COMMIT: `enter` seals it, the statements
//! run, and the Sync commits, or, after an error anywhere, nothing has happened. A flight after which
//! more is to come, or whose statements need a block, has them.

use tokio_postgres::types::ToSql;
use waangu_identity::{Proof, RequestContext};
use waangu_kernel::placement::Tier;

use crate::pools::conn::{COMMIT, Conn};
use crate::wire::{Described, Error, Piece, Prepared, Row, Wire};

/// Where a flight failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Before anything was answered: the connection had ended.
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

/// Most statements of one flight: what is written and what is answered is held in memory.
pub(super) const MOST: usize = 30;

/// What to send.
pub(super) struct Flight<'a> {
    calls: Vec<Call<'a>>,
    commits: bool,
}

impl<'a> Flight<'a> {
    /// Only what begins a transaction.
    pub(super) fn only_open() -> Self {
        Self {
            calls: Vec::new(),
            commits: false,
        }
    }

    /// Only the commit.
    pub(super) fn only_commit() -> Self {
        Self {
            calls: Vec::new(),
            commits: true,
        }
    }

    /// One statement.
    pub(super) fn one(sql: &'a str, params: &'a [&'a (dyn ToSql + Sync)]) -> Self {
        Self {
            calls: vec![(sql, params)],
            commits: false,
        }
    }

    /// Several statements, at most [`MOST`].
    pub(super) fn all(calls: &[Call<'a>]) -> Self {
        Self {
            calls: calls.to_vec(),
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
        if let Some(context) = context {
            conn.pass_to(context.tenant);
        }
        if let Some(own) = context.filter(|context| context.placement.tier == Tier::Schema) {
            conn.remember_schema(own.tenant);
        }
        let mut context = context;
        if self.calls.iter().any(|(sql, _)| !conn.knows(sql)) {
            // Names are looked up when a statement is prepared, so the search path stands by then.
            self.learn(conn, context.take()).await?;
        }
        let leg = Leg::encode(conn, context, &self.calls, self.commits)?;
        leg.send(conn.wire()).await?;
        let answer = leg.answer(conn.wire()).await;
        leg.end(conn.wire(), answer).await
    }

    /// Prepares what is not known here, and begins the transaction in the same flight if that is still
    /// to be done.
    async fn learn(
        &self,
        conn: &mut Conn,
        context: Option<&RequestContext>,
    ) -> Result<(), (Stage, Error)> {
        let leg = Leg::encode(conn, context, &[], false)?;
        let failed = |error| (Stage::Statement, error);
        let mut unknown: Vec<(&str, Box<str>)> = Vec::new();
        for (sql, _) in &self.calls {
            if !conn.knows(sql) && !unknown.iter().any(|(other, _)| other == sql) {
                conn.watch(sql);
                unknown.push((sql, conn.wire().parse(sql).map_err(failed)?));
            }
        }
        leg.send(conn.wire()).await?;
        let described = leg.descriptions(conn.wire(), unknown).await;
        for (sql, described) in leg.end(conn.wire(), described).await? {
            let prepared = conn.wire().known(described).await.map_err(failed)?;
            conn.remember(sql, prepared);
        }
        Ok(())
    }
}

/// What was encoded to leave with one Sync: the statements, in order, and what each is for.
struct Leg {
    steps: Vec<(Stage, Prepared)>,
    opens: bool,
}

impl Leg {
    /// Encodes what is to be sent. With no need for a block, a leg that opens and commits is a
    /// transaction without saying so.
    fn encode(
        conn: &mut Conn,
        context: Option<&RequestContext>,
        calls: &[Call<'_>],
        commits: bool,
    ) -> Result<Self, (Stage, Error)> {
        let tainted = conn.is_tainted();
        let block =
            tainted || calls.is_empty() || calls.iter().any(|(sql, _)| conn.needs_a_block(sql));
        let whole = context.is_some() && commits && !block;
        let (wire, frame, statements) = conn.parts();
        let mut steps = Steps {
            wire,
            steps: Vec::with_capacity(calls.len().saturating_add(4)),
        };
        if let Some(context) = context {
            if !whole {
                steps.add(Stage::Enter, &frame.begin, &[])?;
            }
            let Proof { claims, kid, mac } = &context.proof;
            steps.add(Stage::Enter, &frame.enter, &[claims, kid, mac])?;
            if context.placement.tier == Tier::Schema {
                steps.add(Stage::Enter, &frame.path, &[&context.schema()])?;
            }
        }
        for (sql, params) in calls {
            // Skipped, it would be a statement that is answered and never run.
            let known = statements.get(*sql);
            let known = known.ok_or_else(|| (Stage::Statement, Error::unexpected()))?;
            steps.add(Stage::Statement, &known.prepared, params)?;
        }
        if commits && !whole {
            steps.commit(&frame.commit, tainted)?;
        }
        let opens = context.is_some();
        Ok(Self {
            steps: steps.steps,
            opens,
        })
    }

    async fn send(&self, wire: &mut Wire) -> Result<(), (Stage, Error)> {
        let sent = wire.send().await;
        sent.map_err(|error| self.blame(true, Stage::Statement, error))
    }

    /// Reads the answer of each step.
    async fn answer(&self, wire: &mut Wire) -> Result<Answer, (Stage, Error)> {
        let mut answer = Answer::default();
        for (at, (stage, prepared)) in self.steps.iter().enumerate() {
            let mut rows = Vec::new();
            let count = loop {
                match wire.piece(prepared.columns()).await {
                    Ok(Piece::Row(row)) => rows.push(row),
                    Ok(Piece::End(count)) => break count,
                    // Only `copy_out` takes them.
                    Ok(Piece::Bytes(_)) => return Err((*stage, Error::unexpected())),
                    Err(error) => return Err(self.blame(at == 0, *stage, error)),
                }
            };
            if *stage == Stage::Statement {
                answer.rows.push(rows);
                answer.count = count;
            }
        }
        Ok(answer)
    }

    /// Reads the answer of each step, and what the statements are that were parsed after them.
    async fn descriptions<'s>(
        &self,
        wire: &mut Wire,
        parsed: Vec<(&'s str, Box<str>)>,
    ) -> Result<Vec<(&'s str, Described)>, (Stage, Error)> {
        self.answer(wire).await?;
        let mut described = Vec::with_capacity(parsed.len());
        for (sql, name) in parsed {
            let one = wire.description(name).await;
            described.push((sql, one.map_err(|error| (Stage::Statement, error))?));
        }
        Ok(described)
    }

    /// Reads what is left up to the Sync. What fails only there is the commit.
    async fn end<T>(
        &self,
        wire: &mut Wire,
        part: Result<T, (Stage, Error)>,
    ) -> Result<T, (Stage, Error)> {
        let (stage, part) = match part {
            Ok(part) => (Stage::Commit, Ok(part)),
            Err((stage, error)) => (stage, Err(error)),
        };
        wire.finish_after(part)
            .await
            .map_err(|error| (stage, error))
    }

    /// A connection that has ended before it answered anything to what opens a transaction has done
    /// nothing of it.
    fn blame(&self, first: bool, stage: Stage, error: Error) -> (Stage, Error) {
        let gone = error
            .refused()
            .is_none_or(|refusal| refusal.state.code().starts_with("57P"));
        let sent = !matches!(error, Error::Value(_));
        if self.opens && first && gone && sent {
            return (Stage::Begin, error);
        }
        (stage, error)
    }
}

/// Ends a transaction without its changes.
pub(super) async fn roll_back(conn: &mut Conn) -> Result<(), Error> {
    let wire = conn.wire();
    wire.command("rollback")?;
    wire.send().await?;
    wire.finish().await
}

/// Encodes one step after the other.
struct Steps<'a> {
    wire: &'a mut Wire,
    steps: Vec<(Stage, Prepared)>,
}

impl Steps<'_> {
    /// On a connection on which a statement may have done anything, the prepared one may be gone.
    fn commit(&mut self, prepared: &Prepared, tainted: bool) -> Result<(), (Stage, Error)> {
        if !tainted {
            return self.add(Stage::Commit, prepared, &[]);
        }
        let encoded = self.wire.command(COMMIT);
        encoded.map_err(|error| (Stage::Commit, error))?;
        self.steps.push((Stage::Commit, prepared.clone()));
        Ok(())
    }

    fn add(
        &mut self,
        stage: Stage,
        statement: &Prepared,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<(), (Stage, Error)> {
        let encoded = self.wire.run(statement, params);
        encoded.map_err(|error| (stage, error))?;
        self.steps.push((stage, statement.clone()));
        Ok(())
    }
}
