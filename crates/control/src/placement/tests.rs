//! The promises of placement, tried on fleets that nobody would think of.

use std::collections::BTreeMap;

use proptest::prelude::*;
use time::OffsetDateTime;
use waangu_registry::{CellUsage, Mfa};

use super::*;

const REGIONS: [(&str, &str); 3] = [("eu", "IE"), ("dakar", "SN"), ("us", "US")];
const STATES: [CellState; 4] = [
    CellState::Active,
    CellState::Full,
    CellState::Draining,
    CellState::Down,
];

fn regions() -> Vec<Region> {
    let region = |(id, country): &(&str, &str)| Region {
        id: id.parse().unwrap(),
        provider: "dc".to_owned(),
        country: country.parse().unwrap(),
        name: (*id).to_owned(),
    };
    REGIONS.iter().map(region).collect()
}

fn cell(id: &str, region: &str, capacity: i32, tenants: i64) -> Cell {
    Cell {
        id: id.parse().unwrap(),
        region: region.parse().unwrap(),
        environment: "dev".to_owned(),
        host: String::new(),
        port: 0,
        state: CellState::Active,
        sla: Sla::High,
        capacity,
        capacity_bytes: None,
        capacity_connections: None,
        bucket_limit: 400,
        tenants,
        usage: None,
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

fn profile(tier: Tier, sla: Sla, in_country: bool) -> Profile {
    Profile {
        id: "government".parse().unwrap(),
        title: BTreeMap::new(),
        tier,
        sla,
        in_country,
        modules: Vec::new(),
        roles: Vec::new(),
        retention_days: None,
        mfa: Mfa::Optional,
        reports: Vec::new(),
        limits: BTreeMap::new(),
    }
}

fn ids(cells: &[Cell]) -> Vec<CellId> {
    cells.iter().map(|cell| cell.id.clone()).collect()
}

fn question<'a>(
    country: &'a Country,
    profile: &'a Profile,
    regions: &'a [Region],
    cells: &'a [Cell],
    own: &'a [CellId],
) -> Question<'a> {
    Question {
        country,
        profile,
        tier: None,
        sla: None,
        environment: "dev",
        regions,
        cells,
        own,
    }
}

/// A regulator would find a ministry's data abroad.
#[test]
fn an_in_country_profile_never_leaves_the_country() {
    let cells = [cell("eu-1", "eu", 100, 0), cell("sn-1", "dakar", 100, 99)];
    let (regions, own) = (regions(), ids(&cells));
    let (country, profile) = (
        country(&["eu", "dakar"]),
        profile(Tier::Dedicated, Sla::High, true),
    );
    let mut question = question(&country, &profile, &regions, &cells, &own);
    let choice = choose(&question).unwrap();
    assert_eq!(choice.cell.as_str(), "sn-1");
    assert_eq!(choice.tier, Tier::Dedicated);
    question.cells = &cells[..1];
    let refusal = choose(&question).unwrap_err();
    assert_eq!(refusal.code(), "no-placement");
    assert!(refusal.detail().contains("eu-1"), "{refusal}");
}

/// A client who pays for a high service level would share its server's memory with strangers.
#[test]
fn a_high_service_level_gets_its_own_database_on_a_cell_run_for_it() {
    let mut plain = cell("plain", "eu", 100, 0);
    plain.sla = Sla::Standard;
    let cells = [plain, cell("premium", "eu", 100, 50)];
    let (regions, own) = (regions(), ids(&cells));
    let country = country(&["eu"]);
    let high = profile(Tier::Dedicated, Sla::High, false);
    let mut asked = question(&country, &high, &regions, &cells, &own);
    assert_eq!(choose(&asked).unwrap().cell.as_str(), "premium");
    asked.tier = Some(Tier::Shared);
    let refusal = choose(&asked).unwrap_err();
    assert_eq!(refusal.field_name(), Some("tier"));
    assert!(
        refusal.detail().contains("needs tier dedicated"),
        "{refusal}"
    );
    asked.sla = Some(Sla::Standard);
    let choice = choose(&asked).unwrap();
    assert_eq!(choice.cell.as_str(), "plain", "premium places are kept");
}

/// A server whose disk is full stops for everybody on it.
#[test]
fn measured_bytes_and_connections_are_bounds_too() {
    let mut full = cell("full", "eu", 100, 0);
    full.capacity_bytes = Some(1_000);
    let mut busy = cell("busy", "eu", 100, 0);
    busy.capacity_connections = Some(50);
    for cell in [&mut full, &mut busy] {
        cell.usage = Some(CellUsage {
            measured_at: OffsetDateTime::UNIX_EPOCH,
            bytes: 1_000,
            connections: 50,
        });
    }
    let cells = [full, busy, cell("free", "eu", 100, 99)];
    let (regions, own, country) = (regions(), ids(&cells), country(&["eu"]));
    let sme = profile(Tier::Shared, Sla::Standard, false);
    let verdict = weigh(&question(&country, &sme, &regions, &cells, &own));
    let names: Vec<&str> = verdict.ranked.iter().map(|w| w.cell.as_str()).collect();
    assert_eq!(names, ["free"]);
    assert_eq!(verdict.refused.len(), 2);
}

