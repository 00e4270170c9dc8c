//! `waangu tenant move`, `moves` and `cancel-move`: a tenant to another place.

use std::time::Duration;

use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use waangu_api::Client;
use waangu_api::relocation::{RelocationView, StartRelocation, WayBackView};
use waangu_api::types::List;

use super::{admin, segment};
use crate::cli::{Global, TenantMove};
use crate::failure::Failure;
use crate::output::{Format, line, print, table, talk};

/// Pause between two looks at a move.
const LOOK: Duration = Duration::from_millis(250);

/// Longest that the control plane may be away while a move is watched: it may be restarting.
const AWAY: u32 = 120;

pub(crate) async fn start(global: &Global, wish: TenantMove) -> Result<(), Failure> {
    let client = admin(global)?;
    let path = format!("/tenants/{}/relocations", segment(&wish.slug)?);
    let body = StartRelocation {
        tier: wish.to,
        cell: wish.cell,
        region: wish.region,
        back: wish.back,
        max_pause_ms: Some(wish.max_pause),
        rate: wish.rate.map(|megabytes| megabytes * 1_000_000),
        why: wish.why,
        dry_run: wish.dry_run,
    };
    let key = wish.idempotency_key.as_deref();
    let begun: RelocationView = client.send_json(Method::POST, &path, &body, key).await?;
    let Some(id) = &begun.id else {
        return draft(global, &begun);
    };
    if wish.detach {
        return show(global, &begun);
    }
    let ended = follow(&client, &format!("{path}/{id}")).await?;
    show(global, &ended)?;
    if ended.phase == "done" {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "move {id} is {}: {}",
        ended.phase,
        ended
            .error
            .as_deref()
            .unwrap_or("somebody wanted it undone")
    )))
}

pub(crate) async fn list(global: &Global, slug: Option<&str>) -> Result<(), Failure> {
    let path = match slug {
        Some(slug) => format!("/tenants/{}/relocations", segment(slug)?),
        None => "/relocations".to_owned(),
    };
    let list: List<RelocationView> = admin(global)?.get(&path).await?;
    let rows = list.items.iter().map(row).collect();
    print(global.output, &list.items, &HEADER, rows)
}

/// Cancels the tenant's open move.
pub(crate) async fn cancel(global: &Global, slug: &str) -> Result<(), Failure> {
    let client = admin(global)?;
    let path = format!("/tenants/{}/relocations", segment(slug)?);
    let list: List<RelocationView> = client.get(&path).await?;
    let open = list.items.into_iter().find(|moved| !moved.is_over());
    let Some(id) = open.and_then(|moved| moved.id) else {
        return Err(Failure::refused(format!("`{slug}` is not on its way")));
    };
    let path = format!("{path}/{id}");
    let cancel = format!("{path}/cancel");
    let _wanted: RelocationView = client
        .send_json(Method::POST, &cancel, &json!({}), None)
        .await?;
    let ended = follow(&client, &path).await?;
    show(global, &ended)?;
    if ended.phase == "done" {
        return Err(Failure::refused(
            "it was too late: the tenant has moved".to_owned(),
        ));
    }
    Ok(())
}

/// Shows a move as it goes on, until its end; a control plane that restarts meanwhile is waited for.
async fn follow(client: &Client, path: &str) -> Result<RelocationView, Failure> {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {bar:30} {msg}") {
        bar.set_style(style);
    }
    let mut away = 0;
    loop {
        let moved: RelocationView = match client.get(path).await {
            Ok(moved) => moved,
            Err(error) if away >= AWAY => return Err(error.into()),
            Err(_away) => {
                away += 1;
                tokio::time::sleep(LOOK).await;
                continue;
            }
        };
        away = 0;
        let total = moved.total_bytes.unwrap_or(moved.bytes).max(moved.bytes);
        bar.set_length(u64::try_from(total).unwrap_or(0));
        bar.set_position(u64::try_from(moved.bytes).unwrap_or(0));
        bar.set_message(told(&moved));
        if moved.is_over() {
            bar.finish_and_clear();
            return Ok(moved);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How far it is, in one line.
fn told(moved: &RelocationView) -> String {
    let mut parts = vec![moved.phase.clone()];
    if let Some(table) = &moved.table {
        parts.push(table.clone());
    }
    parts.push(format!("{} rows", moved.rows));
    parts.push(size(moved.bytes));
    if let Some(lag) = moved.lag_bytes {
        parts.push(format!("lag {}", size(lag)));
    }
    if let Some(left) = moved.eta_seconds {
        parts.push(format!("about {left:.0} s left"));
    }
    if let Some(error) = &moved.error {
        parts.push(format!("attempt {}: {error}", moved.attempts + 1));
    }
    parts.join(", ")
}

fn size(bytes: i64) -> String {
    match bytes {
        ..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

const HEADER: [&str; 9] = [
    "move",
    "tenant",
    "from",
    "to",
    "phase",
    "rows",
    "pause",
    "way back",
    "wanted by",
];

fn row(moved: &RelocationView) -> Vec<String> {
    let place = |place: &waangu_api::relocation::PlaceView| {
        format!("{} in {} ({})", place.tier, place.cell, place.database)
    };
    vec![
        moved.id.clone().unwrap_or_else(|| "dry run".to_owned()),
        moved.tenant.clone(),
        place(&moved.from),
        place(&moved.to),
        moved.phase.clone(),
        if moved.adopted {
            "were there".to_owned()
        } else {
            moved.rows.to_string()
        },
        moved
            .pause_ms
            .map(|pause| format!("{pause:.0} ms"))
            .unwrap_or_default(),
        moved.way_back.as_ref().map(way_back).unwrap_or_default(),
        match &moved.why {
            Some(why) => format!("{}\n{why}", moved.actor),
            None => moved.actor.clone(),
        },
    ]
}

/// What a move back would bring, until when, and what that costs meanwhile.
fn way_back(way: &WayBackView) -> String {
    let (hour, minute) = (way.until.hour(), way.until.minute());
    let until = format!("until {hour:02}:{minute:02} UTC");
    match (way.brings.as_str(), way.held_bytes) {
        ("changes", Some(held)) => format!("changes alone, {until}; holds {}", size(held)),
        ("changes", None) => format!("changes alone, {until}"),
        _ => format!("a copy, {until}"),
    }
}

fn show(global: &Global, moved: &RelocationView) -> Result<(), Failure> {
    print(global.output, moved, &HEADER, vec![row(moved)])?;
    if global.output != Format::Json
        && let Some(error) = &moved.error
    {
        talk(error);
    }
    Ok(())
}

/// Plan, checks and estimate; a failure if a check forbids the move.
fn draft(global: &Global, plan: &RelocationView) -> Result<(), Failure> {
    if global.output == Format::Json {
        print(global.output, plan, &HEADER, Vec::new())?;
    } else {
        line(&table(&HEADER, vec![row(plan)]))?;
        let checks = plan.checks.iter().map(|check| {
            let fine = if check.fine { "fine" } else { "NO" };
            vec![check.check.clone(), fine.to_owned(), check.found.clone()]
        });
        line(&table(&["check", "", "found"], checks.collect()))?;
        let bytes = plan.total_bytes.map_or_else(|| "unknown".to_owned(), size);
        let time = plan
            .eta_seconds
            .map_or_else(|| "unknown".to_owned(), |left| format!("about {left:.0} s"));
        line(&format!("to copy: {bytes}; time: {time}"))?;
    }
    match plan.checks.iter().filter(|check| !check.fine).count() {
        0 => Ok(()),
        not => Err(Failure::refused(format!("{not} checks forbid the move"))),
    }
}
