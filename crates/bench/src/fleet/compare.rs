//! What the batches of onboarding came to: series, ratios, goals.

use std::collections::BTreeMap;

use waangu_kernel::Tier;

use crate::goal::Goal;
use crate::peers::{Pass, by_hand, django};
use crate::report::{Ratio, Report, Series};
use crate::stats::Summary;

/// Clients, or processes of a peer, at once.
pub(super) const AT_ONCE: [usize; 2] = [1, 4];

/// Goals of issue 4.
const SHARED_PER_SECOND: f64 = 200.0;
const SCHEMA_TIMES: f64 = 10.0;
const DEDICATED_TIMES: f64 = 3.0;

/// Who onboards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contender {
    Ours(Tier),
    /// A database or schema of ours that was made before.
    Stocked(Tier),
    Hand(by_hand::Way),
    Django(django::Way),
    Tryton,
}

impl Contender {
    pub(super) fn name(self) -> String {
        match self {
            Self::Ours(tier) => format!("{tier}: ours"),
            Self::Stocked(tier) => format!("{tier}: ours, from stock"),
            Self::Hand(way) => format!("dedicated: {}", way.name()),
            Self::Django(way) => format!("schema: {}", way.name()),
            Self::Tryton => "dedicated: Tryton".to_owned(),
        }
    }
}

/// Batches, by who made them and how many at once.
#[derive(Debug, Default)]
pub(super) struct Results(Vec<(Contender, usize, Vec<Pass>)>);

impl Results {
    pub(super) fn add(&mut self, contender: Contender, at_once: usize, pass: Pass) {
        let same = |(who, clients, _): &&mut (Contender, usize, Vec<Pass>)| {
            *who == contender && *clients == at_once
        };
        match self.0.iter_mut().find(same) {
            Some((_, _, passes)) => passes.push(pass),
            None => self.0.push((contender, at_once, vec![pass])),
        }
    }

    /// Adds series, ratios and goals to the report.
    pub(super) fn report(mut self, report: &mut Report) {
        self.0
            .sort_by_key(|(who, at_once, _)| (*at_once, who.name()));
        self.series(report);
        self.failures(report);
        for at_once in AT_ONCE {
            self.goals(at_once, report);
        }
    }

    fn series(&self, report: &mut Report) {
        for (group, unit) in [("tenants per second", "1/s"), ("one tenant", "ms")] {
            for (who, at_once, passes) in &self.0 {
                let samples = match unit {
                    "ms" => passes.iter().flat_map(|pass| pass.each.clone()).collect(),
                    _ => passes.iter().map(Pass::per_second).collect(),
                };
                report.series.push(Series {
                    group,
                    name: format!("{}, {at_once} at once", who.name()),
                    unit,
                    what: String::new(),
                    samples,
                });
            }
        }
    }

    fn failures(&self, report: &mut Report) {
        let mut failed = BTreeMap::new();
        for (who, at_once, passes) in &self.0 {
            let count: usize = passes.iter().map(|pass| pass.failed).sum();
            if count > 0 {
                failed.insert(format!("{}, {at_once} at once", who.name()), count);
            }
        }
        for (name, count) in failed {
            report.notes.push(format!(
                "{name}: failed {count} times and was asked for again, within the time of the tenant"
            ));
        }
    }

    /// Median rate over the rounds.
    fn rate(&self, contender: Contender, at_once: usize) -> Option<f64> {
        let found = self
            .0
            .iter()
            .find(|(who, clients, _)| *who == contender && *clients == at_once)?;
        let rates: Vec<f64> = found.2.iter().map(Pass::per_second).collect();
        Some(Summary::of(&rates)?.median)
    }

    fn goals(&self, at_once: usize, report: &mut Report) {
        let most = AT_ONCE.into_iter().max();
        let shared = self.rate(Contender::Ours(Tier::Shared), at_once);
        if let (Some(rate), true) = (shared, Some(at_once) == most) {
            let name = format!("onboard shared, {at_once} at once");
            goal(name, "1/s", rate, SHARED_PER_SECOND, report);
        }
        let django = django::Way::ALL.map(Contender::Django);
        let hand = by_hand::Way::ALL.map(Contender::Hand);
        let [schema, dedicated] = [Tier::Schema, Tier::Dedicated];
        let stocked = Contender::Stocked;
        self.best(stocked(schema), at_once, &django, SCHEMA_TIMES, report);
        self.best(stocked(dedicated), at_once, &hand, DEDICATED_TIMES, report);
        for other in django {
            self.ratio(Contender::Ours(schema), at_once, other, report);
        }
        for other in hand.into_iter().chain([Contender::Tryton]) {
            self.ratio(Contender::Ours(dedicated), at_once, other, report);
        }
    }

    /// Ratios to each of the others; the goal is held against the best of them.
    fn best(
        &self,
        ours: Contender,
        at_once: usize,
        others: &[Contender],
        limit: f64,
        report: &mut Report,
    ) {
        let ratios = others
            .iter()
            .filter_map(|other| self.ratio(ours, at_once, *other, report));
        let least = ratios.min_by(|one, two| one.value.total_cmp(&two.value));
        if let Some(Ratio { name, value }) = least {
            goal(name, "×", value, limit, report);
        }
    }

    fn ratio(
        &self,
        ours: Contender,
        at_once: usize,
        other: Contender,
        report: &mut Report,
    ) -> Option<Ratio> {
        let value = self.rate(ours, at_once)? / self.rate(other, at_once)?;
        let name = format!("{} / {}, {at_once} at once", ours.name(), other.name());
        let ratio = Ratio { name, value };
        report.ratios.push(ratio.clone());
        Some(ratio)
    }
}

fn goal(name: String, unit: &'static str, value: f64, limit: f64, report: &mut Report) {
    report.goals.push(Goal {
        name,
        unit,
        value,
        limit,
        higher_is_better: true,
    });
}
