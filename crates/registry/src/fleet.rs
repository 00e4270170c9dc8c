//! The fleet at a glance: how many tenants are where and how they fare. Numbers, not lists, so that it
//! costs about the same for ten tenants and for ten thousand.

use time::OffsetDateTime;
use waangu_kernel::{CellId, Fault, Slug, Tier};

use crate::db::{Tx, column, parsed};
use crate::tenants::State;

/// How many tenants of a cell and tier are in one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantCount {
    /// The cell.
    pub cell: CellId,
    /// The tier.
    pub tier: Tier,
    /// The state.
    pub state: State,
    /// How many.
    pub tenants: i64,
}

/// A tenant that could not be brought to what is wanted, so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailingTenant {
    /// The tenant.
    pub tenant: Slug,
    /// Its cell.
    pub cell: CellId,
    /// Failed attempts.
    pub attempts: i32,
    /// The last failure.
    pub error: String,
}

/// Tenants that are not yet what is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many.
    pub tenants: i64,
    /// Since when somebody has been waiting for the oldest.
    pub since: Option<OffsetDateTime>,
}

impl Tx<'_> {
    /// Live tenants by cell, tier and state.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn count_tenants(&self) -> Result<Vec<TenantCount>, Fault> {
        let sql = "select cell, tier, state, count(*) as tenants
                     from registry.tenant
                    where state <> 'deleted'
                    group by cell, tier, state
                    order by cell, tier, state";
        let rows = self.rows(sql, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(TenantCount {
                    cell: parsed(row, "cell")?,
                    tier: parsed(row, "tier")?,
                    state: parsed(row, "state")?,
                    tenants: column(row, "tenants")?,
                })
            })
            .collect()
    }

    /// Tenants that are behind their generation.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn measure_backlog(&self) -> Result<Backlog, Fault> {
        let sql = "select (select count(*) from registry.tenant
                            where generation > observed_generation) as tenants
                        , (select min(created_at) from registry.operation
                            where status in ('pending', 'running')) as since";
        let row = self.one(sql, &[]).await?;
        Ok(Backlog {
            tenants: column(&row, "tenants")?,
            since: column(&row, "since")?,
        })
    }

    /// Tenants whose last attempt failed, those with most attempts first.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_failing_tenants(&self, limit: i64) -> Result<Vec<FailingTenant>, Fault> {
        let sql = "select slug, cell, attempts, last_error
                     from registry.tenant
                    where generation > observed_generation and last_error is not null
                    order by attempts desc, id
                    limit $1";
        let rows = self.rows(sql, &[&limit]).await?;
        rows.iter()
            .map(|row| {
                Ok(FailingTenant {
                    tenant: parsed(row, "slug")?,
                    cell: parsed(row, "cell")?,
                    attempts: column(row, "attempts")?,
                    error: column(row, "last_error")?,
                })
            })
            .collect()
    }
}
