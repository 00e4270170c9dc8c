//! The advisor: measures what tenants hold and ask for, and proposes a better place to whom the three
//! criteria of the requirements call for one.
//!
//! A round visits each cell once ([`waangu_tenancy::admin::Volumes`] bounds what that costs), takes the
//! traffic that gateways have reported, and judges every tenant ([`judge`]); what becomes of it over
//! time is [`hold`]'s. A round comes every hour, and when an operator asks.
//!
//! Invariants: one process looks at a time; a cell that does not answer keeps its last figures, and
//! nobody else waits for it; a proposal that is made or taken back is in the audit log.
//!
//! Left out: moving. A proposal is followed by an operator, or by [`act`] where a policy says so; both
//! ask for the same relocation.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use waangu_kernel::{CellId, Clock, CountryCode, Fault, ProfileId, Slug, TenantId, Tier, fault};
use waangu_registry::{
    Advice, AdviceState, AdvisorRound, Cell, Country, Profile, Region, Registry, Session, Subject,
    Threshold, Traffic, Tx,
};
use waangu_tenancy::CellAdmin;
use waangu_tenancy::admin::Volumes;

use crate::bounds::in_time;
use crate::placement::Question;
use crate::reconcile::operator_text;

pub(crate) mod act;
pub(crate) mod hold;
pub(crate) mod judge;

use judge::{Finding, Gauge, Level, Rates, judge, place};

/// From one round to the next.
const ROUND_SECONDS: i32 = 3_600;

/// How often is looked whether a round is due or was asked for.
const POLL: Duration = Duration::from_secs(5);

/// A process that has just started has more urgent things to do; and the pause after a failed round.
const CALM: Duration = Duration::from_mins(1);

/// Longest visit to one cell.
const VISIT: Duration = Duration::from_mins(1);

/// Tenants that are judged in one transaction.
const PAGE: i64 = 500;

/// How long traffic is remembered: the longest window, and a day.
const REMEMBERED: time::Duration = time::Duration::days(31);

/// Looks at all tenants, again and again.
pub(crate) struct Advisor {
    registry: Registry,
    cells: Vec<Arc<CellAdmin>>,
    environment: String,
    clock: Arc<dyn Clock>,
    /// Somebody has asked for a round.
    pub(crate) asked: Notify,
}

