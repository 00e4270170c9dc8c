//! Where a tenant goes: a pure function of residency, profile, tier, service level, and of what cells
//! hold. It ranks the cells that may take the tenant and says of each of the others why not.
//!
//! Invariants (property-tested): a candidate is in a region that the country's residency rule allows,
//! in the tenant's own country if the profile says so, of this environment, active, run for the
//! promised service level, and within all of its bounds; equal questions get equal answers; every
//! cell gets a reason; tenants placed one after another spread evenly.

use waangu_kernel::{CellId, CountryCode, Fault, RegionId, Sla, Tier, fault};
use waangu_registry::{Cell, CellState, Country, Profile, Region};

#[cfg(test)]
mod tests;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The tenant's country with its residency rule.
    pub country: &'a Country,
    /// The tenant's profile.
    pub profile: &'a Profile,
    /// The tier that was asked for, if one was.
    pub tier: Option<Tier>,
    /// The service level that was asked for, if one was.
    pub sla: Option<Sla>,
    /// This installation's environment.
    pub environment: &'a str,
    /// All regions.
    pub regions: &'a [Region],
    /// All cells.
    pub cells: &'a [Cell],
    /// The cells whose administrator's login this installation has.
    pub own: &'a [CellId],
}

impl Question<'_> {
    /// The isolation model.
    fn tier(&self) -> Tier {
        self.tier.unwrap_or(self.profile.tier)
    }

    /// The service level.
    fn sla(&self) -> Sla {
        self.sla.unwrap_or(self.profile.sla)
    }
}

/// All cells, weighed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The isolation model.
    pub tier: Tier,
    /// Why that one.
    pub tier_reason: String,
    /// The cells that may take the tenant, best first.
    pub ranked: Vec<Weighed>,
    /// The cells that may not.
    pub refused: Vec<Weighed>,
}

/// A cell with what speaks for it, or against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weighed {
    /// The cell.
    pub cell: CellId,
    /// For people; never empty.
    pub reasons: Vec<String>,
}

impl Weighed {
    /// One line for people.
    pub(crate) fn line(&self) -> String {
        format!("{}: {}", self.cell, self.reasons.join(", "))
    }
}

/// The answer, with its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The isolation model.
    pub tier: Tier,
    /// The cell.
    pub cell: CellId,
    /// Why, for people.
    pub reasons: Vec<String>,
}

/// Weighs all cells.
pub fn weigh(question: &Question<'_>) -> Verdict {
    let (mut ranked, mut refused) = (Vec::new(), Vec::new());
    for cell in question.cells {
        let against = against(question, cell);
        if against.is_empty() {
            ranked.push((rank(question, cell), speaks_for(question, cell)));
        } else {
            refused.push(Weighed {
                cell: cell.id.clone(),
                reasons: against,
            });
        }
    }
    ranked.sort_by(|(one, _), (other, _)| one.cmp(other));
    Verdict {
        tier: question.tier(),
        tier_reason: tier_reason(question),
        ranked: ranked.into_iter().map(|(_, weighed)| weighed).collect(),
        refused,
    }
}

/// Chooses tier and cell.
///
/// # Errors
/// `no-placement`, with a reason for each cell.
pub fn choose(question: &Question<'_>) -> Result<Choice, Fault> {
    let verdict = weigh(question);
    let Some((best, others)) = verdict.ranked.split_first() else {
        return Err(nowhere(question, &verdict));
    };
    let mut reasons = vec![verdict.tier_reason, format!("cell {}", best.line())];
    reasons.extend(others.iter().map(|next| format!("else {}", next.line())));
    reasons.extend(
        verdict
            .refused
            .iter()
            .map(|not| format!("not {}", not.line())),
    );
    Ok(Choice {
        tier: verdict.tier,
        cell: best.cell.clone(),
        reasons,
    })
}

fn nowhere(question: &Question<'_>, verdict: &Verdict) -> Fault {
    let refusals: Vec<String> = verdict.refused.iter().map(Weighed::line).collect();
    let why = if refusals.is_empty() {
        "there are no cells".to_owned()
    } else {
        refusals.join("; ")
    };
    let field = if tier_too_weak(question).is_some() {
        "tier"
    } else {
        "country"
    };
    fault::NO_PLACEMENT
        .fault(format!(
            "no cell may take a {} tenant of {} with profile {}: {why}",
            verdict.tier, question.country.code, question.profile.id
        ))
        .field(field)
}

