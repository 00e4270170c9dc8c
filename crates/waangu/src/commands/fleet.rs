//! `waangu fleet`: all tenants at once.

use std::time::Duration;

use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use waangu_api::Client;
use waangu_api::fleet::{
    FindingView, FleetView, RepairView, RolloutView, StartRepair, StartRollout,
};
use waangu_api::types::List;

use super::{admin, segment};
use crate::cli::{FleetCommand, FleetUpgrade, Global};
use crate::failure::Failure;
use crate::output::{Format, line, print, table, talk};

/// Pause between two looks at a rollout.
const LOOK: Duration = Duration::from_millis(300);

pub(crate) async fn fleet(global: &Global, command: FleetCommand) -> Result<(), Failure> {
    match command {
        FleetCommand::Status => {
            let fleet: FleetView = admin(global)?.get("/fleet").await?;
            status(global, &fleet)
        }
        FleetCommand::Upgrade(wish) => upgrade(global, wish).await,
        FleetCommand::List => {
            let list: List<RolloutView> = admin(global)?.get("/rollouts").await?;
            let rows = list.items.iter().map(row).collect();
            print(global.output, &list.items, &HEADER, rows)
        }
        FleetCommand::Show { id } => {
            let path = format!("/rollouts/{}", segment(&id)?);
            let rollout: RolloutView = admin(global)?.get(&path).await?;
            show(global, &rollout)
        }
        FleetCommand::Pause { id } => steer(global, &id, "pause").await,
        FleetCommand::Resume { id } => steer(global, &id, "resume").await,
        FleetCommand::Cancel { id } => steer(global, &id, "cancel").await,
        FleetCommand::Retry { id } => steer(global, &id, "retry").await,
        FleetCommand::Repair { dry_run } => repair(global, dry_run).await,
    }
}

pub(crate) async fn upgrade(global: &Global, wish: FleetUpgrade) -> Result<(), Failure> {
    let client = admin(global)?;
    let body = StartRollout {
        module: wish.module,
        waves: Some(wish.waves),
        canaries: wish.canaries,
        stop_on: Some(wish.stop_on),
        dry_run: wish.dry_run,
    };
    let rollout: RolloutView = client
        .send_json(Method::POST, "/rollouts", &body, None)
        .await?;
    match &rollout.id {
        Some(id) if wish.wait => {
            let ended = follow(&client, id).await?;
            show(global, &ended)?;
            if ended.state == "succeeded" {
                return Ok(());
            }
            Err(Failure::failed(format!(
                "rollout {id} is {}: {}",
                ended.state,
                ended.reason.as_deref().unwrap_or("no reason was given")
            )))
        }
        _ => show(global, &rollout),
    }
}