/// What a made-up cell is like.
type Made = (
    (usize, i32, i64, usize),
    (bool, bool, Option<i64>, i64, bool),
);

fn made() -> impl Strategy<Value = Vec<Made>> {
    let first = (0_usize..3, 1_i32..4, 0_i64..5, 0_usize..4);
    let second = (
        any::<bool>(),
        any::<bool>(),
        prop::option::of(1_i64..4),
        0_i64..5,
        any::<bool>(),
    );
    prop::collection::vec((first, second), 0..12)
}

fn build(fleet: &[Made]) -> (Vec<Cell>, Vec<CellId>) {
    let mut own = Vec::new();
    let build = |(n, made): (usize, &Made)| {
        let ((at, capacity, tenants, state), (high, here, bytes, used, known)) = *made;
        let mut cell = cell(&format!("c{n}"), REGIONS[at].0, capacity, tenants);
        cell.state = STATES[state];
        cell.sla = if high { Sla::High } else { Sla::Standard };
        cell.environment = if here { "dev" } else { "prod" }.to_owned();
        cell.capacity_bytes = bytes;
        cell.usage = Some(CellUsage {
            measured_at: OffsetDateTime::UNIX_EPOCH,
            bytes: used,
            connections: 0,
        });
        if known {
            own.push(cell.id.clone());
        }
        cell
    };
    let cells = fleet.iter().enumerate().map(build).collect();
    (cells, own)
}

proptest! {
    /// Whatever the fleet looks like, no promise is broken, and no cell is passed over in silence.
    #[test]
    fn promises_always_hold(
        fleet in made(),
        allowed in prop::collection::btree_set(0_usize..3, 0..3),
        in_country: bool,
        high: bool,
    ) {
        let (cells, own) = build(&fleet);
        let allowed: Vec<&str> = allowed.iter().map(|at| REGIONS[*at].0).collect();
        let (regions, country) = (regions(), country(&allowed));
        let sla = if high { Sla::High } else { Sla::Standard };
        let profile = profile(Tier::Dedicated, sla, in_country);
        let question = question(&country, &profile, &regions, &cells, &own);
        let verdict = weigh(&question);
        prop_assert_eq!(&verdict, &weigh(&question));
        prop_assert_eq!(verdict.ranked.len() + verdict.refused.len(), cells.len());
        for weighed in verdict.ranked.iter().chain(&verdict.refused) {
            prop_assert!(!weighed.reasons.is_empty());
        }
        for weighed in &verdict.ranked {
            let cell = cells.iter().find(|cell| cell.id == weighed.cell).unwrap();
            prop_assert!(allowed.contains(&cell.region.as_str()));
            prop_assert!(!in_country || cell.region.as_str() == "dakar");
            prop_assert!(cell.tenants < i64::from(cell.capacity));
            let bytes = cell.usage.unwrap().bytes;
            prop_assert!(cell.capacity_bytes.is_none_or(|most| bytes < most));
            prop_assert_eq!(cell.state, CellState::Active);
            prop_assert_eq!(cell.environment.as_str(), "dev");
            prop_assert!(cell.sla >= sla && own.contains(&cell.id));
        }
        match choose(&question) {
            Ok(choice) => prop_assert_eq!(&choice.cell, &verdict.ranked[0].cell),
            Err(refusal) => {
                prop_assert!(verdict.ranked.is_empty());
                let told = |cell: &Cell| refusal.detail().contains(cell.id.as_str());
                prop_assert!(cells.iter().all(told));
            }
        }
    }

    /// One server would carry everybody while its neighbours idle.
    #[test]
    fn load_stays_balanced_and_nothing_overflows(
        capacities in prop::collection::vec(1_i32..40, 1..6),
        tenants in 1_usize..120,
    ) {
        let mut cells: Vec<Cell> = capacities
            .iter()
            .enumerate()
            .map(|(n, capacity)| cell(&format!("c{n}"), "eu", *capacity, 0))
            .collect();
        let (regions, own, country) = (regions(), ids(&cells), country(&["eu"]));
        let profile = profile(Tier::Shared, Sla::Standard, false);
        let room: i32 = capacities.iter().sum();
        for placed in 0..tenants {
            let Ok(choice) = choose(&question(&country, &profile, &regions, &cells, &own)) else {
                prop_assert_eq!(i64::from(room), i64::try_from(placed).unwrap());
                break;
            };
            let taker = cells.iter_mut().find(|cell| cell.id == choice.cell).unwrap();
            taker.tenants += 1;
            // Nobody is ahead of anybody by more than its own last tenant.
            for ahead in &cells {
                for behind in &cells {
                    let before = (ahead.tenants - 1).max(0) * i64::from(behind.capacity);
                    prop_assert!(before <= behind.tenants * i64::from(ahead.capacity));
                }
            }
        }
        prop_assert!(cells.iter().all(|cell| cell.tenants <= i64::from(cell.capacity)));
    }
}
