//! What needs thousands of tenants: one platform serves, in this order, deploys with nothing to migrate,
//! looks for drift, upgrades, and a kill in the middle of one. The peer's acts are on the same server, in
//! turns with ours. A platform of its own serves the gateways' snapshot.

use super::crowd::Crowd;
use super::peer::Peer;
use super::second::Seconds;
use super::{kill, noop, reconcile, snapshot, upgrade};
use crate::failure::Failure;
use crate::report::Report;
use crate::{Context, Effort};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// Tenants with a schema of their own, at first and in the end.
    few: usize,
    schemas: usize,
    /// Tenants of the shared tier.
    shared: usize,
    /// The peer's tenants.
    peer: usize,
    /// Deploys at each size, and looks for drift.
    times: usize,
    /// Tenants in a gateway's memory.
    snapshot: usize,
    /// Changes made through the admin API.
    changes: usize,
}

impl Sizes {
    fn of(effort: Effort) -> Self {
        match effort {
            Effort::Quick => Self {
                few: 10,
                schemas: 60,
                shared: 1_000,
                peer: 30,
                times: 3,
                snapshot: 20_000,
                changes: 50,
            },
            Effort::Full => Self {
                few: 100,
                schemas: 2_000,
                shared: 10_000,
                peer: 400,
                times: 5,
                snapshot: 100_000,
                changes: 300,
            },
        }
    }
}

/// Measures all of it.
pub(super) async fn run(context: &Context, report: &mut Report) -> Result<(), Failure> {
    let sizes = Sizes::of(context.effort);
    crowded(context, sizes, report).await?;
    snapshot::run(context, sizes.snapshot, sizes.changes, report).await?;
    explain(sizes, report);
    Ok(())
}

async fn crowded(context: &Context, sizes: Sizes, report: &mut Report) -> Result<(), Failure> {
    let mut crowd = Crowd::start(context).await?;
    let seconds = Seconds::prepare(&crowd).await?;
    crowd.onboard(context, sizes.few).await?;
    let few = noop::deploy(context, &crowd, &seconds, sizes.few, sizes.times).await?;
    context.progress.phase("the peer's tenants", sizes.peer);
    let mut peer = match Peer::prepare(&crowd, sizes.peer).await {
        Ok(peer) => {
            let versions = peer.django.versions.clone();
            report.facts.insert("django-tenants".to_owned(), versions);
            Some(peer)
        }
        Err(why) => {
            let what = "upgrades, deploys and kills with django-tenants";
            report.not_measured.push(format!("{what}: {why}"));
            None
        }
    };
    crowd.onboard(context, sizes.schemas).await?;
    crowd.share(sizes.shared - 1).await?;
    let all = sizes.schemas + sizes.shared;
    let many = noop::deploy(context, &crowd, &seconds, all, sizes.times).await?;
    noop::report(&few, &many, peer.as_ref(), report).await?;
    reconcile::run(context, &crowd, &seconds, sizes.times, report).await?;
    upgrade::run(context, &crowd, peer.as_mut(), report).await?;
    kill::run(context, &crowd, peer.as_mut(), report).await?;
    drop(peer);
    crowd.stage.strike().await
}

fn explain(sizes: Sizes, report: &mut Report) {
    let Sizes {
        schemas,
        shared,
        peer,
        ..
    } = sizes;
    report.notes.extend([
        format!(
            "many tenants: {schemas} with a schema of 20 tables each, onboarded through the admin API, and \
             {shared} of the shared tier, all but one by SQL in registry and cell; one server for the \
             registry, the cell and the peer. A look for drift over all of them finds nothing"
        ),
        format!(
            "django-tenants: {peer} tenants on the same server, made by SQL as its migrations make them; \
             `migrate_schemas --tenant`, its multiprocessing executor with 4 processes; Python's start is \
             in its time. It is compared by tenants a second: fewer schemas in the database favour it"
        ),
        "ours: rollouts through the admin API to all at once, at most 4 connections to the cell; \
         deploys and looks for drift by a second control process with a login of its own, whose \
         statements PostgreSQL counts; its start is in its time"
            .to_owned(),
    ]);
    report.not_measured.extend(
        [
            "upgrades, deploys and kills with other peers than django-tenants",
            "kill -9 of PostgreSQL in the middle of an upgrade (`torture fleet` does it)",
        ]
        .map(str::to_owned),
    );
}
