//! What may follow from an advice without an operator, and what has.
//!
//! Invariant: an act is written in the transaction that wants its move, under [`Tx::try_hold_acting`],
//! so two control processes can't both use up what is left of a bound.

use std::fmt;
use std::str::FromStr;

use time::OffsetDateTime;
use tokio_postgres::Row;
use uuid::Uuid;
use waangu_kernel::{
    CellId, Fault, ProfileId, RegionId, RelocationId, Slug, TenantId, Tier, fault,
};

use crate::Phase;
use crate::db::{Tx, column, internal, parsed};

/// Whom a policy is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All tenants.
    Global,
    /// Who lives in a region, or would go there.
    Region(RegionId),
    /// Who lives on a cell, or would go there.
    Cell(CellId),
    /// Who has a profile.
    Profile(ProfileId),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("global"),
            Self::Region(id) => write!(f, "region/{id}"),
            Self::Cell(id) => write!(f, "cell/{id}"),
            Self::Profile(id) => write!(f, "profile/{id}"),
        }
    }
}

impl FromStr for Scope {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        match text.split_once('/') {
            None if text == "global" => Ok(Self::Global),
            Some(("region", id)) => Ok(Self::Region(id.parse()?)),
            Some(("cell", id)) => Ok(Self::Cell(id.parse()?)),
            Some(("profile", id)) => Ok(Self::Profile(id.parse()?)),
            _ => Err(fault::INVALID_FIELD.fault(format!(
                "`{}` is not `global`, `region/ID`, `cell/ID` or `profile/ID`",
                fault::excerpt(text)
            ))),
        }
    }
}

/// What follows from a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Nothing, until an operator follows it.
    Propose,
    /// The tenant is moved.
    Move,
}

impl Act {
    /// The name in API and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Propose => "propose",
            Self::Move => "move",
        }
    }
}

impl FromStr for Act {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        [Self::Propose, Self::Move]
            .into_iter()
            .find(|act| act.as_str() == text)
            .ok_or_else(|| {
                let given = fault::excerpt(text);
                fault::INVALID_FIELD.fault(format!("`{given}` is not `propose` or `move`"))
            })
    }
}

/// Whether, when and how often the advisor may move somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whom it is about.
    pub scope: Scope,
    /// What follows from a proposal.
    pub act: Act,
    /// The hour, in UTC, from which on a move may begin.
    pub from_hour: i32,
    /// The hour at which none may begin any more; the same as `from_hour`: at any time.
    pub until_hour: i32,
    /// Moves that begin within 24 hours, at most.
    pub most_per_day: i32,
    /// Moves under way, at most.
    pub most_at_once: i32,
    /// How long a tenant that was moved, by whomever, is left alone.
    pub quiet_hours: i32,
}

/// An advice that was followed, or could not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acted {
    /// When.
    pub at: OffsetDateTime,
    /// Whose.
    pub tenant: TenantId,
    /// Its slug.
    pub slug: Slug,
    /// To which tier.
    pub tier: Tier,
    /// To which cell.
    pub cell: CellId,
    /// By which criteria.
    pub criteria: Vec<String>,
    /// The policies that it counts for.
    pub policies: Vec<Scope>,
    /// The move, and how far it is; none: it was refused.
    pub relocation: Option<(RelocationId, Phase)>,
    /// Why it was refused, or what the move failed of.
    pub error: Option<String>,
}

/// An act to be written down.
#[derive(Debug, Clone)]
pub struct NewAct<'a> {
    /// When.
    pub at: OffsetDateTime,
    /// Whose.
    pub tenant: TenantId,
    /// To which tier.
    pub tier: Tier,
    /// To which cell.
    pub cell: &'a CellId,
    /// By which criteria.
    pub criteria: &'a [String],
    /// The policies that it counts for.
    pub policies: &'a [Scope],
    /// The move, or why there is none.
    pub outcome: Result<RelocationId, String>,
}

