//! The promises of the advisor's judgement, tried on tenants that nobody would think of.

use std::collections::BTreeMap;

use proptest::prelude::*;
use time::OffsetDateTime;
use waangu_kernel::TenantId;
use waangu_registry::{CellState, Country, Mfa, Profile, Region, Volume};

use super::*;

const REGIONS: [(&str, &str); 2] = [("eu", "IE"), ("dakar", "SN")];

/// What is asked about one tenant, owned.
#[derive(Debug, Clone)]
struct Case {
    regions: Vec<Region>,
    country: Country,
    profile: Profile,
    cells: Vec<Cell>,
    sla: Option<Sla>,
    subject: Subject,
    rates: Rates,
}

impl Case {
    fn question<'a>(&'a self, own: &'a [CellId]) -> Question<'a> {
        Question {
            country: &self.country,
            profile: &self.profile,
            tier: None,
            sla: self.sla,
            environment: "dev",
            regions: &self.regions,
            cells: &self.cells,
            own,
        }
    }

    fn own(&self) -> Vec<CellId> {
        self.cells.iter().map(|cell| cell.id.clone()).collect()
    }

    fn judge(&self, tier: Tier) -> Finding {
        let gauge = (threshold(tier), self.rates);
        let gauge = (tier != Tier::Shared).then_some(&gauge);
        judge(&self.question(&self.own()), &self.subject, tier, gauge)
    }

    /// The strongest tier that something speaks for.
    fn called_for(&self) -> Option<Tier> {
        let mut tiers = Tier::ALL.into_iter().rev();
        tiers.find(|tier| self.judge(*tier).level >= Level::Above)
    }
}

fn threshold(tier: Tier) -> Threshold {
    let bound = if tier == Tier::Dedicated { 1_000 } else { 100 };
    Threshold {
        tier,
        bytes: Some(bound),
        rows: Some(bound),
        requests_per_minute: Some(bound),
        database_ms_per_minute: Some(bound),
        window_hours: 24,
        hold_minutes: 60,
        release_percent: 70,
    }
}

fn region((id, country): &(&str, &str)) -> Region {
    Region {
        id: id.parse().unwrap(),
        provider: "dc".to_owned(),
        country: country.parse().unwrap(),
        name: (*id).to_owned(),
    }
}

fn cell(id: &str, region: &str, sla: Sla, state: CellState) -> Cell {
    Cell {
        id: id.parse().unwrap(),
        region: region.parse().unwrap(),
        environment: "dev".to_owned(),
        host: String::new(),
        port: 0,
        state,
        sla,
        capacity: 10,
        capacity_bytes: None,
        capacity_connections: None,
        bucket_limit: 400,
        tenants: 1,
        usage: None,
    }
}

