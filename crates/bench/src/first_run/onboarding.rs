//! Onboarding in each tier, through the front door, with the peer in the same loop.
//!
//! Ours and the peer's acts follow each other on one server, one at a time, in an order that changes
//! each round, so that whatever else the machine does falls on all alike.

use std::time::Duration;

use http::Method;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use waangu_api::types::{CreateTenant, CreateUser, UserView};
use waangu_api::{Client, ClientError};
use waangu_kernel::Tier;

use super::FRESH;
use super::by_hand::ByHand;
use super::rounds::{Rounds, Samples};
use crate::Context;
use crate::failure::Failure;
use crate::peers::server::Server;
use crate::platform::Platform;
use crate::report::Report;
use crate::scratch::Scratch;

/// Where all of it happens, and a country whose tenants live nowhere else.
const CELL: &str = "eu-west-1a";
const COUNTRY: &str = "IE";

/// Longest wait for a tenant's first good answer.
const SERVED_PATIENCE: Duration = Duration::from_secs(10);

/// What takes part in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contender {
    Ours(Tier),
    SchemaByHand,
    DatabaseByHand,
}

pub(super) async fn measure(
    context: &Context,
    tenants: usize,
    report: &mut Report,
) -> Result<(), Failure> {
    let scratch = Scratch::new()?;
    let (platform, _start) = Platform::start(&context.programs, &scratch, FRESH).await?;
    Server::of(&platform, CELL)?.describe(report).await?;
    let hand = ByHand::prepare(&platform, CELL, &context.programs, &scratch).await;
    let mut contenders = Tier::ALL.map(Contender::Ours).to_vec();
    match &hand {
        Ok(_) => contenders.extend([Contender::SchemaByHand, Contender::DatabaseByHand]),
        Err(reason) => report
            .not_measured
            .push(format!("onboarding by hand (createdb, psql): {reason}")),
    }
    let act = Act {
        platform: &platform,
        admin: platform.admin()?,
        hand: hand.ok(),
    };
    let mut rounds = Rounds::default();
    context
        .progress
        .phase("onboarding, all tiers and by hand", tenants);
    for round in 0..tenants {
        for contender in order(&contenders, round) {
            act.once(contender, round, &mut rounds).await?;
        }
        context.progress.step();
    }
    platform.stop().await?;
    scratch.remove()?;
    report.notes.push(format!(
        "onboarding: one platform with the demo fleet; one act at a time on cell {CELL}; tiers and \
         by-hand acts in one loop, in an order that changes each round; no warm-up, first acts count"
    ));
    rounds.report(report)
}

/// The contenders in the order of a round. If their number is prime, as 3 and 5 are, each of them
/// follows each other one equally often.
fn order(contenders: &[Contender], round: usize) -> Vec<Contender> {
    let count = contenders.len();
    let stride = 1 + round / count % (count - 1);
    (0..count)
        .filter_map(|place| contenders.get((place * stride + round) % count))
        .copied()
        .collect()
}

/// Does what is measured.
struct Act<'a> {
    platform: &'a Platform,
    admin: Client,
    hand: Option<ByHand>,
}

