//! Authority over a subtree: a head office reads itself and all tenants below it, wherever they live.
//!
//! Invariants:
//! - it is a type of its own, which has no way to write; PostgreSQL would refuse it besides;
//! - one transaction for each place, a few at a time, each with its own deadline and all with one;
//! - who can't answer is named in the result, never silently missing; nobody is counted twice.
//!
//! Left out: residency rules that let only sums cross a border.

use std::marker::PhantomData;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use serde::Serialize;
use tokio::time::Instant;
use waangu_identity::RequestContext;
use waangu_identity::proof::Access;
use waangu_kernel::fault::{self, Blame};
use waangu_kernel::{Fault, Slug, UserId};
use waangu_tenancy::{Answer, TreeTx, Visit};

use crate::authorized::{authorise, context_of};
use crate::json::Refusal;
use crate::{Flags, Host, Permit};

/// Transactions that one request has at once.
const WIDTH: usize = 8;

/// Time that one place has.
const VISIT_TIME: Duration = Duration::from_secs(5);

/// Time that all places have together; shorter than the gateway's, so that the answer arrives.
const TREE_TIME: Duration = Duration::from_secs(20);

/// Attempts at a place where a tenant leaves half way.
const ATTEMPTS: u8 = 2;

/// Proof that the caller may do `P` in a tenant and all below it. `P`'s routes have the scope
/// `subtree` in the manifest.
#[derive(Debug)]
pub struct AuthorizedTree<P> {
    host: Host,
    context: RequestContext,
    deadline: Instant,
    permit: PhantomData<P>,
}

/// What came back from all places.
#[derive(Debug)]
pub struct Harvest<T> {
    /// One answer for each place that gave one, in no order that means anything.
    pub answers: Vec<T>,
    /// How many tenants are in them.
    pub tenants: usize,
    /// Who is not in them; `None` when nobody is missing. Tell it to the client.
    pub partial: Option<Partial>,
}

/// Who is missing in an answer over a subtree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Partial {
    /// Who, and why.
    pub failed: Vec<Missing>,
}

/// Tenants that could not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Their slugs.
    pub tenants: Vec<Slug>,
    /// The code of the error, as in the error pages.
    pub why: &'static str,
}

/// How one visit ended.
struct Visited<T> {
    answer: Option<T>,
    tenants: usize,
    missing: Vec<Slug>,
}

impl<P: Permit> AuthorizedTree<P> {
    /// The head office's own flags and limits of this module.
    pub fn flags(&self) -> Flags<'_> {
        Flags::new(&self.host.declared, &self.context.flags)
    }

    /// Asks at every place. `ask` runs once for each, several at a time, in a transaction that sees
    /// the rows of all tenants there, and ends it with [`TreeTx::answer`]; the caller adds up. It is
    /// not run where none of the tenants is, and anew where one has left half way.
    ///
    /// # Errors
    /// The client's own mistakes that `ask` refuses; and the first failure, if no place answers.
    pub async fn fan_out<T, F, A>(&self, ask: F) -> Result<Harvest<T>, Fault>
    where
        T: Send,
        F: Fn(TreeTx) -> A + Send + Sync,
        A: Future<Output = Result<Answer<T>, Fault>> + Send,
    {
        let mut harvest = Harvest {
            answers: Vec::new(),
            tenants: 0,
            partial: None,
        };
        let mut failure = None;
        let mut running: FuturesUnordered<BoxFuture<'_, _>> = FuturesUnordered::new();
        let mut visits = Visit::all(&self.context).into_iter();
        loop {
            while running.len() < WIDTH
                && let Some(visit) = visits.next()
            {
                running.push(Box::pin(self.visit(visit, &ask)));
            }
            match running.next().await {
                Some((_, Ok(visited))) => harvest.add(visited),
                // The same everywhere, and the client's to mend.
                Some((_, Err(fault))) if is_clients(&fault) => return Err(fault),
                Some((visit, Err(fault))) => {
                    tracing::warn!(
                        code = fault.code(),
                        cause = fault.operator_cause(),
                        tenants = visit.tenants().len(),
                        "a place of a subtree did not answer: {fault}"
                    );
                    let slugs = visit.tenants().iter().map(|(_, slug)| slug.clone());
                    harvest.miss(slugs.collect(), fault.code());
                    failure = failure.or(Some(fault));
                }
                None => break,
            }
        }
        match failure {
            Some(fault) if harvest.answers.is_empty() => Err(fault),
            _ => Ok(harvest),
        }
    }

    /// Who acts.
    pub fn actor(&self) -> UserId {
        self.context.actor
    }

    /// The slug of the tenant at the top, for messages.
    pub fn tenant(&self) -> &Slug {
        &self.context.slug
    }

    async fn visit<T, F, A>(&self, visit: Visit, ask: &F) -> (Visit, Result<Visited<T>, Fault>)
    where
        F: Fn(TreeTx) -> A,
        A: Future<Output = Result<Answer<T>, Fault>>,
    {
        let deadline = self.deadline.min(Instant::now() + VISIT_TIME);
        let mut attempt = 1;
        let outcome = loop {
            let outcome = tokio::time::timeout_at(deadline, self.once(&visit, ask, deadline)).await;
            match outcome {
                Ok(Err(fault))
                    if fault.code() == fault::TENANT_MOVING.code && attempt < ATTEMPTS =>
                {
                    attempt += 1;
                }
                Ok(outcome) => break outcome,
                Err(_elapsed) => {
                    break Err(fault::DATABASE_UNAVAILABLE
                        .fault("a place of the subtree did not answer in time"));
                }
            }
        };
        (visit, outcome)
    }

    async fn once<T, F, A>(
        &self,
        visit: &Visit,
        ask: &F,
        deadline: Instant,
    ) -> Result<Visited<T>, Fault>
    where
        F: Fn(TreeTx) -> A,
        A: Future<Output = Result<Answer<T>, Fault>>,
    {
        let tx = TreeTx::begin(&self.host.tree_pools, visit, deadline).await?;
        let (tenants, missing) = (tx.here(), tx.missing().to_vec());
        let answer = if tenants == 0 {
            tx.answer(None).await?.into_inner()
        } else {
            Some(ask(tx).await?.into_inner())
        };
        Ok(Visited {
            answer,
            tenants,
            missing,
        })
    }
}

impl<T> Harvest<T> {
    fn add(&mut self, visited: Visited<T>) {
        self.answers.extend(visited.answer);
        self.tenants = self.tenants.saturating_add(visited.tenants);
        if !visited.missing.is_empty() {
            self.miss(visited.missing, fault::TENANT_MOVING.code);
        }
    }

    fn miss(&mut self, tenants: Vec<Slug>, why: &'static str) {
        let partial = self.partial.get_or_insert(Partial { failed: Vec::new() });
        match partial.failed.iter_mut().find(|missing| missing.why == why) {
            Some(missing) => missing.tenants.extend(tenants),
            None => partial.failed.push(Missing { tenants, why }),
        }
    }
}

impl<P: Permit> FromRequestParts<Host> for AuthorizedTree<P> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, host: &Host) -> Result<Self, Refusal> {
        let context = context_of(parts, host)?;
        authorise::<P>(&context, context.access == Access::Tree)?;
        Ok(Self {
            host: host.clone(),
            context,
            deadline: Instant::now() + TREE_TIME,
            permit: PhantomData,
        })
    }
}

/// Whether the client has to mend it. A refused context has a client's code, but is about one cell,
/// whose keys may be out of step.
fn is_clients(fault: &Fault) -> bool {
    fault.def().blame == Blame::Client && fault.code() != fault::CONTEXT_REFUSED.code
}
