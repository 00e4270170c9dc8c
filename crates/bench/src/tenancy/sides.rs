//! The three ways to do the same transaction.
//!
//! Invariant: each checks what it got, so that a side that does less is noticed.

use std::time::Duration;

use futures_util::future::{try_join, try_join3};
use tokio::time::Instant;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};
use waangu_identity::RequestContext;
use waangu_identity::proof::Access;
use waangu_kernel::Tier;
use waangu_tenancy::{Pools, TenantTx};

use super::plan::{Call, Planned, Shape, Work};
use super::stage::{BARE, OURS, Stage, TODAY, Told as _, connect, shared};
use crate::failure::{Failure, Of as _};

/// Time that a module gives a transaction; none comes near it.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// A way to do it.
pub(super) enum Side<'a> {
    /// A tenant's transaction from the module's pool, with a proof of its own for each.
    Ours { stage: &'a Stage, pools: Pools },
    /// The same, whose statements leave together.
    Together { stage: &'a Stage, pools: Pools },
    /// One connection, prepared; BEGIN leaves with the first statement, COMMIT with the last.
    Bare(Session),
    /// One connection, prepared; BEGIN, set_config, each statement and COMMIT by themselves.
    Today(Session),
}

/// A connection with its prepared statements.
pub(super) struct Session {
    client: Client,
    set: Statement,
    statements: Vec<(Work, Statement)>,
}

/// A batch, made ready: contexts are the gateway's work and not measured here.
pub(super) struct Ready {
    planned: Vec<Planned>,
    contexts: Vec<RequestContext>,
}

impl<'a> Side<'a> {
    pub(super) fn ours(stage: &'a Stage, port: u16) -> Result<Self, Failure> {
        let pools = stage.pools(port)?;
        Ok(Self::Ours { stage, pools })
    }

    pub(super) fn together(stage: &'a Stage, port: u16) -> Result<Self, Failure> {
        let pools = stage.pools(port)?;
        Ok(Self::Together { stage, pools })
    }

    pub(super) async fn bare(port: u16) -> Result<Self, Failure> {
        let client = connect(BARE, &shared()?, port).await?;
        Ok(Self::Bare(Session::prepare(client, Work::bare).await?))
    }

    pub(super) async fn today(port: u16) -> Result<Self, Failure> {
        let client = connect(TODAY, &shared()?, port).await?;
        Ok(Self::Today(Session::prepare(client, Work::today).await?))
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Ours { .. } => "ours",
            Self::Together { .. } => "ours, together",
            Self::Bare(_) => "bare",
            Self::Today(_) => "today's way",
        }
    }

    /// The login of its connections.
    pub(super) fn login(&self) -> &'static str {
        match self {
            Self::Ours { .. } | Self::Together { .. } => OURS,
            Self::Bare(_) => BARE,
            Self::Today(_) => TODAY,
        }
    }

    /// Makes a batch ready.
    pub(super) fn ready(&self, shape: &Shape, planned: Vec<Planned>) -> Result<Ready, Failure> {
        let access = if shape.reads() {
            Access::Read
        } else {
            Access::Write
        };
        let contexts = match self {
            Self::Ours { stage, .. } | Self::Together { stage, .. } => planned
                .iter()
                .map(|one| stage.gateway.context(one.tenant, Tier::Shared, access))
                .collect::<Result<_, _>>()?,
            Self::Bare(_) | Self::Today(_) => Vec::new(),
        };
        Ok(Ready { planned, contexts })
    }

    /// Does a batch, one transaction after the other.
    pub(super) async fn run(&self, batch: &Ready) -> Result<(), Failure> {
        match self {
            Self::Ours { pools, .. } => {
                for (planned, context) in batch.planned.iter().zip(&batch.contexts) {
                    ours(pools, context, planned).await?;
                }
            }
            Self::Together { pools, .. } => {
                for (planned, context) in batch.planned.iter().zip(&batch.contexts) {
                    together(pools, context, planned).await?;
                }
            }
            Self::Bare(session) => {
                for planned in &batch.planned {
                    session.pipelined(planned).await?;
                }
            }
            Self::Today(session) => {
                for planned in &batch.planned {
                    session.one_by_one(planned).await?;
                }
            }
        }
        Ok(())
    }
}

