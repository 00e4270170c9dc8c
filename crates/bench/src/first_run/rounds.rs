//! What the rounds of onboarding came to: series, ratios, goals, and what is in each number.

use waangu_kernel::Tier;

use crate::failure::Failure;
use crate::goal::Goal;
use crate::report::{Ratio, Report, Series};
use crate::stats::Summary;

const ONBOARDING: &str = "onboarding";
const AFTERWARDS: &str = "after onboarding";
const BY_HAND: &str = "by hand, same server";

/// Milliseconds of one tier.
#[derive(Debug, Default)]
pub(super) struct Samples {
    pub(super) onboard: Vec<f64>,
    pub(super) user: Vec<f64>,
    pub(super) sign_in: Vec<f64>,
    pub(super) request: Vec<f64>,
    pub(super) served: Vec<f64>,
    /// Answers other than 200 before the first 200.
    pub(super) refused: usize,
}

#[derive(Debug, Default)]
pub(super) struct Rounds {
    pub(super) shared: Samples,
    pub(super) schema: Samples,
    pub(super) dedicated: Samples,
    pub(super) schema_by_hand: Vec<f64>,
    pub(super) database_by_hand: Vec<f64>,
}

impl Rounds {
    /// Adds series, ratios, goals and notes to the report.
    pub(super) fn report(self, report: &mut Report) -> Result<(), Failure> {
        let tiers = [
            (Tier::Shared, self.shared),
            (Tier::Schema, self.schema),
            (Tier::Dedicated, self.dedicated),
        ];
        let by_hand = [
            (
                Tier::Schema,
                "psql (create schema, module.sql)",
                self.schema_by_hand,
            ),
            (
                Tier::Dedicated,
                "createdb, then psql (module.sql)",
                self.database_by_hand,
            ),
        ];
        for (tier, samples) in &tiers {
            goals(*tier, &samples.onboard, report)?;
        }
        for (tier, peer, samples) in &by_hand {
            let ours = tiers.iter().find(|(known, _)| known == tier);
            if let Some((_, ours)) = ours {
                ratios(*tier, peer, (&ours.onboard, samples), report);
            }
        }
        let refused: usize = tiers.iter().map(|(_, samples)| samples.refused).sum();
        for (tier, samples) in &tiers {
            let name = format!("{tier}: onboard");
            report
                .series
                .push(series(ONBOARDING, name, &samples.onboard));
        }
        for (tier, samples) in tiers {
            for (name, samples) in [
                ("create user", samples.user),
                ("sign in", samples.sign_in),
                ("first request", samples.request),
                ("POST /tenants to first 200", samples.served),
            ] {
                let name = format!("{tier}: {name}");
                report.series.push(series(AFTERWARDS, name, &samples));
            }
        }
        for (tier, peer, samples) in by_hand {
            if !samples.is_empty() {
                let name = format!("{tier}: {peer}");
                report.series.push(series(BY_HAND, name, &samples));
            }
        }
        explain(refused, report);
        Ok(())
    }
}

fn explain(refused: usize, report: &mut Report) {
    let notes = [
        "onboard: one POST /admin/v1/tenants with `Prefer: wait` over HTTPS through the gateway on a \
         kept connection (the very first one opens it), until the answer says that the operation has \
         succeeded: choice of place, registry, audit, namespace, module tables with row-level \
         security, home row; in the shared tier the tables are there already"
            .to_owned(),
        "create user: one POST by the operator (Argon2id); sign in: password grant (Argon2id); first \
         request: GET /api/inventory/products on the tenant's own host, with a new TCP and TLS \
         connection (and in a new database the module's first connection to it), until 200"
            .to_owned(),
        "POST /tenants to first 200: all four in a row, as one wall time".to_owned(),
        "by hand: fresh processes of the server's own createdb and psql, one transaction, the \
         module's tables only: no row-level security, login, registry, routing or audit"
            .to_owned(),
        format!("first requests answered with a 4xx before their 200: {refused}"),
    ];
    report.notes.extend(notes);
}

/// Goals of issue 2, for median and p95 alike, in milliseconds.
fn goals(tier: Tier, samples: &[f64], report: &mut Report) -> Result<(), Failure> {
    let limit = match tier {
        Tier::Shared => 30.0,
        Tier::Schema => 250.0,
        Tier::Dedicated => 1000.0,
    };
    let summary = Summary::of(samples)
        .ok_or_else(|| Failure::new(format!("no {tier} tenant was onboarded")))?;
    for (name, value) in [("median", summary.median), ("p95", summary.p95)] {
        let name = format!("onboard {tier}, {name}");
        report.goals.push(Goal::at_most(name, "ms", value, limit));
    }
    Ok(())
}

fn ratios(tier: Tier, peer: &str, (ours, theirs): (&[f64], &[f64]), report: &mut Report) {
    let (Some(ours), Some(theirs)) = (Summary::of(ours), Summary::of(theirs)) else {
        return;
    };
    for (name, value) in [
        ("median", theirs.median / ours.median),
        ("p95", theirs.p95 / ours.p95),
    ] {
        let name = format!("{tier}: time of {peer} / time of ours, {name}");
        report.ratios.push(Ratio { name, value });
    }
}

fn series(group: &'static str, name: String, samples: &[f64]) -> Series {
    Series {
        group,
        name,
        unit: "ms",
        what: String::new(),
        samples: samples.to_vec(),
    }
}
