//! Where a new tenant goes: a pure function of residency, profile, tier and capacity.
//!
//! Invariants (property-tested): the chosen cell is in a region that the country's residency rule
//! allows, in the tenant's own country if the profile says so, active, in this environment and not
//! full; equal questions get equal answers; a refusal gives a reason for every cell.

use waangu_kernel::{CellId, CountryCode, Fault, RegionId, Tier, fault};
use waangu_registry::{Cell, CellState, Country, Profile, Region};

/// What is asked.
#[derive(Debug)]
pub struct Question<'a> {
    /// The tenant's country with its residency rule.
    pub country: &'a Country,
    /// The tenant's profile.
    pub profile: &'a Profile,
    /// The tier that was asked for, if one was.
    pub tier: Option<Tier>,
    /// This installation's environment.
    pub environment: &'a str,
    /// All regions.
    pub regions: &'a [Region],
    /// All cells.
    pub cells: &'a [Cell],
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

/// Chooses tier and cell.
///
/// # Errors
/// `no-placement`, with a reason for each cell.
pub fn choose(question: &Question<'_>) -> Result<Choice, Fault> {
    let profile = question.profile;
    let (tier, tier_reason) = match question.tier {
        Some(tier) if tier == profile.tier => (
            tier,
            format!(
                "tier {tier}: asked for, and what profile {} gives",
                profile.id
            ),
        ),
        Some(tier) => (
            tier,
            format!(
                "tier {tier}: asked for; profile {} gives {}",
                profile.id, profile.tier
            ),
        ),
        None => (
            profile.tier,
            format!("tier {}: profile {}", profile.tier, profile.id),
        ),
    };
    let mut refusals = Vec::new();
    let mut best: Option<(Rank, &Cell, String)> = None;
    for cell in question.cells {
        match judge(question, cell) {
            Ok((rank, reason)) => {
                if best.as_ref().is_none_or(|(least, _, _)| rank < *least) {
                    best = Some((rank, cell, reason));
                }
            }
            Err(why) => refusals.push(format!("{}: {why}", cell.id)),
        }
    }
    let Some((_, cell, reason)) = best else {
        let why = if refusals.is_empty() {
            "there are no cells".to_owned()
        } else {
            refusals.join("; ")
        };
        return Err(fault::NO_PLACEMENT
            .fault(format!(
                "no cell may take a {tier} tenant of {} with profile {}: {why}",
                question.country.code, profile.id
            ))
            .field("country"));
    };
    let mut reasons = vec![tier_reason, format!("cell {}: {reason}", cell.id)];
    reasons.extend(refusals.into_iter().map(|why| format!("not {why}")));
    Ok(Choice {
        tier,
        cell: cell.id.clone(),
        reasons,
    })
}

/// Region's rank in the country's rule, then load in thousandths, then the id.
type Rank = (usize, i64, CellId);

fn judge(question: &Question<'_>, cell: &Cell) -> Result<(Rank, String), String> {
    let country = question.country;
    let rank = country
        .regions
        .iter()
        .position(|region| *region == cell.region)
        .ok_or_else(|| format!("{} forbids data in region {}", country.code, cell.region))?;
    if question.profile.in_country && region_country(question, &cell.region) != Some(country.code) {
        return Err(format!(
            "profile {} needs a region in {}",
            question.profile.id, country.code
        ));
    }
    if cell.environment != question.environment {
        return Err(format!("belongs to environment {}", cell.environment));
    }
    if cell.state != CellState::Active {
        return Err(format!("is {}", cell.state.as_str()));
    }
    if cell.tenants >= i64::from(cell.capacity) {
        return Err(format!(
            "holds {} of {} tenants",
            cell.tenants, cell.capacity
        ));
    }
    let load = cell.tenants.saturating_mul(1000) / i64::from(cell.capacity.max(1));
    let reason = format!(
        "region {} is choice {} of {} for {}, {} of {} tenants",
        cell.region,
        rank.saturating_add(1),
        country.regions.len(),
        country.code,
        cell.tenants,
        cell.capacity
    );
    Ok(((rank, load, cell.id.clone()), reason))
}