/// As a module does it: a lazy transaction, whose last statement commits.
async fn ours(pools: &Pools, context: &RequestContext, planned: &Planned) -> Result<(), Failure> {
    let mut tx = TenantTx::lazy(pools, context, Instant::now() + DEADLINE);
    let Some((last, before)) = planned.calls.split_last() else {
        return Ok(());
    };
    for call in before {
        let (sql, params) = (call.work.ours(), call.ours());
        let rows = if call.work.reads() {
            tx.query(sql, &params).await.told(sql)?.len()
        } else {
            number(tx.execute(sql, &params).await.told(sql)?)
        };
        check(call, rows)?;
    }
    let (sql, params) = (last.work.ours(), last.ours());
    let rows = if last.work.reads() {
        tx.query_and_commit(sql, &params).await.told(sql)?.len()
    } else {
        number(tx.execute_and_commit(sql, &params).await.told(sql)?)
    };
    check(last, rows)
}

/// As a module does it whose statements don't need each other's answers.
async fn together(
    pools: &Pools,
    context: &RequestContext,
    planned: &Planned,
) -> Result<(), Failure> {
    let tx = TenantTx::lazy(pools, context, Instant::now() + DEADLINE);
    let params: Vec<_> = planned.calls.iter().map(Call::ours).collect();
    let statement = |(call, params)| -> waangu_tenancy::Call<'_> {
        let call: &Call = call;
        let params: &Vec<_> = params;
        (call.work.ours(), params)
    };
    let calls: Vec<_> = planned.calls.iter().zip(&params).map(statement).collect();
    let rows = tx.query_all_and_commit(&calls).await.told("together")?;
    for (call, rows) in planned.calls.iter().zip(rows) {
        // What writes gives no rows here; the primary key has seen to it.
        if call.work.reads() {
            check(call, rows.len())?;
        }
    }
    Ok(())
}

fn number(touched: u64) -> usize {
    usize::try_from(touched).unwrap_or(usize::MAX)
}

fn check(call: &Call, rows: usize) -> Result<(), Failure> {
    if rows == call.rows() {
        return Ok(());
    }
    let Call { work, id, .. } = call;
    Err(Failure::new(format!("{work:?} of row {id}: {rows} rows")))
}

impl Session {
    async fn prepare(client: Client, sql: fn(Work) -> &'static str) -> Result<Self, Failure> {
        let set = client
            .prepare("select set_config('app.current_tenant', $1, true)")
            .await
            .of("prepare")?;
        let mut statements = Vec::new();
        for work in Work::ALL {
            let statement = client.prepare(sql(work)).await.of(sql(work))?;
            statements.push((work, statement));
        }
        Ok(Self {
            client,
            set,
            statements,
        })
    }

    /// All that can leave together does. Between the statements of a longer transaction stands the
    /// module's code, which wants to see an answer before it asks again.
    async fn pipelined(&self, planned: &Planned) -> Result<(), Failure> {
        let (begin, commit) = (self.plain("begin"), self.plain("commit"));
        match planned.calls.as_slice() {
            [] => try_join(begin, commit).await.map(drop),
            [only] => {
                let only = self.explicit(only, &planned.tenant);
                try_join3(begin, only, commit).await.map(drop)
            }
            [first, between @ .., last] => {
                try_join(begin, self.explicit(first, &planned.tenant)).await?;
                for call in between {
                    self.explicit(call, &planned.tenant).await?;
                }
                let last = self.explicit(last, &planned.tenant);
                try_join(last, commit).await.map(drop)
            }
        }
    }

    async fn explicit(&self, call: &Call, tenant: &i64) -> Result<(), Failure> {
        self.statement(call, &call.bare(tenant)).await
    }

    async fn one_by_one(&self, planned: &Planned) -> Result<(), Failure> {
        self.plain("begin").await?;
        let set: [&(dyn ToSql + Sync); 1] = [&planned.tenant.to_string()];
        self.client.query(&self.set, &set).await.of("set_config")?;
        for call in &planned.calls {
            self.statement(call, &call.today(&planned.tenant)).await?;
        }
        self.plain("commit").await
    }

    async fn plain(&self, sql: &str) -> Result<(), Failure> {
        self.client.batch_execute(sql).await.of(sql)
    }

    async fn statement(&self, call: &Call, params: &[&(dyn ToSql + Sync)]) -> Result<(), Failure> {
        let known = self.statements.iter().find(|(work, _)| *work == call.work);
        let Some((_, statement)) = known else {
            return Err(Failure::new(format!("{:?} is not prepared", call.work)));
        };
        let rows = if call.work.reads() {
            self.client.query(statement, params).await.of("read")?.len()
        } else {
            number(self.client.execute(statement, params).await.of("write")?)
        };
        check(call, rows)
    }
}
