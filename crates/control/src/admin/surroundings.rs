//! What placements are decided on, read once.

use futures_util::try_join;
use waangu_api::places::{PlacementToday, WeighedView};
use waangu_kernel::{CellId, Fault, Tier};
use waangu_registry::{Cell, Country, Profile, Region, Tenant, Tx};

use super::settings::Settings;
use crate::config::Config;
use crate::placement::{Question, Verdict, Weighed, weigh};
use crate::server::App;

/// Regions, cells, and which of them are at hand.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    config: &'a Config,
    regions: Vec<Region>,
    pub(super) cells: Vec<Cell>,
    own: Vec<CellId>,
}

impl<'a> Surroundings<'a> {
    /// Reads them.
    pub(super) async fn read(app: &'a App, tx: &Tx<'_>) -> Result<Self, Fault> {
        let (regions, cells) = try_join!(tx.list_regions(), tx.list_cells())?;
        Ok(Self {
            config: &app.config,
            regions,
            cells,
            own: app.config.own_cells(),
        })
    }

    /// The question where a tenant of this country and profile goes.
    pub(super) fn question<'q>(
        &'q self,
        country: &'q Country,
        profile: &'q Profile,
    ) -> Question<'q> {
        Question {
            country,
            profile,
            tier: None,
            sla: None,
            environment: &self.config.environment,
            regions: &self.regions,
            cells: &self.cells,
            own: &self.own,
        }
    }

    /// Where a tenant would be placed if it came today. It makes room for itself where it lives.
    pub(super) fn today(&self, settings: &Settings, tenant: &Tenant) -> Option<Verdict> {
        self.weighed(settings, tenant, settings.asked_tier())
    }

    fn weighed(&self, settings: &Settings, tenant: &Tenant, tier: Option<Tier>) -> Option<Verdict> {
        let (country, profile) = (settings.country.as_ref()?, settings.profile.as_ref()?);
        let mut cells = self.cells.clone();
        for cell in &mut cells {
            if cell.id == tenant.placement.cell {
                cell.tenants = cell.tenants.saturating_sub(1);
            }
        }
        Some(weigh(&Question {
            tier,
            sla: settings.asked_sla(),
            cells: &cells,
            ..self.question(country, profile)
        }))
    }

    /// Where it could be in another tier. It makes room for itself where it lives.
    pub(super) fn elsewhere(
        &self,
        settings: &Settings,
        tenant: &Tenant,
        tier: Tier,
    ) -> Option<Verdict> {
        self.weighed(settings, tenant, Some(tier))
    }

    /// The same for people, beside what was decided.
    pub(super) fn explain(&self, settings: &Settings, tenant: &Tenant) -> Option<PlacementToday> {
        let verdict = self.today(settings, tenant)?;
        let differences = differences(&verdict, tenant);
        Some(PlacementToday {
            tier_reason: verdict.tier_reason,
            ranked: verdict.ranked.into_iter().map(weighed).collect(),
            refused: verdict.refused.into_iter().map(weighed).collect(),
            differences,
        })
    }
}

fn differences(verdict: &Verdict, tenant: &Tenant) -> Vec<String> {
    let home = &tenant.placement.cell;
    let mut differences = Vec::new();
    if verdict.tier != tenant.placement.tier {
        differences.push(format!(
            "it has tier {}, would get tier {}",
            tenant.placement.tier, verdict.tier
        ));
    }
    if let Some(not) = verdict.refused.iter().find(|weighed| weighed.cell == *home) {
        differences.push(format!(
            "it lives in {home}, which would not take it: {}",
            not.reasons.join(", ")
        ));
    }
    match verdict.ranked.first() {
        Some(best) if best.cell != *home => {
            differences.push(format!("it would go to {}", best.cell));
        }
        Some(_) => {}
        None => differences.push("no cell would take it".to_owned()),
    }
    differences
}

fn weighed(weighed: Weighed) -> WeighedView {
    WeighedView {
        cell: weighed.cell.into(),
        reasons: weighed.reasons,
    }
}
