//! `waangu tenant explain` and `waangu tenant set`: why a tenant is where it is, and how it stands to
//! its profile.

use http::Method;
use serde_json::Value;
use waangu_api::places::{PlacementExplained, PutSetting, SettingView, WeighedView};

use super::{admin, segment};
use crate::cli::Global;
use crate::failure::Failure;
use crate::output::print;

pub(crate) async fn explain(global: &Global, slug: &str) -> Result<(), Failure> {
    let path = format!("/tenants/{}/placement", segment(slug)?);
    let explained: PlacementExplained = admin(global)?.get(&path).await?;
    let place = &explained.placement;
    let mut rows = vec![
        row(
            "lives in",
            format!("{} ({}), tier {}", place.cell, place.region, place.tier),
        ),
        row("decided because", place.reasons.join("\n")),
    ];
    if let Some(today) = &explained.today {
        rows.push(row("today", today.tier_reason.clone()));
        rows.push(row("would take it", weighed(&today.ranked)));
        rows.push(row("would not", weighed(&today.refused)));
        let differences = match today.differences.as_slice() {
            [] => "none: it would be placed the same".to_owned(),
            some => some.join("\n"),
        };
        rows.push(row("difference", differences));
    }
    print(global.output, &explained, &["", "value"], rows)
}

pub(crate) async fn set(
    global: &Global,
    slug: &str,
    key: &str,
    value: Option<&str>,
) -> Result<(), Failure> {
    let path = format!("/tenants/{}/settings/{}", segment(slug)?, segment(key)?);
    let client = admin(global)?;
    let Some(text) = value else {
        return Ok(client.delete(&path).await?);
    };
    // What is not JSON is a plain text: `required` need not be quoted twice.
    let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    let setting: SettingView = client
        .send_json(Method::PUT, &path, &PutSetting { value }, None)
        .await?;
    let rows = vec![row(&setting.key, describe(&setting))];
    print(global.output, &setting, &["setting", "value"], rows)
}

/// All settings with their origins, for `tenant show`.
pub(super) fn settings(settings: &[SettingView]) -> String {
    let lines: Vec<String> = settings
        .iter()
        .map(|setting| format!("{}: {}", setting.key, describe(setting)))
        .collect();
    lines.join("\n")
}

fn describe(setting: &SettingView) -> String {
    let value = plain(&setting.value);
    match setting.origin.as_str() {
        "profile" => format!("{value} (profile)"),
        origin => format!(
            "{value} ({origin}; profile gives {})",
            plain(&setting.profile)
        ),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "not set".to_owned(),
        other => other.to_string(),
    }
}

fn weighed(cells: &[WeighedView]) -> String {
    let lines: Vec<String> = cells
        .iter()
        .map(|cell| format!("{}: {}", cell.cell, cell.reasons.join(", ")))
        .collect();
    if lines.is_empty() {
        return "no cell".to_owned();
    }
    lines.join("\n")
}

fn row(name: &str, value: String) -> Vec<String> {
    vec![name.to_owned(), value]
}
