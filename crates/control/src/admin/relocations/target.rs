//! Where a move goes: what was asked for, weighed like the place of a new tenant.

use waangu_api::relocation::StartRelocation;
use waangu_kernel::{CellId, Fault, Placement, RegionId, Tier, fault};
use waangu_registry::{Hold, NewRelocation, Phase, Relocation, Tenant, Tx};

use super::super::create::check_name;
use super::super::settings::Settings;
use super::super::surroundings::Surroundings;
use super::check_settled;
use crate::placement::{Verdict, Weighed};
use crate::relocation::tables;
use crate::server::App;

/// Pauses that can be promised, in milliseconds.
const PAUSES: std::ops::RangeInclusive<i32> = 50..=4_000;

/// The pause if none was asked for.
const PAUSE: i32 = 500;

/// What was asked for, parsed.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(in crate::admin) tier: Option<Tier>,
    pub(in crate::admin) cell: Option<CellId>,
    region: Option<RegionId>,
    back: bool,
    max_pause_ms: i32,
    rate: Option<i64>,
    why: Option<String>,
}

impl Wish {
    pub(super) fn parse(body: StartRelocation) -> Result<Self, Fault> {
        let max_pause_ms = body.max_pause_ms.unwrap_or(PAUSE);
        if !PAUSES.contains(&max_pause_ms) {
            return Err(invalid("the pause is 50 to 4,000 ms", "max_pause_ms"));
        }
        if body.rate.is_some_and(|rate| rate < 1024) {
            return Err(invalid("the rate is at least 1,024 bytes a second", "rate"));
        }
        let placed = body.tier.is_some() || body.cell.is_some() || body.region.is_some();
        if body.back && placed {
            return Err(invalid("the way back names no other place", "back"));
        }
        let tier = body.tier.as_deref().map(str::parse).transpose();
        let cell = body.cell.as_deref().map(str::parse).transpose();
        let region = body.region.as_deref().map(str::parse).transpose();
        let why = body.why.map(check_name).transpose();
        Ok(Self {
            tier: tier.map_err(|fault: Fault| fault.field("tier"))?,
            cell: cell.map_err(|fault: Fault| fault.field("cell"))?,
            region: region.map_err(|fault: Fault| fault.field("region"))?,
            back: body.back,
            max_pause_ms,
            rate: body.rate,
            why: why.map_err(|fault| fault.field("why"))?,
        })
    }

    /// A move to wherever the tenant may be, off its cell.
    pub(in crate::admin) fn away(why: String) -> Self {
        Self {
            tier: None,
            ..Self::to(Tier::Shared, None, why)
        }
    }

    /// A move to a tier, on this cell or whichever is best.
    pub(crate) fn to(tier: Tier, cell: Option<CellId>, why: String) -> Self {
        Self {
            tier: Some(tier),
            cell,
            region: None,
            back: false,
            max_pause_ms: PAUSE,
            rate: None,
            why: Some(why),
        }
    }

    /// Chooses the place and keeps it free until the transaction ends. The tenant is locked.
    pub(crate) async fn choose(
        mut self,
        app: &App,
        tx: &Tx<'_>,
        tenant: &Tenant,
        actor: &str,
    ) -> Result<NewRelocation, Fault> {
        check_settled(tenant)?;
        let open = tx.list_relocations(Some(tenant.id), 1).await?.pop();
        if let Some(open) = open.filter(|last| !last.phase.is_over()) {
            let detail = format!("move {} is {}", open.id, open.phase.as_str());
            return Err(fault::RELOCATION_OPEN.fault(detail));
        }
        let mut left = None;
        if self.back {
            let place = way_back(tx, tenant).await?.from;
            (self.tier, self.cell) = (Some(place.tier), Some(place.cell.clone()));
            left = Some(place);
        }
        // Alone: a bound must not be passed by a creation beside it.
        tx.lock_placement(Hold::Exclusive).await?;
        let surroundings = Surroundings::read(app, tx).await?;
        let settings = Settings::read(tx, tenant).await?;
        let tier = self.tier.unwrap_or(tenant.placement.tier);
        let verdict = surroundings.elsewhere(&settings, tenant, tier);
        let verdict = verdict.ok_or_else(|| {
            fault::NO_PLACEMENT.fault("its profile or country is not declared any more")
        })?;
        let best = self.pick(&surroundings, &verdict, tenant)?;
        let from = tenant.placement.clone();
        if (&best.cell, tier) == (&from.cell, from.tier) {
            return Err(
                fault::ALREADY_THERE.fault(format!("the tenant is {tier} in {}", from.cell))
            );
        }
        let bucket = match (tier, left) {
            (Tier::Schema, Some(left)) => tx.choose_bucket_back(&best.cell, left.bucket).await?,
            (Tier::Schema, None) => tx.choose_bucket(&best.cell).await?,
            (Tier::Shared | Tier::Dedicated, _) => 0,
        };
        let to = Placement {
            cell: best.cell.clone(),
            tier,
            bucket,
            epoch: from.epoch + 1,
        };
        check_versions(app, tx, tenant, &to).await?;
        let reasons = vec![
            format!("tier {tier}: moved by {actor}"),
            format!("cell {}", best.line()),
        ];
        Ok(NewRelocation {
            tenant: tenant.id,
            from,
            to,
            reasons,
            why: self.why,
            actor: actor.to_owned(),
            max_pause_ms: self.max_pause_ms,
            rate: self.rate,
        })
    }

