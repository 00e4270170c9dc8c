//! `/advisor` and `/tenants/{slug}/advice`: where tenants would be better off, and what that is seen by.
//!
//! Invariant: a handler shows what the last round has found, or asks for another; it measures nothing.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use time::OffsetDateTime;
use waangu_api::Problem;
use waangu_api::advisor::{
    ActView, AdviceView, AdvisorCost, AdvisorRoundView, AdvisorView, FigureView, TenantAdvice,
};
use waangu_registry::{Acted, AdviceOf, AdviceState, AdvisorRound, Phase, Subject};

use super::call::{Begun, Call, Change, reply, send};
use super::tenants;
use crate::advisor::act::{self, doer};
use crate::advisor::judge::figures;
use crate::advisor::{Known, cost, thresholds};
use crate::reply::{Path, Refusal};
use crate::server::App;
use crate::world::{policy_spec, threshold_spec};

/// Most rows of advice that one answer is made of.
const MOST: i64 = 1_000;

/// How far back acts are shown, and how many.
const ACTS: (time::Duration, usize) = (time::Duration::days(31), 20);

/// What the advisor proposes, by what bounds, and what its last look cost.
#[utoipa::path(get, path = "/advisor", operation_id = "advisor.get", tag = "advisor",
    responses((status = 200, body = AdvisorView), (status = "default", body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    _call: Call,
) -> Result<Json<AdvisorView>, Refusal> {
    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    let given = tx.list_advice(None, MOST).await?;
    let more = i64::try_from(given.len()).is_ok_and(|count| count == MOST);
    let now = app.clock.now();
    let facts = doer::facts(&tx, &given, now).await?;
    let acts = tx.list_acts(now - ACTS.0).await?;
    let mut seen = HashSet::new();
    let items = given
        .into_iter()
        .filter(|given| given.advice.state != AdviceState::Rising)
        .filter(|given| seen.insert(given.advice.tenant))
        .map(|given| view(given, &facts, now));
    Ok(Json(AdvisorView {
        policy: facts.global().act.as_str().to_owned(),
        policies: facts.policies().iter().map(policy_spec).collect(),
        items: items.collect(),
        more,
        thresholds: thresholds(&tx)
            .await?
            .into_iter()
            .map(threshold_spec)
            .collect(),
        round: tx.get_advisor_round().await?.map(round),
        acts: acts.into_iter().take(ACTS.1).map(acted).collect(),
    }))
}

/// Asks for a look at all tenants now; one that is asked for already is joined. It is over when
/// `GET /advisor` shows it finished.
#[utoipa::path(post, path = "/advisor/rounds", operation_id = "advisor.look", tag = "advisor",
    responses((status = 202, body = AdvisorRoundView, headers(("Location" = String))),
              (status = "default", body = Problem)))]
pub(super) async fn look(State(app): State<Arc<App>>, call: Call) -> Result<Response, Refusal> {
    let mut session = app.registry.session().await?;
    let stored = match Change::begin(&mut session, &call, &[]).await? {
        Begun::Done(stored) => stored,
        Begun::Fresh(change) => {
            let wanted = change.tx.want_advisor_round(&call.actor).await?;
            let detail = json!({ "round": wanted.id });
            let location = Some("/admin/v1/advisor".to_owned());
            let answer = reply(StatusCode::ACCEPTED, location, &round(wanted))?;
            change
                .commit_global("advisor.look", &detail, answer)
                .await?
        }
    };
    app.advisor.asked.notify_one();
    Ok(send(stored))
}

/// What a tenant uses, beside the bounds of the tiers above its own, and what follows from it.
#[utoipa::path(get, path = "/tenants/{slug}/advice", operation_id = "tenants.advice", tag = "advisor",
    params(("slug" = String, Path)),
    responses((status = 200, body = TenantAdvice), (status = "default", body = Problem)))]
pub(super) async fn tenant(
    State(app): State<Arc<App>>,
    _call: Call,
    Path(slug): Path<String>,
) -> Result<Json<TenantAdvice>, Refusal> {
    let slug = tenants::parse(&slug)?;
    let mut session = app.registry.session().await?;
    let tx = session.begin().await?;
    let tenant = tx.get_tenant(&slug).await?;
    let now = app.clock.now();
    let known = Known::read(&tx, now, Some(tenant.id)).await?;
    let subject = tx.list_subjects(Some(tenant.id), 0, 1).await?.pop();
    let advice = tx.list_advice(Some(tenant.id), MOST).await?;
    let facts = doer::facts(&tx, &advice, now).await?;
    Ok(Json(TenantAdvice {
        tenant: slug.to_string(),
        tier: tenant.placement.tier.to_string(),
        cell: tenant.placement.cell.to_string(),
        measured_at: subject
            .as_ref()
            .and_then(|it| it.volume)
            .map(|it| it.measured_at),
        figures: subject.map(|it| bounds(&known, &it)).unwrap_or_default(),
        items: advice
            .into_iter()
            .map(|given| view(given, &facts, now))
            .collect(),
    }))
}

fn bounds(known: &Known, subject: &Subject) -> Vec<FigureView> {
    let gauges = known.gauges(subject.id).into_iter();
    gauges
        .filter(|(threshold, _)| threshold.tier > subject.tier)
        .flat_map(|gauge| {
            let tier = gauge.0.tier;
            figures(subject, &gauge)
                .into_iter()
                .map(move |figure| FigureView {
                    tier: tier.to_string(),
                    name: figure.name.to_owned(),
                    value: figure.value,
                    bound: figure.bound,
                })
        })
        .collect()
}

fn acted(act: Acted) -> ActView {
    ActView {
        at: act.at,
        tenant: act.slug.to_string(),
        tier: act.tier.to_string(),
        cell: act.cell.into(),
        criteria: act.criteria,
        policies: act.policies.iter().map(ToString::to_string).collect(),
        outcome: act
            .relocation
            .map_or("refused", |(_, phase): (_, Phase)| phase.as_str())
            .to_owned(),
        relocation: act.relocation.map(|(id, _)| id.to_string()),
        error: act.error,
    }
}

fn view(given: AdviceOf, facts: &act::Facts, now: OffsetDateTime) -> AdviceView {
    let held = facts.decide(&given, now).err();
    let AdviceOf {
        slug,
        tier,
        cell,
        advice,
        profile: _,
    } = given;
    AdviceView {
        tenant: slug.to_string(),
        tier_now: tier.to_string(),
        cell_now: cell.to_string(),
        tier: advice.tier.to_string(),
        cell: advice.cell.map(Into::into),
        state: advice.state.as_str().to_owned(),
        since: advice.since,
        criteria: advice.criteria,
        evidence: advice.evidence,
        reasons: advice.reasons,
        seen_at: advice.seen_at,
        held,
    }
}

fn round(round: AdvisorRound) -> AdvisorRoundView {
    let of = |key| cost(&round, key);
    AdvisorRoundView {
        cost: AdvisorCost {
            cells: of("cells"),
            tenants: of("tenants"),
            queries: of("queries"),
            pages: of("pages"),
            ms: of("ms"),
        },
        id: round.id,
        wanted_by: round.wanted_by,
        wanted_at: round.wanted_at,
        finished_at: round.finished_at,
        error: round.error,
    }
}
