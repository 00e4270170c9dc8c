//! Onboarding: how many tenants a second, and how long each one waits, by one client and by four.
//!
//! The contenders take turns, a batch each, in an order that turns with the rounds; a rate is that of a
//! batch, and a ratio that of two medians over the rounds. Peers work with as many processes as ours has
//! clients. Each contender makes one tenant before the clock runs.
//!
//! Ours has as many databases, and schemas, in stock as a batch has tenants: one batch of the tier takes
//! them, the next one finds none, and then all wait until the stock is full again, so that nobody's time
//! has the making of it in it.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use waangu_api::Client;
use waangu_api::types::CreateTenant;
use waangu_kernel::Tier;

use super::compare::{AT_ONCE, Contender, Results};
use super::stage::{CELL, COUNTRY, Stage};
use crate::failure::{Failure, Of as _};
use crate::peers::by_hand::{self, ByHand};
use crate::peers::django::{self, Django};
use crate::peers::server::Server;
use crate::peers::tryton::{self, Tryton};
use crate::peers::{Pass, Tries};
use crate::report::{Report, Series};
use crate::{Context, Effort};

/// Longest time of one batch: a contender that needs more is left out from there on.
const BATCH_PATIENCE: Duration = Duration::from_secs(90);

/// Longest wait for a full stock.
const STOCK_PATIENCE: Duration = Duration::from_mins(3);

/// Whole databases in stock.
const STOCK: &str = "select count(*) from pg_database
    where starts_with(datname::text, 'waangu_stock_') and datname <> 'waangu_stock_draft'";

/// The same of schemas, in the only bucket.
const SCHEMAS: &str = "select count(distinct schema_name) from waangu.migration
    where starts_with(schema_name, 'stock_')";
const BUCKET: &str = "waangu_schema_1";

/// So many schemas have room in it: all, as in the one database of django-tenants.
const ONE_BUCKET: u32 = 2_000;

/// A peer of issue 4 that is not here.
const RUSTANGO: &str = "rustango 0.62 (crates-io): its 330 crates would have to be built for the bench \
    alone, and no part of it was tried";

/// How many of each.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    rounds: usize,
    /// Tenants of one batch in the shared tier.
    shared: usize,
    /// Of all other batches.
    others: usize,
    /// Of django-tenants' clone, which gets slower with each schema that the database has.
    clones: usize,
    /// Rounds of Tryton, in which each of its processes makes one database: it takes seconds.
    tryton: usize,
}

impl Sizes {
    fn of(effort: Effort) -> Self {
        match effort {
            Effort::Quick => Self {
                rounds: 2,
                shared: 40,
                others: 4,
                clones: 2,
                tryton: 1,
            },
            Effort::Full => Self {
                rounds: 5,
                shared: 200,
                others: 20,
                clones: 5,
                tryton: 2,
            },
        }
    }

    /// Tenants of one batch.
    fn batch(self, contender: Contender, at_once: usize) -> usize {
        match contender {
            Contender::Ours(Tier::Shared) => self.shared,
            Contender::Django(django::Way::Clone) => self.clones,
            Contender::Tryton => at_once,
            _ => self.others,
        }
    }
}

/// All who take part.
struct Field {
    admin: Client,
    server: Server,
    contenders: Vec<Contender>,
    hand: Option<ByHand>,
    django: Option<Django>,
    tryton: Option<Tryton>,
    /// Tenants of all contenders so far, so that no name comes twice.
    made: usize,
    /// Databases, and schemas, in stock when it is full.
    stock: usize,
    /// Seconds until it was full again.
    refills: Vec<f64>,
}

pub(super) async fn measure(context: &Context, report: &mut Report) -> Result<(), Failure> {
    let sizes = Sizes::of(context.effort);
    let stock = sizes.others.to_string();
    let stage = Stage::build(context, ONE_BUCKET, &["--stock", &stock]).await?;
    stage.server.describe(report).await?;
    context.progress.phase("onboarding: the peers", 1);
    let mut field = Field::gather(&stage, sizes, report).await;
    let mut results = Results::default();
    for contender in field.contenders.clone() {
        if let Err(why) = field.batch_in_time(contender, 1, 1).await {
            field.drop_out(contender, &why, report).await?;
        }
    }
    field.refill().await?;
    field.refills.clear();
    for at_once in AT_ONCE {
        let phase = format!("onboarding, {at_once} at once");
        context.progress.phase(&phase, sizes.rounds);
        for round in 0..sizes.rounds {
            for contender in field.order(round, sizes) {
                let count = sizes.batch(contender, at_once);
                if !field.takes_part(contender) {
                    continue;
                }
                match field.batch_in_time(contender, at_once, count).await {
                    Ok(pass) => results.add(contender, at_once, pass),
                    Err(why) => field.drop_out(contender, &why, report).await?,
                }
                if matches!(contender, Contender::Ours(Tier::Schema | Tier::Dedicated)) {
                    field.refill().await?;
                }
            }
            context.progress.step();
        }
    }
    report
        .not_measured
        .push(format!("onboarding with {RUSTANGO}"));
    explain(sizes, report);
    results.report(report);
    report.series.push(Series {
        group: "stock",
        name: format!("until {} of both kinds are there again", sizes.others),
        unit: "s",
        what: String::new(),
        samples: std::mem::take(&mut field.refills),
    });
    drop(field);
    stage.strike().await
}