impl Advisor {
    pub(crate) fn new(
        registry: Registry,
        cells: Vec<Arc<CellAdmin>>,
        environment: String,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            registry,
            cells,
            environment,
            clock,
            asked: Notify::new(),
        }
    }

    /// Runs until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let begun = Instant::now();
        while !stop.is_cancelled() {
            let calm = begun.elapsed() > CALM;
            if let Some(Err(fault)) = stop.run_until_cancelled(self.turn(calm)).await {
                tracing::warn!(cause = fault.operator_cause(), "advisor: {fault}");
                // The round is still open, and measuring again at once would not be cheap.
                let _stopped = stop.run_until_cancelled(tokio::time::sleep(CALM)).await;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.asked.notified() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// Asks for a round if the last one is old, and does the one that is open, if nobody else does.
    async fn turn(&self, calm: bool) -> Result<(), Fault> {
        let mut session = self.registry.session().await?;
        let tx = session.begin().await?;
        if calm && tx.is_advisor_round_due(ROUND_SECONDS).await? {
            tx.want_advisor_round("control").await?;
        }
        tx.commit().await?;
        let Some(round) = session.claim_advisor_round().await? else {
            return Ok(());
        };
        self.look(&mut session, &round).await?;
        session.release_all().await
    }

    async fn look(&self, session: &mut Session, round: &AdvisorRound) -> Result<(), Fault> {
        let begun = Instant::now();
        let (measured, failures) = self.measure(session).await?;
        let now = self.now()?;
        let tx = session.begin().await?;
        let known = Known::read(&tx, now, None).await?;
        tx.commit().await?;
        let tenants = self.judge_all(session, &known).await?;
        let cost = json!({
            "cells": measured.cells,
            "tenants": tenants,
            "queries": measured.queries,
            "pages": measured.pages,
            "ms": u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
        let error = (!failures.is_empty()).then(|| failures.join("; "));
        let tx = session.begin().await?;
        tx.finish_advisor_round(round.id, &cost, error.as_deref(), now - REMEMBERED)
            .await?;
        tx.commit().await
    }

    /// Measures all cells at once; says what it cost, and which did not answer.
    async fn measure(&self, session: &mut Session) -> Result<(Measured, Vec<String>), Fault> {
        let visits = self
            .cells
            .iter()
            .map(|cell| async move { (cell.id(), in_time(VISIT, cell.measure_tenants()).await) });
        let (mut measured, mut failures) = (Measured::default(), Vec::new());
        for (cell, visit) in futures_util::future::join_all(visits).await {
            match visit {
                Ok(volumes) => {
                    measured.add(&volumes);
                    record(session, cell, &volumes).await?;
                }
                Err(fault) => failures.push(format!("cell {cell}: {}", operator_text(&fault))),
            }
        }
        Ok((measured, failures))
    }

    async fn judge_all(&self, session: &mut Session, known: &Known) -> Result<u64, Fault> {
        let own: Vec<CellId> = self.cells.iter().map(|cell| cell.id().clone()).collect();
        let (mut after, mut count) = (0, 0_u64);
        loop {
            let tx = session.begin().await?;
            let page = tx.list_subjects(None, after, PAGE).await?;
            let Some(last) = page.last() else {
                tx.commit().await?;
                return Ok(count);
            };
            after = last.id.number();
            count = count.saturating_add(u64::try_from(page.len()).unwrap_or(0));
            for subject in &page {
                let standing = known.advice.get(&subject.id).map_or(&[][..], Vec::as_slice);
                for (advice, verb) in known.advise(subject, standing, &self.environment, &own) {
                    settle(&tx, &subject.slug, &advice, verb).await?;
                }
            }
            tx.commit_lazily().await?;
        }
    }

    fn now(&self) -> Result<OffsetDateTime, Fault> {
        OffsetDateTime::from_unix_timestamp(self.clock.unix_seconds())
            .map_err(|error| fault::INTERNAL.fault("the clock is off").cause(error))
    }
}

impl std::fmt::Debug for Advisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Advisor({} cells)", self.cells.len())
    }
}

/// What the visits to cells cost.
#[derive(Debug, Default)]
struct Measured {
    cells: u32,
    queries: u32,
    pages: u64,
}

impl Measured {
    fn add(&mut self, volumes: &Volumes) {
        self.cells = self.cells.saturating_add(1);
        self.queries = self.queries.saturating_add(volumes.queries);
        self.pages = self.pages.saturating_add(volumes.pages);
    }
}

async fn record(session: &mut Session, cell: &CellId, volumes: &Volumes) -> Result<(), Fault> {
    let held: Vec<(i64, i64, Option<i64>)> = volumes
        .tenants
        .iter()
        .map(|(tenant, held)| (*tenant, held.bytes, held.rows))
        .collect();
    let tx = session.begin().await?;
    tx.put_volumes(cell, &held).await?;
    tx.commit_lazily().await
}

/// What becomes of an advice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Keep,
    Open,
    Withdraw,
    Drop,
}

async fn settle(tx: &Tx<'_>, slug: &Slug, advice: &Advice, verb: Verb) -> Result<(), Fault> {
    match verb {
        Verb::Keep | Verb::Open => tx.put_advice(advice).await?,
        Verb::Withdraw | Verb::Drop => tx.delete_advice(advice.tenant, advice.tier).await?,
    }
    let action = match verb {
        Verb::Open => "advice.open",
        Verb::Withdraw => "advice.withdraw",
        Verb::Keep | Verb::Drop => return Ok(()),
    };
    let detail = json!({
        "tier": advice.tier, "cell": advice.cell, "criteria": advice.criteria,
        "evidence": advice.evidence,
    });
    tx.record_audit("control", action, Some((advice.tenant, slug)), &detail)
        .await
}

