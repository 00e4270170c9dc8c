//! Whether a proposal is followed without an operator. Pure.
//!
//! A tenant's policies are the global one and those that name it; what each of them bounds is counted by
//! what was done under it. Invariants (property-tested): never more moves within a day, or at once, than
//! any of a tenant's policies allows; none out of its hours; a tenant that was moved is left alone for
//! its quiet time, whoever moved it, so two tiers never take turns; what was refused or has failed is not
//! tried again within a day, unless other criteria, or another place, speak for it.

use std::collections::HashMap;

use time::{Duration, OffsetDateTime};
use waangu_kernel::{CellId, RegionId, TenantId};
use waangu_registry::{Act, Acted, AdviceOf, AdviceState, Cell, Phase, Policy, Scope};

pub(crate) mod doer;

/// What holds if nothing is declared.
pub(crate) const DEFAULT: Policy = Policy {
    scope: Scope::Global,
    act: Act::Propose,
    from_hour: 0,
    until_hour: 0,
    most_per_day: 4,
    most_at_once: 1,
    quiet_hours: 168,
};

/// How long a bound of moves looks back, and how long what failed is not tried again.
pub(crate) const DAY: Duration = Duration::DAY;

/// Evidence is as old as this at most: rounds come every hour, and one may fail.
const FRESH: Duration = Duration::hours(3);

/// All that is decided by.
#[derive(Debug)]
pub(crate) struct Facts {
    /// The global one is first.
    policies: Vec<Policy>,
    /// What was done within a day, or is under way, the newest first.
    acts: Vec<Acted>,
    /// When each tenant was last moved; none: it is on its way.
    moves: HashMap<TenantId, Option<OffsetDateTime>>,
    /// Where cells are.
    regions: HashMap<CellId, RegionId>,
}

impl Facts {
    pub(crate) fn new(
        mut policies: Vec<Policy>,
        acts: Vec<Acted>,
        moves: impl IntoIterator<Item = (TenantId, Option<OffsetDateTime>)>,
        cells: Vec<Cell>,
    ) -> Self {
        if !policies.iter().any(|policy| policy.scope == Scope::Global) {
            policies.insert(0, DEFAULT);
        }
        Self {
            policies,
            acts,
            moves: moves.into_iter().collect(),
            regions: cells
                .into_iter()
                .map(|cell| (cell.id, cell.region))
                .collect(),
        }
    }

    /// The policies that hold, the global one first.
    pub(crate) fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// The global policy.
    pub(crate) fn global(&self) -> &Policy {
        self.policies.first().unwrap_or(&DEFAULT)
    }

    /// The global policy, and those that name a tenant.
    fn concerned(&self, given: &AdviceOf) -> Vec<&Policy> {
        let cells: Vec<&CellId> = [Some(&given.cell), given.advice.cell.as_ref()]
            .into_iter()
            .flatten()
            .collect();
        let regions = cells.iter().filter_map(|cell| self.regions.get(*cell));
        let regions: Vec<&RegionId> = regions.collect();
        let named = |policy: &&Policy| match &policy.scope {
            Scope::Global => true,
            Scope::Region(id) => regions.contains(&id),
            Scope::Cell(id) => cells.contains(&id),
            Scope::Profile(id) => given.profile.as_ref() == Some(id),
        };
        self.policies.iter().filter(named).collect()
    }

    /// Why a proposal is not followed now; else the policies under which it is.
    pub(crate) fn decide(
        &self,
        given: &AdviceOf,
        now: OffsetDateTime,
    ) -> Result<Vec<Scope>, String> {
        let policies = self.concerned(given);
        may_move(&policies)?;
        ripe(given, now)?;
        let moved = self.moves.get(&given.advice.tenant);
        for policy in &policies {
            in_hours(policy, now)?;
            left_alone(policy, moved, now)?;
        }
        self.not_just_failed(given, now)?;
        for policy in &policies {
            self.within_bounds(policy, now)?;
        }
        Ok(policies.iter().map(|policy| policy.scope.clone()).collect())
    }