fn tier_reason(question: &Question<'_>) -> String {
    let profile = question.profile;
    match question.tier {
        Some(tier) if tier == profile.tier => {
            format!(
                "tier {tier}: asked for, and what profile {} gives",
                profile.id
            )
        }
        Some(tier) => format!(
            "tier {tier}: asked for; profile {} gives {}",
            profile.id, profile.tier
        ),
        None => format!("tier {}: profile {}", profile.tier, profile.id),
    }
}

/// Tenants that share a server process's memory and files feel each other's load.
fn tier_too_weak(question: &Question<'_>) -> Option<String> {
    let weak = question.sla() == Sla::High && question.tier() != Tier::Dedicated;
    weak.then(|| "service level high needs tier dedicated".to_owned())
}

/// All that speaks against a cell.
fn against(question: &Question<'_>, cell: &Cell) -> Vec<String> {
    let country = question.country;
    let mut against = Vec::new();
    if !country.regions.contains(&cell.region) {
        against.push(format!(
            "{} forbids data in region {}",
            country.code, cell.region
        ));
    }
    if question.profile.in_country && region_country(question, &cell.region) != Some(country.code) {
        against.push(format!(
            "profile {} needs a region in {}",
            question.profile.id, country.code
        ));
    }
    if cell.environment != question.environment {
        against.push(format!("belongs to environment {}", cell.environment));
    }
    if !question.own.contains(&cell.id) {
        against.push("its administrator's login is not configured here".to_owned());
    }
    if cell.state != CellState::Active {
        against.push(format!("is {}", cell.state.as_str()));
    }
    against.extend(tier_too_weak(question));
    if cell.sla < question.sla() {
        against.push(format!("is run for service level {}", cell.sla));
    }
    let full = bounds(cell)
        .into_iter()
        .filter(|bound| bound.held >= bound.most);
    against.extend(full.map(|bound| format!("holds {}", bound.text)));
    against
}

fn speaks_for(question: &Question<'_>, cell: &Cell) -> Weighed {
    let country = question.country;
    let mut reasons = vec![format!(
        "region {} is choice {} of {} for {}",
        cell.region,
        region_rank(question, cell).saturating_add(1),
        country.regions.len(),
        country.code
    )];
    if cell.sla > question.sla() {
        reasons.push(format!("is run for service level {}", cell.sla));
    }
    reasons.extend(bounds(cell).into_iter().map(|bound| bound.text));
    Weighed {
        cell: cell.id.clone(),
        reasons,
    }
}

/// Region's rank in the country's rule, then a service level no better than needed, then the load of
/// the bound that is nearest, then the id. Less is better.
type Rank = (usize, Sla, i128, CellId);

fn rank(question: &Question<'_>, cell: &Cell) -> Rank {
    let load = bounds(cell)
        .iter()
        .map(|bound| i128::from(bound.held).saturating_mul(LOAD_UNIT) / i128::from(bound.most))
        .max()
        .unwrap_or(0);
    (region_rank(question, cell), cell.sla, load, cell.id.clone())
}

/// Loads are compared in parts of this: fine enough for one tenant more on the largest cell to count.
const LOAD_UNIT: i128 = 1_000_000_000;

fn region_rank(question: &Question<'_>, cell: &Cell) -> usize {
    let regions = &question.country.regions;
    let found = regions.iter().position(|region| *region == cell.region);
    found.unwrap_or(regions.len())
}

/// How near a cell is to one of its bounds.
struct Bound {
    held: i64,
    /// At least 1.
    most: i64,
    text: String,
}

/// A cell's bounds. Bytes and connections count once they have been measured.
fn bounds(cell: &Cell) -> Vec<Bound> {
    let mut bounds = vec![Bound {
        held: cell.tenants,
        most: i64::from(cell.capacity).max(1),
        text: format!("{} of {} tenants", cell.tenants, cell.capacity),
    }];
    let Some(usage) = cell.usage else {
        return bounds;
    };
    if let Some(most) = cell.capacity_bytes {
        bounds.push(Bound {
            held: usage.bytes,
            most: most.max(1),
            text: format!("{} of {} MB", usage.bytes / 1_000_000, most / 1_000_000),
        });
    }
    if let Some(most) = cell.capacity_connections {
        bounds.push(Bound {
            held: i64::from(usage.connections),
            most: i64::from(most).max(1),
            text: format!("{} of {most} connections", usage.connections),
        });
    }
    bounds
}

fn region_country(question: &Question<'_>, id: &RegionId) -> Option<CountryCode> {
    question
        .regions
        .iter()
        .find(|region| region.id == *id)
        .map(|region| region.country)
}
