//! A head office's reading transaction at one place of its subtree.
//!
//! Invariants:
//! - it runs with the login that reads subtrees, which PostgreSQL gives no right to write and no proof
//!   but the gateway's for this very head office;
//! - it sees the tenants that it was sent for and no others: one that has moved in meanwhile is
//!   counted at the place that the gateway knows, or missed there by name, never twice;
//! - what was read becomes an [`Answer`] only by [`TreeTx::answer`], which looks whether the tenants
//!   that were there at the beginning still are.
//!
//! Left out: visiting several places, and what their answers add up to (`waangu_sdk`).

use tokio::time::Instant;
use tokio_postgres::types::ToSql;
use waangu_identity::RequestContext;
use waangu_kernel::placement::Place;
use waangu_kernel::{Fault, Slug, TenantId, Tier, fault};

use crate::pools::Pools;
use crate::tx::TenantTx;
use crate::wire::Row;

const VISIT: &str = "select waangu.visit($1)";
const STILL: &str = "select waangu.subtree()";

/// One transaction of a request's way through its subtree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    context: RequestContext,
    tenants: Vec<(TenantId, Slug)>,
}

impl Visit {
    /// All that a request has to make: one for tenants that share tables, else one for each tenant.
    pub fn all(context: &RequestContext) -> Vec<Self> {
        let visit = |place: &Place, at: TenantId, tenants: &[(TenantId, Slug)]| Self {
            context: context.at(place, at),
            tenants: tenants.to_vec(),
        };
        context
            .places
            .iter()
            .flat_map(|place| match place.tier {
                Tier::Shared => vec![visit(place, context.tenant, &place.tenants)],
                Tier::Schema | Tier::Dedicated => place
                    .tenants
                    .iter()
                    .map(|tenant| visit(place, tenant.0, std::slice::from_ref(tenant)))
                    .collect(),
            })
            .collect()
    }

    /// Whom it is made for.
    pub fn tenants(&self) -> &[(TenantId, Slug)] {
        &self.tenants
    }
}

/// A transaction that reads the rows of several tenants, and writes nothing.
#[derive(Debug)]
pub struct TreeTx {
    tx: TenantTx,
    tenants: Vec<(TenantId, Slug)>,
    here: Vec<i64>,
    missing: Vec<Slug>,
}

/// What was read in a transaction that has ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T>(T);

impl<T> Answer<T> {
    /// What it is.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl TreeTx {
    /// Begins it; all of it must be done by `deadline`.
    ///
    /// # Errors
    /// As [`TenantTx::begin`].
    pub async fn begin(pools: &Pools, visit: &Visit, deadline: Instant) -> Result<Self, Fault> {
        let mut tx = TenantTx::lazy(pools, &visit.context, deadline);
        let wanted: Vec<i64> = visit.tenants.iter().map(|(id, _)| id.number()).collect();
        let rows = tx.query(VISIT, &[&wanted]).await?;
        let here = numbers(&rows)?;
        let missing = visit
            .tenants
            .iter()
            .filter(|(id, _)| !here.contains(&id.number()))
            .map(|(_, slug)| slug.clone())
            .collect();
        Ok(Self {
            tx,
            tenants: visit.tenants.clone(),
            here,
            missing,
        })
    }

    /// How many tenants are here.
    pub fn here(&self) -> usize {
        self.here.len()
    }

    /// The slug of the tenant whose number a row has.
    ///
    /// # Errors
    /// `internal` when it is not a tenant of this visit.
    pub fn slug(&self, tenant_id: i64) -> Result<&Slug, Fault> {
        let found = self.tenants.iter().find(|(id, _)| id.number() == tenant_id);
        found.map(|(_, slug)| slug).ok_or_else(|| {
            fault::INTERNAL.fault("a row belongs to a tenant that was not asked for")
        })
    }

    /// Who should be here and is not: closed, on its way to another place, or not below the head
    /// office any more.
    pub fn missing(&self) -> &[Slug] {
        &self.missing
    }

    /// Runs a query; its rows are those of the tenants here. Join tables by `tenant_id` too.
    ///
    /// # Errors
    /// As [`TenantTx::query`].
    pub async fn query(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Fault> {
        self.tx.query(sql, params).await
    }

    /// Ends it, with what was read.
    ///
    /// # Errors
    /// `tenant-moving` when a tenant has left since the beginning: its rows may be in one result and
    /// not in the next; else as [`TenantTx::commit`].
    pub async fn answer<T>(self, value: T) -> Result<Answer<T>, Fault> {
        let rows = self.tx.query_and_commit(STILL, &[]).await?;
        if numbers(&rows)? == self.here {
            return Ok(Answer(value));
        }
        Err(fault::TENANT_MOVING.fault("a tenant of the subtree has left while it was read"))
    }
}

fn numbers(rows: &[Row]) -> Result<Vec<i64>, Fault> {
    let unsaid = fault::INTERNAL.fault("the database did not say which tenants are here");
    match rows {
        [row] => row.try_get(0).map_err(|error| unsaid.cause(error)),
        _ => Err(unsaid),
    }
}