/// Shows a rollout as it goes on, until nothing goes on by itself.
async fn follow(client: &Client, id: &str) -> Result<RolloutView, Failure> {
    let bar = ProgressBar::new(0);
    let form = "{spinner} {bar:30} {pos}/{len} {msg}";
    if let Ok(style) = ProgressStyle::with_template(form) {
        bar.set_style(style);
    }
    loop {
        let rollout: RolloutView = client.get(&format!("/rollouts/{id}")).await?;
        bar.set_length(u64::try_from(rollout.total).unwrap_or(0));
        bar.set_position(u64::try_from(rollout.done + rollout.failed).unwrap_or(0));
        bar.set_message(format!(
            "wave {}, {} failed, {}",
            rollout.wave,
            rollout.failed,
            pace(&rollout)
        ));
        if !rollout.is_running() {
            bar.finish_and_clear();
            return Ok(rollout);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn steer(global: &Global, id: &str, act: &str) -> Result<(), Failure> {
    let path = format!("/rollouts/{}/{act}", segment(id)?);
    let rollout: RolloutView = admin(global)?
        .send_json(Method::POST, &path, &serde_json::json!({}), None)
        .await?;
    print(global.output, &rollout, &HEADER, vec![row(&rollout)])
}

/// Looks for drift and waits for the answer; a failure if something is left that a person has to mend.
async fn repair(global: &Global, dry_run: bool) -> Result<(), Failure> {
    let client = admin(global)?;
    let wish = StartRepair { dry_run };
    let mut repair: RepairView = client
        .send_json(Method::POST, "/fleet/repairs", &wish, None)
        .await?;
    let path = format!("/fleet/repairs/{}", repair.id);
    while !repair.is_over() {
        tokio::time::sleep(LOOK).await;
        repair = client.get(&path).await?;
    }
    let rows = repair.findings.iter().map(finding).collect();
    let header = ["cell", "database", "object", "found", "mended", "mend"];
    print(global.output, &repair, &header, rows)?;
    if let Some(error) = repair.error {
        return Err(Failure::failed(error));
    }
    match repair.findings.iter().filter(|found| !found.mended).count() {
        0 => Ok(()),
        left => Err(Failure::failed(format!("{left} findings are not mended"))),
    }
}

fn finding(found: &FindingView) -> Vec<String> {
    let mended = if found.mended { "yes" } else { "no" };
    vec![
        found.cell.clone(),
        found.database.clone(),
        found.object.clone(),
        found.found.clone(),
        mended.to_owned(),
        found.mend.clone(),
    ]
}

const HEADER: [&str; 7] = [
    "rollout", "module", "version", "state", "done", "failed", "pace",
];

fn row(rollout: &RolloutView) -> Vec<String> {
    vec![
        rollout.id.clone().unwrap_or_else(|| "dry run".to_owned()),
        rollout.module.clone(),
        rollout.version.clone(),
        rollout.state.clone(),
        format!("{} of {}", rollout.done, rollout.total),
        rollout.failed.to_string(),
        pace(rollout),
    ]
}

fn pace(rollout: &RolloutView) -> String {
    match (rollout.rate, rollout.eta_seconds) {
        (Some(rate), Some(left)) => format!("{rate:.0}/s, about {left:.0} s left"),
        (Some(rate), None) => format!("{rate:.0}/s"),
        _ => String::new(),
    }
}

fn show(global: &Global, rollout: &RolloutView) -> Result<(), Failure> {
    if global.output == Format::Json {
        return print(global.output, rollout, &HEADER, Vec::new());
    }
    line(&table(&HEADER, vec![row(rollout)]))?;
    let waves = rollout.waves.iter().map(|wave| {
        let name = match wave.percent {
            Some(percent) => format!("{} (up to {percent} %)", wave.wave),
            None => format!("{} (canaries)", wave.wave),
        };
        let counts = [
            wave.namespaces,
            wave.pending,
            wave.done,
            wave.failed,
            wave.skipped,
        ];
        let counts = counts.iter().map(ToString::to_string);
        std::iter::once(name).chain(counts).collect()
    });
    let header = ["wave", "namespaces", "pending", "done", "failed", "skipped"];
    line(&table(&header, waves.collect()))?;
    if !rollout.failures.is_empty() {
        let rows = rollout.failures.iter().map(|failure| {
            let whose = failure.tenant.clone();
            vec![
                whose.unwrap_or_else(|| "all that share".to_owned()),
                failure.tier.clone(),
                failure.cell.clone(),
                failure.attempts.to_string(),
                failure.error.clone(),
            ]
        });
        let header = ["not upgraded", "tier", "cell", "attempts", "because"];
        line(&table(&header, rows.collect()))?;
    }
    if let Some(reason) = &rollout.reason {
        talk(reason);
    }
    Ok(())
}

fn status(global: &Global, fleet: &FleetView) -> Result<(), Failure> {
    if global.output == Format::Json {
        return print(global.output, fleet, &[], Vec::new());
    }
    let rows = fleet.tenants.iter().map(|count| {
        let place = [&count.cell, &count.tier, &count.state].map(Clone::clone);
        let number = count.tenants.to_string();
        place.into_iter().chain([number]).collect()
    });
    line(&table(
        &["cell", "tier", "state", "tenants"],
        rows.collect(),
    ))?;
    let rows = fleet.cells.iter().map(|cell| {
        vec![
            cell.cell.clone(),
            cell.state.clone(),
            cell.circuit.clone(),
            cell.since.map(|at| at.to_string()).unwrap_or_default(),
            cell.cause.clone().unwrap_or_default(),
        ]
    });
    line(&table(
        &["cell", "state", "circuit", "since", "because"],
        rows.collect(),
    ))?;
    let rows = fleet.namespaces.iter().map(|standing| {
        let version = standing.version.clone();
        vec![
            standing.module.clone(),
            version.unwrap_or_else(|| "not known".to_owned()),
            if standing.current { "newest" } else { "behind" }.to_owned(),
            standing.namespaces.to_string(),
        ]
    });
    let header = ["module", "version", "", "namespaces"];
    line(&table(&header, rows.collect()))?;
    if !fleet.rollouts.is_empty() {
        line(&table(&HEADER, fleet.rollouts.iter().map(row).collect()))?;
    }
    if !fleet.refused.is_empty() {
        let rows = fleet.refused.iter().map(|refused| {
            let told = format!("{}: {}", refused.code, refused.reason);
            vec![refused.module.clone(), refused.version.clone(), told]
        });
        line(&table(&["refused", "version", "because"], rows.collect()))?;
    }
    if !fleet.failing.is_empty() {
        let rows = fleet.failing.iter().map(|tenant| {
            let attempts = tenant.attempts.to_string();
            let (slug, cell) = (tenant.tenant.clone(), tenant.cell.clone());
            vec![slug, cell, attempts, tenant.error.clone()]
        });
        let header = ["failing", "cell", "attempts", "because"];
        line(&table(&header, rows.collect()))?;
    }
    let since = fleet
        .waiting_since
        .map(|at| format!(", the oldest since {at}"));
    line(&format!(
        "{} tenants are not yet what is wanted{}",
        fleet.behind,
        since.unwrap_or_default()
    ))
}
