//! Onboarding: how many tenants a second, and how long each one waits, by one client and by four.
//!
//! The contenders take turns, a batch each, in an order that turns with the rounds; a rate is that of a
//! batch, and a ratio that of two medians over the rounds. Peers work with as many processes as ours has
//! clients. Each contender makes one tenant before the clock runs.

use waangu_api::Client;
use waangu_api::types::CreateTenant;
use waangu_kernel::Tier;

use super::compare::{AT_ONCE, Contender, Results};
use super::stage::{CELL, COUNTRY, Stage};
use crate::failure::Failure;
use crate::peers::by_hand::{self, ByHand};
use crate::peers::django::{self, Django};
use crate::peers::{Pass, Tries};
use crate::report::Report;
use crate::{Context, Effort};

/// How many of each.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    rounds: usize,
    /// Tenants of one batch in the shared tier.
    shared: usize,
    /// Of all other batches.
    others: usize,
}

impl Sizes {
    fn of(effort: Effort) -> Self {
        match effort {
            Effort::Quick => Self {
                rounds: 2,
                shared: 40,
                others: 4,
            },
            Effort::Full => Self {
                rounds: 5,
                shared: 200,
                others: 20,
            },
        }
    }

    fn batch(self, contender: Contender) -> usize {
        match contender {
            Contender::Ours(Tier::Shared) => self.shared,
            _ => self.others,
        }
    }
}

/// All who take part.
struct Field {
    admin: Client,
    hand: Option<ByHand>,
    django: Option<Django>,
    /// Tenants of each contender so far, so that no name comes twice.
    made: usize,
}

pub(super) async fn measure(context: &Context, report: &mut Report) -> Result<(), Failure> {
    let sizes = Sizes::of(context.effort);
    let stage = Stage::build(context, &[]).await?;
    stage.server.describe(report).await?;
    let mut field = Field {
        admin: stage.admin.clone(),
        hand: None,
        django: None,
        made: 0,
    };
    context.progress.phase("onboarding: the peers", 2);
    let mut contenders = Tier::ALL.map(Contender::Ours).to_vec();
    match ByHand::prepare(&stage.server, &stage.scratch).await {
        Ok(hand) => {
            field.hand = Some(hand);
            contenders.extend(by_hand::Way::ALL.map(Contender::Hand));
        }
        Err(why) => absent("createdb and psql", &why, report),
    }
    context.progress.step();
    let workers = AT_ONCE.into_iter().max().unwrap_or(1);
    match Django::prepare(&stage.server, &stage.scratch, workers).await {
        Ok(django) => {
            let versions = django.versions.clone();
            report.facts.insert("django-tenants".to_owned(), versions);
            field.django = Some(django);
            contenders.extend(django::Way::ALL.map(Contender::Django));
        }
        Err(why) => absent("django-tenants", &why, report),
    }
    let mut results = Results::default();
    for contender in contenders.clone() {
        if let Err(why) = field.batch(contender, 1, 1).await {
            drop_out(contender, why, &mut contenders, report)?;
        }
    }
    for at_once in AT_ONCE {
        let phase = format!("onboarding, {at_once} at once");
        context.progress.phase(&phase, sizes.rounds);
        for round in 0..sizes.rounds {
            let mut order = contenders.clone();
            order.rotate_left(round % contenders.len());
            for contender in order {
                match field
                    .batch(contender, at_once, sizes.batch(contender))
                    .await
                {
                    Ok(pass) => results.add(contender, at_once, pass),
                    Err(why) => drop_out(contender, why, &mut contenders, report)?,
                }
            }
            context.progress.step();
        }
    }
    stage.strike().await?;
    explain(sizes, report);
    results.report(report);
    Ok(())
}

impl Field {
    async fn batch(
        &mut self,
        contender: Contender,
        at_once: usize,
        count: usize,
    ) -> Result<Pass, Failure> {
        let numbers = self.made..self.made + count;
        self.made += count;
        let gone = || Failure::new("it does not take part");
        match contender {
            Contender::Ours(tier) => ours(&self.admin, tier, at_once, numbers).await,
            Contender::Hand(way) => {
                let hand = self.hand.as_ref().ok_or_else(gone)?;
                hand.onboard(way, at_once, numbers).await
            }
            Contender::Django(way) => {
                let django = self.django.as_mut().ok_or_else(gone)?;
                django.onboard(way, at_once, numbers).await
            }
        }
    }
}

/// A peer that fails is left out from there on; if ours fails, there is nothing to compare.
fn drop_out(
    contender: Contender,
    why: Failure,
    contenders: &mut Vec<Contender>,
    report: &mut Report,
) -> Result<(), Failure> {
    if matches!(contender, Contender::Ours(_)) {
        return Err(why);
    }
    contenders.retain(|other| *other != contender);
    absent(&contender.name(), &why, report);
    Ok(())
}

fn absent(who: &str, why: &Failure, report: &mut Report) {
    report
        .not_measured
        .push(format!("onboarding with {who}: {why}"));
}

async fn ours(
    admin: &Client,
    tier: Tier,
    at_once: usize,
    numbers: std::ops::Range<usize>,
) -> Result<Pass, Failure> {
    Pass::run(0..at_once, numbers, async |_client, number| {
        tenant(admin, &format!("{tier}-{number}"), tier).await?;
        Ok(Tries::default())
    })
    .await
}

/// `POST /tenants`, and waits until the tenant is there.
pub(super) async fn tenant(admin: &Client, slug: &str, tier: Tier) -> Result<(), Failure> {
    let body = CreateTenant {
        slug: slug.to_owned(),
        name: slug.to_owned(),
        country: COUNTRY.to_owned(),
        tier: Some(tier.to_string()),
        ..CreateTenant::default()
    };
    let accepted = admin
        .change(http::Method::POST, "/tenants", Some(&body), None, &|_| {})
        .await?;
    let (operation, placement) = (&accepted.operation, &accepted.placement);
    if operation.status != "succeeded" || placement.cell != CELL {
        return Err(Failure::new(format!(
            "tenant {slug} {} on cell {}: {}",
            operation.status,
            placement.cell,
            operation.error.as_deref().unwrap_or("no reason")
        )));
    }
    Ok(())
}

fn explain(sizes: Sizes, report: &mut Report) {
    let Sizes {
        rounds,
        shared,
        others,
    } = sizes;
    report.notes.extend([
        format!(
            "onboarding: {rounds} rounds by one client and as many by {}, in each of them {shared} \
             tenants of the shared tier and {others} of each other way (issue 4 asks for 1,000 of \
             each); one platform, one cell that also holds the control database; contenders take \
             turns, in an order that turns with the rounds; one tenant each before the clock runs",
            AT_ONCE.into_iter().max().unwrap_or(1)
        ),
        "ours: POST /admin/v1/tenants with `Prefer: wait` over HTTPS through the gateway, until the \
         operation has succeeded: choice of place, registry, audit, tables with row-level security \
         for two logins, home row"
            .to_owned(),
        "the tables: ours have tenant_id first in every key and index, theirs are the same without it. \
         django-tenants runs them as RunSQL; its processes, and Python, start before the clock; \
         createdb and psql are processes for each tenant, as they are by hand, and make no logins, \
         rights, row-level security, registry or audit"
            .to_owned(),
    ]);
}