fn region_country(question: &Question<'_>, id: &RegionId) -> Option<CountryCode> {
    question
        .regions
        .iter()
        .find(|region| region.id == *id)
        .map(|region| region.country)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn region(id: &str, country: &str) -> Region {
        Region {
            id: id.parse().unwrap(),
            provider: "dc".to_owned(),
            country: country.parse().unwrap(),
            name: id.to_owned(),
        }
    }

    fn cell(id: &str, region: &str, capacity: i32, tenants: i64, state: CellState) -> Cell {
        Cell {
            id: id.parse().unwrap(),
            region: region.parse().unwrap(),
            environment: "dev".to_owned(),
            host: String::new(),
            port: 0,
            state,
            capacity,
            tenants,
        }
    }

    fn country(regions: &[&str]) -> Country {
        Country {
            code: "SN".parse().unwrap(),
            name: "Senegal".to_owned(),
            kin_abroad: false,
            regions: regions
                .iter()
                .map(|region| region.parse().unwrap())
                .collect(),
        }
    }

    fn profile(in_country: bool) -> Profile {
        Profile {
            id: "government".parse().unwrap(),
            title: std::collections::BTreeMap::new(),
            tier: Tier::Dedicated,
            in_country,
            modules: Vec::new(),
        }
    }

    /// A regulator would find a ministry's data abroad.
    #[test]
    fn an_in_country_profile_never_leaves_the_country() {
        let regions = [region("eu", "IE"), region("dakar", "SN")];
        let cells = [
            cell("eu-1", "eu", 100, 0, CellState::Active),
            cell("sn-1", "dakar", 100, 99, CellState::Active),
        ];
        let country = country(&["eu", "dakar"]);
        let profile = profile(true);
        let mut question = Question {
            country: &country,
            profile: &profile,
            tier: None,
            environment: "dev",
            regions: &regions,
            cells: &cells,
        };
        let choice = choose(&question).unwrap();
        assert_eq!(choice.cell.as_str(), "sn-1");
        assert_eq!(choice.tier, Tier::Dedicated);
        question.cells = &cells[..1];
        let refusal = choose(&question).unwrap_err();
        assert_eq!(refusal.code(), "no-placement");
        assert!(refusal.detail().contains("eu-1"), "{refusal}");
    }

    proptest! {
        /// Whatever the fleet looks like, residency and capacity hold.
        #[test]
        fn residency_and_capacity_always_hold(
            fleet in prop::collection::vec((0_usize..3, 1_i32..4, 0_i64..5, 0_usize..4), 0..12),
            allowed in prop::collection::vec(0_usize..3, 0..3),
            in_country: bool,
        ) {
            let names = ["eu", "dakar", "us"];
            let regions = [region("eu", "IE"), region("dakar", "SN"), region("us", "US")];
            let states = [CellState::Active, CellState::Full, CellState::Draining, CellState::Down];
            let cells: Vec<Cell> = fleet
                .iter()
                .enumerate()
                .map(|(n, (at, capacity, tenants, state))| {
                    cell(&format!("c{n}"), names[*at], *capacity, *tenants, states[*state])
                })
                .collect();
            let allowed: Vec<&str> = allowed.iter().map(|at| names[*at]).collect();
            let (country, profile) = (country(&allowed), profile(in_country));
            let question = Question {
                country: &country,
                profile: &profile,
                tier: Some(Tier::Shared),
                environment: "dev",
                regions: &regions,
                cells: &cells,
            };
            match choose(&question) {
                Ok(choice) => {
                    let cell = cells.iter().find(|cell| cell.id == choice.cell).unwrap();
                    prop_assert!(allowed.contains(&cell.region.as_str()));
                    prop_assert!(cell.tenants < i64::from(cell.capacity));
                    prop_assert_eq!(cell.state, CellState::Active);
                    prop_assert!(!in_country || cell.region.as_str() == "dakar");
                }
                Err(refusal) => {
                    let told = |cell: &Cell| refusal.detail().contains(cell.id.as_str());
                    prop_assert!(cells.iter().all(told));
                }
            }
        }
    }
}