    /// The best cell that fits the wish; its own, if it may stay there and nothing else was asked for.
    fn pick<'v>(
        &self,
        surroundings: &Surroundings<'_>,
        verdict: &'v Verdict,
        tenant: &Tenant,
    ) -> Result<&'v Weighed, Fault> {
        let in_region = |cell: &CellId| {
            let found = surroundings.cells.iter().find(|known| known.id == *cell);
            let region = found.map(|known| &known.region);
            self.region
                .as_ref()
                .is_none_or(|wanted| region == Some(wanted))
        };
        let fits = |weighed: &&Weighed| {
            self.cell.as_ref().is_none_or(|cell| *cell == weighed.cell) && in_region(&weighed.cell)
        };
        if let Some(cell) = &self.cell
            && !surroundings.cells.iter().any(|known| known.id == *cell)
        {
            return Err(fault::CELL_NOT_FOUND
                .fault(format!("there is no cell `{cell}`"))
                .field("cell"));
        }
        let mut fitting = verdict.ranked.iter().filter(fits);
        let own = fitting
            .clone()
            .find(|weighed| weighed.cell == tenant.placement.cell);
        let stays = own.filter(|_| self.tier.is_some_and(|tier| tier != tenant.placement.tier));
        if let Some(best) = stays.or_else(|| fitting.next()) {
            return Ok(best);
        }
        let refusals: Vec<String> = verdict
            .refused
            .iter()
            .filter(fits)
            .map(Weighed::line)
            .collect();
        let why = if refusals.is_empty() {
            "there is no such cell".to_owned()
        } else {
            refusals.join("; ")
        };
        let field = match (&self.cell, &self.region) {
            (Some(_), _) => "cell",
            (None, Some(_)) => "region",
            (None, None) => "tier",
        };
        Err(fault::NO_PLACEMENT
            .fault(format!("no cell may take the tenant: {why}"))
            .field(field))
    }
}

/// The last move, while what it left at its old place is kept.
pub(super) async fn way_back(tx: &Tx<'_>, tenant: &Tenant) -> Result<Relocation, Fault> {
    let last = tx.list_relocations(Some(tenant.id), 50).await?;
    let last = last.into_iter().find(|moved| moved.phase == Phase::Done);
    let last = last.filter(|moved| moved.to == tenant.placement && moved.cleaned_at.is_none());
    last.ok_or_else(|| {
        fault::RELOCATION_NOT_FOUND
            .fault("the tenant has made no move that can be taken back")
            .field("back")
    })
}

/// Refuses a target whose tables, which others use too, stand on another package.
async fn check_versions(
    app: &App,
    tx: &Tx<'_>,
    tenant: &Tenant,
    to: &Placement,
) -> Result<(), Fault> {
    if to.tier != Tier::Shared {
        return Ok(());
    }
    let there = tx.list_namespaces(tenant.id, to).await?;
    for module in tables(&app.reconciler, tx, tenant).await? {
        let id = module.package.id();
        let other = there
            .iter()
            .find(|namespace| namespace.module == *id && !namespace.hash.is_empty());
        if other.is_some_and(|other| other.hash != module.hash) {
            return Err(fault::RELOCATION_REFUSED.fault(format!(
                "the shared tables of module `{id}` in {} stand on another version than the tenant's; \
                 upgrade the fleet first",
                to.cell
            )));
        }
    }
    Ok(())
}

fn invalid(why: &'static str, field: &'static str) -> Fault {
    fault::INVALID_FIELD.fault(why).field(field)
}