fn profile(tier: Tier, sla: Sla, in_country: bool) -> Profile {
    Profile {
        id: "any".parse().unwrap(),
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

fn subject(tier: Tier, asked: Option<Tier>, bytes: i64, rows: i64) -> Subject {
    Subject {
        id: TenantId::new(1).unwrap(),
        slug: "acme".parse().unwrap(),
        country: "SN".parse().unwrap(),
        profile: Some("any".parse().unwrap()),
        cell: "home".parse().unwrap(),
        tier,
        asked_tier: asked,
        asked_sla: None,
        volume: Some(Volume {
            measured_at: OffsetDateTime::UNIX_EPOCH,
            bytes,
            rows: Some(rows),
        }),
    }
}

fn sla() -> impl Strategy<Value = Sla> {
    prop_oneof![3 => Just(Sla::Standard), 1 => Just(Sla::High)]
}

fn state() -> impl Strategy<Value = CellState> {
    prop_oneof![
        3 => Just(CellState::Active),
        1 => Just(CellState::Full),
        1 => Just(CellState::Down)
    ]
}

prop_compose! {
    fn case()(
        tier in prop::sample::select(Tier::ALL.to_vec()),
        asked in prop::option::of(prop::sample::select(Tier::ALL.to_vec())),
        own_sla in prop::option::of(sla()),
        (of_tier, of_sla, in_country) in
            (prop::sample::select(Tier::ALL.to_vec()), sla(), any::<bool>()),
        allowed in prop::sample::subsequence(vec!["eu", "dakar"], 1..=2),
        (home, home_state) in (prop::sample::select(vec!["eu", "dakar"]), state()),
        (other, other_state) in (prop::sample::select(vec!["eu", "dakar"]), state()),
        (home_sla, other_sla) in (sla(), sla()),
        (bytes, rows, requests, database_ms) in
            (0_i64..2_000, 0_i64..2_000, 0_i64..2_000, 0_i64..2_000),
    ) -> Case {
        Case {
            regions: REGIONS.iter().map(region).collect(),
            country: Country {
                code: "SN".parse().unwrap(),
                name: "Senegal".to_owned(),
                kin_abroad: false,
                regions: allowed.iter().map(|id| id.parse().unwrap()).collect(),
            },
            profile: profile(of_tier, of_sla, in_country),
            cells: vec![
                cell("home", home, home_sla, home_state),
                cell("other", other, other_sla, other_state),
            ],
            sla: own_sla,
            subject: subject(tier, asked, bytes, rows),
            rates: Rates { requests, database_ms },
        }
    }
}

proptest! {
    /// A regulator would find data abroad, or a client who pays for a high service level among
    /// strangers, because a machine said so.
    #[test]
    fn nothing_is_proposed_that_placement_refuses(case in case()) {
        let own = case.own();
        let question = case.question(&own);
        for tier in Tier::ALL {
            let (Some(to), reasons) = place(&question, &case.subject, tier) else { continue };
            prop_assert!(!reasons.is_empty());
            let cell = case.cells.iter().find(|cell| cell.id == to).unwrap();
            prop_assert_eq!(cell.state, CellState::Active);
            prop_assert!(case.country.regions.contains(&cell.region));
            prop_assert!(!case.profile.in_country || cell.region.as_str() == "dakar");
            let sla = case.sla.unwrap_or(case.profile.sla);
            prop_assert!(cell.sla >= sla);
            prop_assert!(sla == Sla::Standard || tier == Tier::Dedicated);
        }
    }

    /// Whoever grows would be sent back to where others feel the load.
    #[test]
    fn more_use_never_speaks_for_less(case in case(), more in 0_i64..2_000, which in 0..4) {
        let mut grown = case.clone();
        let volume = grown.subject.volume.as_mut().unwrap();
        match which {
            0 => volume.bytes += more,
            1 => volume.rows = volume.rows.map(|rows| rows + more),
            2 => grown.rates.requests += more,
            _ => grown.rates.database_ms += more,
        }
        for tier in Tier::ALL {
            prop_assert!(grown.judge(tier).level >= case.judge(tier).level);
        }
        prop_assert!(grown.called_for() >= case.called_for());
    }

    /// An operator who follows a proposal would be told to go on the next day, and the next.
    #[test]
    fn who_has_moved_as_proposed_stays(case in case()) {
        let Some(tier) = case.called_for() else { return Ok(()) };
        prop_assert!(tier >= case.subject.tier, "never less isolation");
        let own = case.own();
        let (Some(cell), _) = place(&case.question(&own), &case.subject, tier) else {
            return Ok(());
        };
        let mut moved = case.clone();
        moved.subject.tier = tier;
        moved.subject.cell = cell;
        prop_assert_eq!(moved.called_for(), None);
    }

    /// A proposal without evidence is an opinion.
    #[test]
    fn every_finding_says_what_was_seen(case in case()) {
        for tier in Tier::ALL {
            let finding = case.judge(tier);
            prop_assert_eq!(finding.level == Level::Below, finding.evidence.is_empty());
            prop_assert_eq!(finding.evidence.is_empty(), finding.criteria.is_empty());
        }
    }
}

/// The three criteria of the requirements, each on a tenant of shared tables that meets only that one.
#[test]
fn each_criterion_speaks_for_itself() {
    let plain = Case {
        regions: REGIONS.iter().map(region).collect(),
        country: Country {
            code: "SN".parse().unwrap(),
            name: "Senegal".to_owned(),
            kin_abroad: false,
            regions: vec!["dakar".parse().unwrap()],
        },
        profile: profile(Tier::Shared, Sla::Standard, false),
        cells: vec![cell("home", "dakar", Sla::High, CellState::Active)],
        sla: None,
        subject: subject(Tier::Shared, None, 10, 10),
        rates: Rates::default(),
    };
    assert_eq!(plain.called_for(), None);
    let met = |case: &Case, tier| -> Vec<&str> {
        let criteria = case.judge(tier).criteria;
        criteria.into_iter().map(Criterion::as_str).collect()
    };
    let mut bank = plain.clone();
    bank.profile = profile(Tier::Dedicated, Sla::Standard, false);
    assert_eq!(bank.called_for(), Some(Tier::Dedicated));
    assert_eq!(met(&bank, Tier::Dedicated), ["compliance"]);
    bank.subject.asked_tier = Some(Tier::Shared);
    assert_eq!(bank.called_for(), None, "somebody has asked for it");

    let mut large = plain.clone();
    large.subject = subject(Tier::Shared, None, 150, 10);
    assert_eq!(large.called_for(), Some(Tier::Schema));
    assert_eq!(met(&large, Tier::Schema), ["volume"]);

    let mut busy = plain.clone();
    busy.rates.database_ms = 1_500;
    assert_eq!(busy.called_for(), Some(Tier::Dedicated));
    assert_eq!(met(&busy, Tier::Dedicated), ["traffic"]);

    let mut promised = plain.clone();
    promised.sla = Some(Sla::High);
    assert_eq!(met(&promised, Tier::Dedicated), ["sla"]);

    let mut moved_law = plain;
    moved_law.country.regions = vec!["eu".parse().unwrap()];
    assert_eq!(
        moved_law.called_for(),
        Some(Tier::Shared),
        "the tier is fine"
    );
    assert_eq!(met(&moved_law, Tier::Shared), ["compliance"]);
}
