//! Whether a tenant would be better off elsewhere: the three criteria of the requirements (compliance;
//! volume or traffic; service level), compared with what is measured. Pure.
//!
//! Invariants (property-tested): a tier below the tenant's own, or below what its profile or service
//! level calls for, is never proposed; more use never speaks for less isolation; who has moved as
//! proposed is not sent on by the same figures; a cell that placement refuses is never proposed.

use std::collections::BTreeSet;

use waangu_kernel::{CellId, Sla, Tier};
use waangu_registry::{Cell, Subject, Threshold};

use crate::placement::{Question, Weighed, weigh};

/// A criterion of the requirements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Criterion {
    /// What sector and country call for.
    Compliance,
    /// Bytes and rows.
    Volume,
    /// Requests and database time.
    Traffic,
    /// The service level that was promised.
    Sla,
}

impl Criterion {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Compliance => "compliance",
            Self::Volume => "volume",
            Self::Traffic => "traffic",
            Self::Sla => "sla",
        }
    }
}

/// How much speaks for a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Every figure is below the share of its bound at which it is over.
    Below,
    /// Some figure is above that share, none above its bound: nothing changes.
    Between,
    /// Some figure has reached its bound.
    Above,
    /// A rule calls for it; there is nothing to wait for.
    Required,
}

/// What speaks for one tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// How much.
    pub(crate) level: Level,
    /// Whether by figures; by rules alone otherwise.
    pub(crate) measured: bool,
    /// Which criteria have been met.
    pub(crate) criteria: BTreeSet<Criterion>,
    /// What was seen, for people.
    pub(crate) evidence: Vec<String>,
}

/// What a tenant uses, beside the bound of a tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Figure {
    /// The criterion that it is part of.
    pub(crate) criterion: Criterion,
    /// What is measured, for people and programs.
    pub(crate) name: &'static str,
    /// How much it is.
    pub(crate) value: i64,
    /// From how much on the tier is proposed.
    pub(crate) bound: i64,
}

impl Figure {
    fn level(&self, release_percent: i32) -> Level {
        let release = i128::from(self.bound) * i128::from(release_percent);
        if self.value >= self.bound {
            Level::Above
        } else if i128::from(self.value) * 100 >= release {
            Level::Between
        } else {
            Level::Below
        }
    }
}

/// What a tenant asked for in a minute, on average over a threshold's window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    pub(crate) requests: i64,
    pub(crate) database_ms: i64,
}

/// A threshold with the tenant's rates over its window.
pub(crate) type Gauge = (Threshold, Rates);

/// The figures that a threshold bounds, as far as they are known.
pub(crate) fn figures(subject: &Subject, (threshold, rates): &Gauge) -> Vec<Figure> {
    let volume = subject.volume;
    let all = [
        (
            Criterion::Volume,
            "bytes",
            volume.map(|volume| volume.bytes),
            threshold.bytes,
        ),
        (
            Criterion::Volume,
            "rows",
            volume.and_then(|volume| volume.rows),
            threshold.rows,
        ),
        (
            Criterion::Traffic,
            "requests_per_minute",
            Some(rates.requests),
            threshold.requests_per_minute,
        ),
        (
            Criterion::Traffic,
            "database_ms_per_minute",
            Some(rates.database_ms),
            threshold.database_ms_per_minute,
        ),
    ];
    all.into_iter()
        .filter_map(|(criterion, name, value, bound)| {
            Some(Figure {
                criterion,
                name,
                value: value?,
                bound: bound?,
            })
        })
        .collect()
}

/// What speaks for moving a tenant to a tier. The question is about the tenant as it is, without the
/// tier.
pub(crate) fn judge(
    question: &Question<'_>,
    subject: &Subject,
    tier: Tier,
    gauge: Option<&Gauge>,
) -> Finding {
    let mut finding = Finding {
        level: Level::Below,
        measured: false,
        criteria: BTreeSet::new(),
        evidence: Vec::new(),
    };
    let rules = if tier == subject.tier {
        place_rules(question, subject)
    } else {
        tier_rules(question, subject, tier)
    };
    for (criterion, evidence) in rules {
        finding.level = Level::Required;
        finding.criteria.insert(criterion);
        finding.evidence.push(evidence);
    }
    // Figures call for more isolation, never for less, and never for less than the rules do.
    if tier <= subject.tier || tier < floor(question, subject) {
        return finding;
    }
    let Some(gauge) = gauge else { return finding };
    for figure in figures(subject, gauge) {
        let level = figure.level(gauge.0.release_percent);
        if level > Level::Below {
            finding.measured = true;
            finding.criteria.insert(figure.criterion);
            finding.evidence.push(said(&figure, &gauge.0));
        }
        finding.level = finding.level.max(level);
    }
    finding
}