impl Tx<'_> {
    /// Lets only this transaction act until it ends; says whether another one is at it.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn try_hold_acting(&self) -> Result<bool, Fault> {
        let row = self
            .one("select pg_try_advisory_xact_lock(-9) as held", &[])
            .await?;
        column(&row, "held")
    }

    /// The policies that were declared, the global one first.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_policies(&self) -> Result<Vec<Policy>, Fault> {
        let sql = "select * from registry.advisor_policy order by scope <> 'global', scope";
        let rows = self.rows(sql, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(Policy {
                    scope: parsed(row, "scope")?,
                    act: parsed(row, "act")?,
                    from_hour: column(row, "from_hour")?,
                    until_hour: column(row, "until_hour")?,
                    most_per_day: column(row, "most_per_day")?,
                    most_at_once: column(row, "most_at_once")?,
                    quiet_hours: column(row, "quiet_hours")?,
                })
            })
            .collect()
    }

    /// Creates or updates a policy.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn put_policy(&self, policy: &Policy) -> Result<(), Fault> {
        let sql = "insert into registry.advisor_policy
                   (scope, act, from_hour, until_hour, most_per_day, most_at_once, quiet_hours)
                   values ($1, $2, $3, $4, $5, $6, $7)
                   on conflict (scope) do update
                   set act = excluded.act
                     , from_hour = excluded.from_hour
                     , until_hour = excluded.until_hour
                     , most_per_day = excluded.most_per_day
                     , most_at_once = excluded.most_at_once
                     , quiet_hours = excluded.quiet_hours";
        self.execute(
            sql,
            &[
                &policy.scope.to_string(),
                &policy.act.as_str(),
                &policy.from_hour,
                &policy.until_hour,
                &policy.most_per_day,
                &policy.most_at_once,
                &policy.quiet_hours,
            ],
        )
        .await
        .map(drop)
    }

    /// What was done since, and whatever is under way; the newest first.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_acts(&self, since: OffsetDateTime) -> Result<Vec<Acted>, Fault> {
        let sql = "select a.*
                        , t.slug
                        , r.phase
                        , coalesce(a.error, r.error) as told
                     from registry.advisor_act a
                     join registry.tenant t on t.id = a.tenant_id
                     left join registry.relocation r on r.id = a.relocation_id
                    where a.at > $1
                       or a.relocation_id in (select id from registry.relocation
                                               where finished_at is null)
                    order by a.id desc";
        let rows = self.rows(sql, &[&since]).await?;
        rows.iter().map(acted_from).collect()
    }

    /// Writes an act down.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn record_act(&self, act: &NewAct<'_>) -> Result<(), Fault> {
        let sql = "insert into registry.advisor_act
                   (at, tenant_id, tier, cell, criteria, policies, relocation_id, error)
                   values ($1, $2, $3, $4, $5, $6, $7, $8)";
        let policies: Vec<String> = act.policies.iter().map(Scope::to_string).collect();
        let move_id = act.outcome.as_ref().ok().map(|id| id.uuid());
        self.execute(
            sql,
            &[
                &act.at,
                &act.tenant.number(),
                &act.tier.as_str(),
                &act.cell.as_str(),
                &act.criteria,
                &policies,
                &move_id,
                &act.outcome.as_ref().err(),
            ],
        )
        .await
        .map(drop)
    }

    /// When each of these tenants, by whomever, was last moved, or its move cancelled; none of the two
    /// if it is on its way.
    ///
    /// # Errors
    /// `database-unavailable`.
    pub async fn list_last_moves(
        &self,
        tenants: &[TenantId],
    ) -> Result<Vec<(TenantId, Option<OffsetDateTime>)>, Fault> {
        let sql = "select distinct on (tenant_id) tenant_id, finished_at
                     from registry.relocation
                    where tenant_id = any ($1) and phase <> 'failed'
                    order by tenant_id, created_at desc, id desc";
        let numbers: Vec<i64> = tenants.iter().map(|tenant| tenant.number()).collect();
        let rows = self.rows(sql, &[&numbers]).await?;
        rows.iter()
            .map(|row| {
                let tenant = TenantId::new(column(row, "tenant_id")?)?;
                Ok((tenant, column(row, "finished_at")?))
            })
            .collect()
    }
}

fn acted_from(row: &Row) -> Result<Acted, Fault> {
    let policies: Vec<String> = column(row, "policies")?;
    let move_id: Option<Uuid> = column(row, "relocation_id")?;
    let relocation = match move_id {
        Some(id) => {
            let phase: Option<&str> = column(row, "phase")?;
            let phase = phase.ok_or_else(|| internal(format!("an act names no move: {id}")))?;
            Some((RelocationId::from_uuid(id), phase.parse()?))
        }
        None => None,
    };
    Ok(Acted {
        at: column(row, "at")?,
        tenant: TenantId::new(column(row, "tenant_id")?)?,
        slug: parsed(row, "slug")?,
        tier: parsed(row, "tier")?,
        cell: parsed(row, "cell")?,
        criteria: column(row, "criteria")?,
        policies: policies
            .iter()
            .map(|scope| scope.parse())
            .collect::<Result<_, _>>()?,
        relocation,
        error: column(row, "told")?,
    })
}
