//! `waangu apply`: the declared world against the registry's.

use std::fmt::Write as _;

use http::Method;
use serde_json::Value;
use waangu_api::ClientError;
use waangu_api::world::{WorldChange, WorldDiff};

use super::admin;
use crate::cli::{ApplyOptions, Global};
use crate::failure::{Failure, Of as _};
use crate::fleet::Files;
use crate::output::{Format, line, talk};

pub(crate) async fn apply(global: &Global, options: &ApplyOptions) -> Result<(), Failure> {
    let files = Files::read(&options.dir)?;
    let world = files.world()?;
    let path = format!("/world?dry_run={}&prune={}", options.dry_run, options.prune);
    let answer = admin(global)?
        .send_json::<_, WorldDiff>(Method::PUT, &path, &world, None)
        .await;
    let diff = answer.map_err(|error| placed(error, &files))?;
    for warning in &diff.warnings {
        talk(&format!("warning: {warning}"));
    }
    match global.output {
        Format::Json => line(&serde_json::to_string_pretty(&diff).of("result")?)?,
        Format::Table => line(render(&diff, options.prune).trim_end())?,
    }
    let stuck = |change: &WorldChange| change.action == "remove" && !change.used_by.is_empty();
    if diff.changes.iter().any(stuck) {
        return Err(Failure::refused("what is used can't be removed"));
    }
    Ok(())
}

/// A refusal, with the file and line that it is about.
fn placed(error: ClientError, files: &Files) -> Failure {
    let place = match &error {
        ClientError::Refused(problem) => problem.field.as_deref().and_then(|at| files.place(at)),
        ClientError::Unreachable(_) => None,
    };
    let failure = Failure::from(error);
    match place {
        Some(place) => failure.at(&place),
        None => failure,
    }
}

/// The diff as people know it from other tools.
fn render(diff: &WorldDiff, prune: bool) -> String {
    let mut text = String::new();
    for change in &diff.changes {
        let sign = match change.action.as_str() {
            "add" => '+',
            "change" => '~',
            _ => '-',
        };
        let note = match (change.action.as_str(), change.used_by.is_empty()) {
            ("extra", true) => " (not declared; --prune removes it)".to_owned(),
            ("extra", false) => format!(" (not declared; used by {})", change.used_by.join(", ")),
            ("remove", false) => format!(" (can't go: used by {})", change.used_by.join(", ")),
            _ => String::new(),
        };
        // Writing to a text does not fail.
        let _ = writeln!(text, "{sign} {} {}{note}", change.kind, change.id);
        for field in &change.fields {
            let _ = match (&field.old, change.action.as_str()) {
                (Value::Null, "add") => writeln!(text, "    {} = {}", field.field, field.new),
                (old, _) => writeln!(text, "    {} {old} → {}", field.field, field.new),
            };
        }
    }
    let count = |action: &str| {
        let of = diff.changes.iter().filter(|change| change.action == action);
        of.count()
    };
    let (add, change, remove) = (count("add"), count("change"), count("remove"));
    if add + change + remove == 0 {
        text += "no changes: the registry is as declared\n";
        return text;
    }
    let verb = if diff.applied { "done" } else { "to do" };
    let _ = write!(text, "{verb}: {add} to add, {change} to change");
    if prune {
        let _ = write!(text, ", {remove} to remove");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// An operator decides on what this shows.
    #[test]
    fn a_diff_reads_like_one() {
        let diff: WorldDiff = serde_json::from_value(json!({
            "applied": false,
            "warnings": [],
            "changes": [
                { "action": "add", "kind": "cell", "id": "de-1", "fields": [
                    { "field": "region", "old": null, "new": "hetzner-fsn1" },
                    { "field": "capacity", "old": null, "new": 500 },
                ] },
                { "action": "change", "kind": "country", "id": "SN", "fields": [
                    { "field": "kin_abroad", "old": true, "new": false },
                ] },
                { "action": "extra", "kind": "profile", "id": "club" },
                { "action": "extra", "kind": "region", "id": "moon", "used_by": ["1 cells"] },
            ],
        }))
        .unwrap();
        insta::assert_snapshot!(render(&diff, false), @r#"
        + cell de-1
            region = "hetzner-fsn1"
            capacity = 500
        ~ country SN
            kin_abroad true → false
        - profile club (not declared; --prune removes it)
        - region moon (not declared; used by 1 cells)
        to do: 1 to add, 1 to change
        "#);
    }
}