/// All that tenants are judged by.
#[derive(Debug)]
pub(crate) struct Known {
    now: OffsetDateTime,
    regions: Vec<Region>,
    cells: Vec<Cell>,
    countries: HashMap<CountryCode, Country>,
    profiles: HashMap<ProfileId, Profile>,
    thresholds: Vec<Threshold>,
    /// By the window's hours.
    traffic: BTreeMap<i32, HashMap<TenantId, Traffic>>,
    advice: HashMap<TenantId, Vec<Advice>>,
}

impl Known {
    /// Reads it, for all tenants or for one.
    pub(crate) async fn read(
        tx: &Tx<'_>,
        now: OffsetDateTime,
        only: Option<TenantId>,
    ) -> Result<Self, Fault> {
        let thresholds = thresholds(tx).await?;
        let mut traffic = BTreeMap::new();
        for threshold in &thresholds {
            let (since, _) = window(now, threshold.window_hours);
            let sums = tx.list_traffic(only, since).await?;
            traffic.insert(threshold.window_hours, sums.into_iter().collect());
        }
        let mut advice: HashMap<TenantId, Vec<Advice>> = HashMap::new();
        for given in tx.list_advice(only, i64::MAX).await? {
            advice
                .entry(given.advice.tenant)
                .or_default()
                .push(given.advice);
        }
        let countries = tx.list_countries(None).await?.into_iter();
        let profiles = tx.list_profiles().await?.into_iter();
        Ok(Self {
            now,
            regions: tx.list_regions().await?,
            cells: tx.list_cells().await?,
            countries: countries.map(|country| (country.code, country)).collect(),
            profiles: profiles
                .map(|profile| (profile.id.clone(), profile))
                .collect(),
            thresholds,
            traffic,
            advice,
        })
    }

    /// The thresholds with the tenant's rates over their windows.
    pub(crate) fn gauges(&self, tenant: TenantId) -> Vec<Gauge> {
        let gauge = |threshold: &Threshold| {
            let (_, minutes) = window(self.now, threshold.window_hours);
            let sums = self.traffic.get(&threshold.window_hours);
            let sum = sums.and_then(|sums| sums.get(&tenant)).copied();
            let sum = sum.unwrap_or_default();
            let rates = Rates {
                requests: sum.requests / minutes,
                database_ms: sum.database_us / 1_000 / minutes,
            };
            (*threshold, rates)
        };
        self.thresholds.iter().map(gauge).collect()
    }

    /// What becomes of each advice to a tenant. One without profile has no rule to be placed by.
    fn advise(
        &self,
        subject: &Subject,
        standing: &[Advice],
        environment: &str,
        own: &[CellId],
    ) -> Vec<(Advice, Verb)> {
        let profile = subject
            .profile
            .as_ref()
            .and_then(|id| self.profiles.get(id));
        let (Some(profile), Some(country)) = (profile, self.countries.get(&subject.country)) else {
            return Vec::new();
        };
        let question = Question {
            country,
            profile,
            tier: None,
            sla: subject.asked_sla,
            environment,
            regions: &self.regions,
            cells: &self.cells,
            own,
        };
        let gauges = self.gauges(subject.id);
        Tier::ALL
            .into_iter()
            .filter_map(|tier| {
                let before = standing.iter().find(|advice| advice.tier == tier);
                let gauge = gauges.iter().find(|(threshold, _)| threshold.tier == tier);
                let finding = judge(&question, subject, tier, gauge);
                self.next(&question, subject, tier, before, finding, gauge)
            })
            .collect()
    }

