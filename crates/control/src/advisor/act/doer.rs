//! Follows proposals where the policy says so: writes the same wish that an operator would.
//!
//! Invariants: one process acts at a time, and decides and writes in one transaction, so no bound is
//! passed by two; a move is asked for as `tenant move` does, with the same checks and refusals; what was
//! asked for, or refused, is written down with its evidence.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use waangu_kernel::{CellId, Fault, RelocationId, TenantId};
use waangu_registry::{Act, AdviceOf, AdviceState, NewAct, Scope, Tenant, Tx};

use super::{DAY, Facts};
use crate::admin::Wish;
use crate::server::App;

/// Who wants these moves.
const ACTOR: &str = "advisor";

/// How often is looked whether there is something to do.
const POLL: Duration = Duration::from_secs(5);

/// Pause after a failure.
const CALM: Duration = Duration::from_mins(1);

/// Proposals that are looked at.
const MOST: i64 = 10_000;

/// Runs until `stop`.
pub(crate) async fn run(app: Arc<App>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let pause = match stop.run_until_cancelled(turn(&app)).await {
            Some(Ok(true)) => continue,
            Some(Ok(false)) | None => POLL,
            Some(Err(fault)) => {
                tracing::warn!(cause = fault.operator_cause(), "advisor, acting: {fault}");
                CALM
            }
        };
        let _stopped = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}

/// Follows one proposal, if one is to be followed; says whether there was one.
async fn turn(app: &App) -> Result<bool, Fault> {
    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    let policies = tx.list_policies().await?;
    let idle = policies.iter().all(|policy| policy.act == Act::Propose);
    if idle || !tx.try_hold_acting().await? {
        return Ok(false);
    }
    let now = app.clock.now();
    let given = tx.list_advice(None, MOST).await?;
    let facts = facts(&tx, &given, now).await?;
    let Some((given, policies)) = next(&facts, given, now) else {
        return Ok(false);
    };
    let tenant = tx.lock_tenant(&given.slug).await?;
    if (tenant.placement.tier, &tenant.placement.cell) != (given.tier, &given.cell) {
        // It has just moved: what we read is of before.
        return Ok(true);
    }
    let outcome = follow(app, &tx, &tenant, &given).await?;
    tx.record_act(&NewAct {
        at: now,
        tenant: tenant.id,
        tier: given.advice.tier,
        cell: given.advice.cell.as_ref().unwrap_or(&given.cell),
        criteria: &given.advice.criteria,
        policies: &policies,
        outcome: outcome.clone(),
    })
    .await?;
    record(&tx, &tenant, &given, &policies, &outcome).await?;
    tx.commit().await?;
    app.reconciler.moves.notify_one();
    Ok(true)
}

/// What decides about these proposals.
pub(crate) async fn facts(
    tx: &Tx<'_>,
    given: &[AdviceOf],
    now: OffsetDateTime,
) -> Result<Facts, Fault> {
    let tenants: Vec<TenantId> = given.iter().map(|given| given.advice.tenant).collect();
    Ok(Facts::new(
        tx.list_policies().await?,
        tx.list_acts(now - DAY).await?,
        tx.list_last_moves(&tenants).await?,
        tx.list_cells().await?,
    ))
}

/// The proposal whose turn it is: of each tenant the strongest tier; rules before figures, then who has
/// waited longest.
fn next(
    facts: &Facts,
    given: Vec<AdviceOf>,
    now: OffsetDateTime,
) -> Option<(AdviceOf, Vec<Scope>)> {
    let mut strongest: Vec<AdviceOf> = given
        .into_iter()
        .filter(|given| given.advice.state != AdviceState::Rising)
        .collect();
    strongest.dedup_by_key(|given| given.advice.tenant);
    strongest.sort_by_key(|given| (given.advice.measured, given.advice.since));
    strongest
        .into_iter()
        .find_map(|given| Some((facts.decide(&given, now).ok()?, given)))
        .map(|(policies, given)| (given, policies))
}

/// Wants the move, or says why it is refused.
async fn follow(
    app: &App,
    tx: &Tx<'_>,
    tenant: &Tenant,
    given: &AdviceOf,
) -> Result<Result<RelocationId, String>, Fault> {
    let advice = &given.advice;
    let cell: Option<CellId> = advice.cell.clone();
    let why = format!(
        "{}: {}",
        advice.criteria.join(", "),
        advice.evidence.join("; ")
    );
    let wish = Wish::to(advice.tier, cell, why);
    match wish.choose(app, tx, tenant, ACTOR).await {
        Ok(mut new) => {
            new.reasons.extend(advice.evidence.iter().cloned());
            Ok(Ok(tx.create_relocation(&new).await?))
        }
        Err(refused) if refused.status() < 500 => Ok(Err(refused.to_string())),
        Err(broken) => Err(broken),
    }
}

async fn record(
    tx: &Tx<'_>,
    tenant: &Tenant,
    given: &AdviceOf,
    policies: &[Scope],
    outcome: &Result<RelocationId, String>,
) -> Result<(), Fault> {
    let advice = &given.advice;
    let policies: Vec<String> = policies.iter().map(Scope::to_string).collect();
    let (slug, tier) = (&tenant.slug, advice.tier);
    let action = match outcome {
        Ok(id) => {
            tracing::info!(tenant = %slug, relocation = %id, "advisor moves `{slug}` to tier {tier}");
            "tenant.move"
        }
        Err(why) => {
            tracing::warn!(tenant = %slug, "advisor can't move `{slug}` to tier {tier}: {why}");
            "advice.refused"
        }
    };
    let detail = json!({
        "relocation": outcome.as_ref().ok(),
        "refused": outcome.as_ref().err(),
        "tier": tier,
        "cell": advice.cell,
        "criteria": advice.criteria,
        "evidence": advice.evidence,
        "policies": policies,
    });
    tx.record_audit(ACTOR, action, Some((tenant.id, slug)), &detail)
        .await
}