    fn not_just_failed(&self, given: &AdviceOf, now: OffsetDateTime) -> Result<(), String> {
        let advice = &given.advice;
        let failed = |act: &&Acted| {
            act.tenant == advice.tenant
                && now - act.at < DAY
                && act
                    .relocation
                    .is_none_or(|(_, phase)| phase == Phase::Failed)
        };
        let same = |act: &&Acted| {
            act.tier == advice.tier
                && Some(&act.cell) == advice.cell.as_ref()
                && act.criteria == advice.criteria
        };
        match self.acts.iter().filter(failed).find(same) {
            Some(act) => Err(format!(
                "tried at {}: {}; again a day later, or for other reasons",
                act.at,
                act.error.as_deref().unwrap_or("it failed")
            )),
            None => Ok(()),
        }
    }

    fn within_bounds(&self, policy: &Policy, now: OffsetDateTime) -> Result<(), String> {
        let under = |act: &&Acted| act.policies.contains(&policy.scope);
        let (mut today, mut open) = (0, 0);
        for act in self.acts.iter().filter(under) {
            if let Some((_, phase)) = act.relocation {
                today += i32::from(now - act.at < DAY);
                open += i32::from(!phase.is_over());
            }
        }
        let full = |count: i32, most: i32, what: &str| {
            let scope = &policy.scope;
            (count >= most).then(|| format!("policy {scope}: {count} of {most} moves {what}"))
        };
        let full = full(open, policy.most_at_once, "at once")
            .or_else(|| full(today, policy.most_per_day, "within a day"));
        full.map_or(Ok(()), Err)
    }
}

/// Whether what names the tenant says that it is moved; the global policy, if nothing else does.
fn may_move(policies: &[&Policy]) -> Result<(), String> {
    let named = |policy: &&&Policy| policy.scope != Scope::Global;
    let special = policies.iter().any(|policy| named(&policy));
    let decides = |policy: &&&Policy| !special || named(policy);
    let no = policies
        .iter()
        .filter(decides)
        .find(|policy| policy.act == Act::Propose);
    match no {
        Some(policy) => Err(format!("policy {} only proposes", policy.scope)),
        None => Ok(()),
    }
}

/// Whether it stands, on fresh evidence, for a place that somebody has.
fn ripe(given: &AdviceOf, now: OffsetDateTime) -> Result<(), String> {
    let advice = &given.advice;
    let Some(cell) = &advice.cell else {
        return Err("no cell would take it".to_owned());
    };
    if advice.state != AdviceState::Open {
        return Err(format!("it is {}", advice.state.as_str()));
    }
    if (advice.tier, cell) == (given.tier, &given.cell) || advice.tier < given.tier {
        return Err("it is there".to_owned());
    }
    if now - advice.seen_at > FRESH {
        return Err(format!("it was last looked at {}", advice.seen_at));
    }
    Ok(())
}

fn in_hours(policy: &Policy, now: OffsetDateTime) -> Result<(), String> {
    let (from, until, hour) = (policy.from_hour, policy.until_hour, i32::from(now.hour()));
    let inside = match from.cmp(&until) {
        std::cmp::Ordering::Equal => true,
        std::cmp::Ordering::Less => (from..until).contains(&hour),
        std::cmp::Ordering::Greater => hour >= from || hour < until,
    };
    if inside {
        return Ok(());
    }
    Err(format!(
        "policy {}: moves begin from {from} to {until} h UTC",
        policy.scope
    ))
}

fn left_alone(
    policy: &Policy,
    moved: Option<&Option<OffsetDateTime>>,
    now: OffsetDateTime,
) -> Result<(), String> {
    match moved {
        Some(None) => Err("it is on its way".to_owned()),
        Some(Some(at)) if now - *at < Duration::hours(i64::from(policy.quiet_hours)) => {
            Err(format!(
                "policy {}: its last move ended at {at}, {} h it is left alone",
                policy.scope, policy.quiet_hours
            ))
        }
        Some(Some(_)) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