    fn next(
        &self,
        question: &Question<'_>,
        subject: &Subject,
        tier: Tier,
        before: Option<&Advice>,
        finding: Finding,
        gauge: Option<&Gauge>,
    ) -> Option<(Advice, Verb)> {
        // A tenant that has moved there, or further, needs no advice any more.
        let arrived =
            tier < subject.tier || (tier == subject.tier && finding.level == Level::Below);
        if let Some(before) = before.filter(|_| arrived) {
            return Some((before.clone(), withdrawal(before)));
        }
        let waits = finding.measured || before.is_some_and(|before| before.measured);
        let hold = gauge
            .filter(|_| waits)
            .map_or(0, |(threshold, _)| threshold.hold_minutes);
        let hold = time::Duration::minutes(i64::from(hold));
        let standing = before.map(|before| (before.state, before.since));
        let Some((state, since)) = hold::step(standing, finding.level, self.now, hold) else {
            return before.map(|before| (before.clone(), withdrawal(before)));
        };
        let (cell, reasons) = place(question, subject, tier);
        let criteria = finding
            .criteria
            .iter()
            .map(|criterion| criterion.as_str().to_owned());
        let mut advice = Advice {
            tenant: subject.id,
            tier,
            cell,
            state,
            since,
            measured: finding.measured,
            criteria: criteria.collect(),
            evidence: finding.evidence,
            reasons,
            seen_at: self.now,
        };
        if let Some(before) = before.filter(|_| finding.level == Level::Below) {
            // What it stood for, until it is taken back.
            advice.measured = before.measured;
            advice.criteria.clone_from(&before.criteria);
            advice.evidence.clone_from(&before.evidence);
        }
        let was = before.is_some_and(|before| before.state != AdviceState::Rising);
        let is = state != AdviceState::Rising;
        Some((advice, if is && !was { Verb::Open } else { Verb::Keep }))
    }
}

fn withdrawal(advice: &Advice) -> Verb {
    match advice.state {
        AdviceState::Rising => Verb::Drop,
        AdviceState::Open | AdviceState::Falling => Verb::Withdraw,
    }
}

/// The thresholds that hold: declared, else the platform's own.
pub(crate) async fn thresholds(tx: &Tx<'_>) -> Result<Vec<Threshold>, Fault> {
    let mut thresholds = tx.list_thresholds().await?;
    for own in [SCHEMA, DEDICATED] {
        if !thresholds
            .iter()
            .any(|threshold| threshold.tier == own.tier)
        {
            thresholds.push(own);
        }
    }
    thresholds.sort_by_key(|threshold| threshold.tier);
    Ok(thresholds)
}

/// A tenth of what makes a whole database worth its price.
const SCHEMA: Threshold = Threshold {
    tier: Tier::Schema,
    bytes: Some(2_000_000_000),
    rows: Some(5_000_000),
    requests_per_minute: Some(600),
    database_ms_per_minute: Some(6_000),
    window_hours: 24,
    hold_minutes: 60,
    release_percent: 70,
};

/// A copy or a restore of so much takes its time, and one connection is never free.
const DEDICATED: Threshold = Threshold {
    tier: Tier::Dedicated,
    bytes: Some(50_000_000_000),
    rows: Some(100_000_000),
    requests_per_minute: Some(6_000),
    database_ms_per_minute: Some(60_000),
    window_hours: 24,
    hold_minutes: 60,
    release_percent: 70,
};

/// Where a window of whole hours and the one under way begins, and how many minutes that is ago.
fn window(now: OffsetDateTime, hours: i32) -> (OffsetDateTime, i64) {
    let into = now.unix_timestamp().rem_euclid(3_600);
    let back = i64::from(hours).saturating_mul(3_600).saturating_add(into);
    (now - time::Duration::seconds(back), (back / 60).max(1))
}

/// What a round cost, for the API.
pub(crate) fn cost(round: &AdvisorRound, key: &str) -> i64 {
    round.cost.get(key).and_then(Value::as_i64).unwrap_or(0)
}