impl Act<'_> {
    async fn once(
        &self,
        contender: Contender,
        round: usize,
        rounds: &mut Rounds,
    ) -> Result<(), Failure> {
        match (contender, &self.hand) {
            (Contender::Ours(tier), _) => {
                let samples = match tier {
                    Tier::Shared => &mut rounds.shared,
                    Tier::Schema => &mut rounds.schema,
                    Tier::Dedicated => &mut rounds.dedicated,
                };
                self.tenant(&format!("{tier}-{round}"), tier, samples).await
            }
            (Contender::SchemaByHand, Some(hand)) => {
                let took = hand.schema(&format!("by_hand_{round}")).await?;
                rounds.schema_by_hand.push(milliseconds(took));
                Ok(())
            }
            (Contender::DatabaseByHand, Some(hand)) => {
                let took = hand.dedicated(&format!("by_hand_{round}")).await?;
                rounds.database_by_hand.push(milliseconds(took));
                Ok(())
            }
            (Contender::SchemaByHand | Contender::DatabaseByHand, None) => Ok(()),
        }
    }

    async fn tenant(&self, slug: &str, tier: Tier, samples: &mut Samples) -> Result<(), Failure> {
        let body = CreateTenant {
            slug: slug.to_owned(),
            name: slug.to_owned(),
            country: COUNTRY.to_owned(),
            tier: Some(tier.to_string()),
            ..CreateTenant::default()
        };
        let began = Instant::now();
        let accepted = self
            .admin
            .change(
                Method::POST,
                "/tenants",
                Some(&body),
                None,
                &|_operation| {},
            )
            .await?;
        samples.onboard.push(milliseconds(began.elapsed()));
        let (operation, placement) = (&accepted.operation, &accepted.placement);
        if operation.status != "succeeded" || placement.cell != CELL {
            return Err(Failure::new(format!(
                "tenant {slug} {} on cell {}: {}",
                operation.status,
                placement.cell,
                operation.error.as_deref().unwrap_or("no reason")
            )));
        }
        self.first_request(slug, samples).await?;
        samples.served.push(milliseconds(began.elapsed()));
        Ok(())
    }

    /// A new tenant's first user signs in and gets the first good answer from the module.
    async fn first_request(&self, slug: &str, samples: &mut Samples) -> Result<(), Failure> {
        let user = CreateUser {
            username: "ada".to_owned(),
            roles: vec!["inventory.viewer".to_owned()],
            ..CreateUser::default()
        };
        let path = format!("/tenants/{slug}/users");
        let began = Instant::now();
        let user: UserView = self
            .admin
            .send_json(Method::POST, &path, &user, None)
            .await?;
        samples.user.push(milliseconds(began.elapsed()));
        let password = user
            .password
            .ok_or_else(|| Failure::new("no password was made for a user without one"))?;

        let ready = &self.platform.ready;
        let login = self.admin.at(&ready.login, None);
        let began = Instant::now();
        let token = login.sign_in(&format!("ada@{slug}"), &password).await?;
        samples.sign_in.push(milliseconds(began.elapsed()));

        let port = ready
            .gateway
            .rsplit_once(':')
            .map_or("443", |(_, port)| port);
        let base = format!("https://{slug}.{}:{port}/api/inventory", ready.domain);
        let tenant = self.admin.at(&base, Some(&token));
        let began = Instant::now();
        while let Err(error) = tenant.get::<Value>("/products").await {
            // The gateway may not have heard of the tenant yet; anything else is a failure.
            let early = matches!(&error, ClientError::Refused(problem) if problem.status < 500);
            if !early || began.elapsed() > SERVED_PATIENCE {
                return Err(error.into());
            }
            samples.refused += 1;
            sleep(Duration::from_millis(2)).await;
        }
        samples.request.push(milliseconds(began.elapsed()));
        Ok(())
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that always follows a heavy one would pay for what that one left to be written.
    #[test]
    fn each_contender_follows_each_other_one_equally_often() {
        let mut all = Tier::ALL.map(Contender::Ours).to_vec();
        all.extend([Contender::SchemaByHand, Contender::DatabaseByHand]);
        let mut pairs = Vec::new();
        for round in 0..20 {
            let order = order(&all, round);
            assert_eq!(order.len(), 5);
            pairs.extend(order.windows(2).map(|pair| (pair[0], pair[1])));
        }
        for first in &all {
            for second in all.iter().filter(|second| *second != first) {
                let count = pairs
                    .iter()
                    .filter(|pair| **pair == (*first, *second))
                    .count();
                assert_eq!(count, 4, "{first:?} before {second:?}");
            }
        }
    }
}