/// The weakest tier that profile and service level leave.
fn floor(question: &Question<'_>, subject: &Subject) -> Tier {
    let profile = match subject.asked_tier {
        Some(_) => Tier::Shared,
        None => question.profile.tier,
    };
    match sla(question) {
        Sla::High => Tier::Dedicated,
        Sla::Standard => profile,
    }
}

fn sla(question: &Question<'_>) -> Sla {
    question.sla.unwrap_or(question.profile.sla)
}

/// Rules that call for a tier.
fn tier_rules(question: &Question<'_>, subject: &Subject, tier: Tier) -> Vec<(Criterion, String)> {
    let mut rules = Vec::new();
    if tier <= subject.tier {
        return rules;
    }
    let profile = question.profile;
    if subject.asked_tier.is_none() && profile.tier == tier {
        let text = format!(
            "profile {} calls for tier {tier}, the tenant has tier {}",
            profile.id, subject.tier
        );
        rules.push((Criterion::Compliance, text));
    }
    if tier == Tier::Dedicated && sla(question) == Sla::High {
        let text = format!(
            "service level high needs tier dedicated, the tenant has tier {}",
            subject.tier
        );
        rules.push((Criterion::Sla, text));
    }
    rules
}

/// Rules that forbid the cell where the tenant is.
fn place_rules(question: &Question<'_>, subject: &Subject) -> Vec<(Criterion, String)> {
    let mut rules = Vec::new();
    let Some(home) = question.cells.iter().find(|cell| cell.id == subject.cell) else {
        return rules;
    };
    let country = question.country;
    if !country.regions.contains(&home.region) {
        let text = format!("{} forbids data in region {}", country.code, home.region);
        rules.push((Criterion::Compliance, text));
    }
    let mut regions = question.regions.iter();
    let at_home = regions.any(|region| region.id == home.region && region.country == country.code);
    if question.profile.in_country && !at_home {
        let text = format!(
            "profile {} needs a region in {}, the tenant lives in {}",
            question.profile.id, country.code, home.region
        );
        rules.push((Criterion::Compliance, text));
    }
    if home.sla < sla(question) {
        let text = format!("cell {} is run for service level {}", home.id, home.sla);
        rules.push((Criterion::Sla, text));
    }
    rules
}

fn said(figure: &Figure, threshold: &Threshold) -> String {
    let hours = threshold.window_hours;
    let window = match figure.criterion {
        Criterion::Traffic => format!(" on average over {hours} h"),
        Criterion::Compliance | Criterion::Volume | Criterion::Sla => String::new(),
    };
    let name = figure.name.replace('_', " ");
    format!(
        "{} {name}{window}; tier {} from {} on",
        figure.value, threshold.tier, figure.bound
    )
}

/// The cell for a tier, with the reasons: the tenant's own if it may stay there, else the best one.
pub(crate) fn place(
    question: &Question<'_>,
    subject: &Subject,
    tier: Tier,
) -> (Option<CellId>, Vec<String>) {
    // It makes room for itself where it lives.
    let mut cells: Vec<Cell> = question.cells.to_vec();
    for cell in &mut cells {
        if cell.id == subject.cell {
            cell.tenants = cell.tenants.saturating_sub(1);
        }
    }
    let verdict = weigh(&Question {
        tier: Some(tier),
        cells: &cells,
        ..*question
    });
    let home = |weighed: &&Weighed| weighed.cell == subject.cell;
    let chosen = verdict.ranked.iter().find(home);
    match chosen.or_else(|| verdict.ranked.first()) {
        Some(best) => {
            let stays = (best.cell == subject.cell).then(|| "it lives there already".to_owned());
            let reasons = stays.into_iter().chain(best.reasons.iter().cloned());
            (Some(best.cell.clone()), reasons.collect())
        }
        None => (None, verdict.refused.iter().map(Weighed::line).collect()),
    }
}

#[cfg(test)]
mod tests;