impl Field {
    /// Ours, and each peer that can be had.
    async fn gather(stage: &Stage, sizes: Sizes, report: &mut Report) -> Self {
        let (server, scratch) = (&stage.server, &stage.scratch);
        let mut field = Self {
            admin: stage.admin.clone(),
            server: server.clone(),
            contenders: Tier::ALL.map(Contender::Ours).to_vec(),
            hand: None,
            django: None,
            tryton: None,
            made: 0,
            stock: sizes.others,
            refills: Vec::new(),
        };
        match ByHand::prepare(server, scratch).await {
            Ok(hand) => {
                field.hand = Some(hand);
                let ways = by_hand::Way::ALL.map(Contender::Hand);
                field.contenders.extend(ways);
            }
            Err(why) => absent("createdb and psql", &why, report),
        }
        let workers = AT_ONCE.into_iter().max().unwrap_or(1);
        match Django::prepare(server, scratch, workers).await {
            Ok(django) => {
                let versions = django.versions.clone();
                report.facts.insert("django-tenants".to_owned(), versions);
                field.django = Some(django);
                let ways = django::Way::ALL.map(Contender::Django);
                field.contenders.extend(ways);
            }
            Err(why) => absent("django-tenants", &why, report),
        }
        match Tryton::prepare(server, scratch, workers).await {
            Ok(tryton) => {
                let versions = tryton::PACKAGES.join(", ");
                report.facts.insert("Tryton".to_owned(), versions);
                field.tryton = Some(tryton);
                field.contenders.push(Contender::Tryton);
            }
            Err(why) => absent("Tryton", &why, report),
        }
        field
    }

    /// Who follows whom in a round. Tenants that find a stock come just before those that find none.
    fn order(&self, round: usize, sizes: Sizes) -> Vec<Contender> {
        let mut order = self.contenders.clone();
        order.retain(|contender| *contender != Contender::Tryton || round < sizes.tryton);
        let turn = round % order.len();
        order.rotate_left(turn);
        for tier in [Tier::Schema, Tier::Dedicated] {
            let made = Contender::Ours(tier);
            if let Some(at) = order.iter().position(|contender| *contender == made) {
                order.insert(at, Contender::Stocked(tier));
            }
        }
        order
    }

    /// Whether it has not dropped out in this round.
    fn takes_part(&self, contender: Contender) -> bool {
        matches!(contender, Contender::Stocked(_)) || self.contenders.contains(&contender)
    }

    async fn batch_in_time(
        &mut self,
        contender: Contender,
        at_once: usize,
        count: usize,
    ) -> Result<Pass, Failure> {
        let batch = self.batch(contender, at_once, count);
        timeout(BATCH_PATIENCE, batch)
            .await
            .unwrap_or_else(|_late| {
                let seconds = BATCH_PATIENCE.as_secs();
                let text =
                    format!("{count} tenants, {at_once} at once, took more than {seconds} s");
                Err(Failure::new(text))
            })
    }

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
            Contender::Ours(tier) | Contender::Stocked(tier) => {
                ours(&self.admin, tier, at_once, numbers).await
            }
            Contender::Hand(way) => {
                let hand = self.hand.as_ref().ok_or_else(gone)?;
                hand.onboard(way, at_once, numbers).await
            }
            Contender::Django(way) => {
                let django = self.django.as_mut().ok_or_else(gone)?;
                django.onboard(way, at_once, numbers).await
            }
            Contender::Tryton => {
                let tryton = self.tryton.as_mut().ok_or_else(gone)?;
                tryton.onboard(at_once, numbers).await
            }
        }
    }

    /// Waits until the stock is full.
    async fn refill(&mut self) -> Result<(), Failure> {
        let client = self.server.connect("postgres").await?;
        let bucket = self.server.connect(BUCKET).await?;
        let began = Instant::now();
        loop {
            let row = client.query_one(STOCK, &[]).await.of("stock")?;
            let databases: i64 = row.try_get(0).of("stock")?;
            let row = bucket.query_one(SCHEMAS, &[]).await.of("stock")?;
            let there = databases.min(row.try_get(0).of("stock")?);
            if usize::try_from(there).is_ok_and(|there| there >= self.stock) {
                self.refills.push(began.elapsed().as_secs_f64());
                return Ok(());
            }
            if began.elapsed() > STOCK_PATIENCE {
                let seconds = STOCK_PATIENCE.as_secs();
                let text = format!("{there} of a kind in stock after {seconds} s");
                return Err(Failure::new(text));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// A peer that fails is left out from there on; if ours fails, there is nothing to compare.
    async fn drop_out(
        &mut self,
        contender: Contender,
        why: &Failure,
        report: &mut Report,
    ) -> Result<(), Failure> {
        absent(&contender.name(), why, report);
        self.contenders.retain(|other| *other != contender);
        match (contender, &mut self.django) {
            (Contender::Ours(_) | Contender::Stocked(_), _) => {
                return Err(Failure::new(format!("{}: {why}", contender.name())));
            }
            (Contender::Django(_), Some(django)) => {
                // Its other way must not wait for what this one has left.
                if let Err(why) = django.restart().await {
                    self.django = None;
                    absent("django-tenants", &why, report);
                }
            }
            (Contender::Tryton, _) => self.tryton = None,
            _ => {}
        }
        Ok(())
    }
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
        clones,
        tryton,
    } = sizes;
    report.notes.extend([
        format!(
            "onboarding: {rounds} rounds by one client and as many by {}, in each of them {shared} \
             tenants of the shared tier and {others} of each other way, {clones} of clones (issue 4 asks for 1,000 of \
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
        "from stock: a burst no longer than the stock; `schema: ours` and `dedicated: ours` are what comes \
         after it, when the stock is exhausted"
            .to_owned(),
        format!(
            "Tryton: rounds: {tryton}, of one database for each process; besides the 20 tables, \
             as its models, each has Tryton's own (users, rights, translations): for orientation, no goal"
        ),
    ]);
}
