//! What a bench found, as tables for people and as JSON for programs.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde::Serialize;
use serde_json::{Value, json};

use crate::environment::Environment;
use crate::goal::Goal;
use crate::stats::Summary;

/// Samples of one thing.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Series {
    /// The table it stands in.
    pub(crate) group: &'static str,
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    /// What exactly is in the number.
    pub(crate) what: String,
    /// As they came.
    pub(crate) samples: Vec<f64>,
}

/// One series against another.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Ratio {
    pub(crate) name: String,
    pub(crate) value: f64,
}

/// A bench's result.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) name: &'static str,
    pub(crate) quick: bool,
    pub(crate) environment: Option<Environment>,
    /// What else one must know to compare, such as the server's version and settings.
    pub(crate) facts: BTreeMap<String, String>,
    pub(crate) series: Vec<Series>,
    pub(crate) ratios: Vec<Ratio>,
    pub(crate) goals: Vec<Goal>,
    /// What should have been measured and was not, and why.
    pub(crate) not_measured: Vec<String>,
    /// How it was measured.
    pub(crate) notes: Vec<String>,
}

#[derive(Serialize)]
struct WithSummary<'a> {
    #[serde(flatten)]
    series: &'a Series,
    summary: Option<Summary>,
}

#[derive(Serialize)]
struct WithVerdict<'a> {
    #[serde(flatten)]
    goal: &'a Goal,
    met: bool,
}

impl Report {
    /// For programs. Field names are read by later comparisons: add, don't rename.
    pub(crate) fn as_json(&self) -> Value {
        let series: Vec<WithSummary<'_>> = self
            .series
            .iter()
            .map(|series| WithSummary {
                series,
                summary: Summary::of(&series.samples),
            })
            .collect();
        let goals: Vec<WithVerdict<'_>> = self
            .goals
            .iter()
            .map(|goal| WithVerdict {
                goal,
                met: goal.is_met(),
            })
            .collect();
        json!({
            "bench": self.name,
            "quick": self.quick,
            "environment": self.environment,
            "facts": self.facts,
            "series": series,
            "ratios": self.ratios,
            "goals": goals,
            "not_measured": self.not_measured,
            "notes": self.notes,
        })
    }

    /// For people.
    pub(crate) fn as_text(&self) -> String {
        let kind = if self.quick { ", a quick run" } else { "" };
        let mut parts = vec![format!("bench {}{kind}", self.name)];
        parts.extend(self.environment.as_ref().map(Environment::as_text));
        if !self.facts.is_empty() {
            let facts: Vec<String> = self
                .facts
                .iter()
                .map(|(name, value)| format!("{name} {value}"))
                .collect();
            parts.push(facts.join(" · "));
        }
        let mut seen = BTreeSet::new();
        let groups = self.series.iter().map(|series| series.group);
        let groups: Vec<&str> = groups.filter(|group| seen.insert(*group)).collect();
        parts.extend(groups.into_iter().map(|group| self.group(group)));
        if !self.ratios.is_empty() {
            let rows = self
                .ratios
                .iter()
                .map(|ratio| vec![ratio.name.clone(), format!("{:.2} ×", ratio.value)])
                .collect();
            parts.push(table(&["ratio", "value"], rows));
        }
        parts.push(self.goals());
        parts.extend(list("how it was measured", &self.notes));
        parts.extend(list("not measured", &self.not_measured));
        parts.join("\n")
    }

    fn group(&self, group: &str) -> String {
        let members = || self.series.iter().filter(|series| series.group == group);
        let rows = members().map(row).collect();
        let head = [group, "unit", "n", "median", "p95", "min", "max"];
        let mut text = table(&head, rows);
        for series in members().filter(|series| !series.what.is_empty()) {
            text = format!("{text}\n  {}: {}", series.name, series.what);
        }
        text
    }

    fn goals(&self) -> String {
        let rows = self
            .goals
            .iter()
            .map(|goal| {
                let sign = if goal.higher_is_better { "≥" } else { "≤" };
                let verdict = if goal.is_met() { "met" } else { "MISSED" };
                vec![
                    goal.name.clone(),
                    format!("{} {}", shown(goal.value, goal.unit), goal.unit),
                    format!("{sign} {} {}", shown(goal.limit, goal.unit), goal.unit),
                    verdict.to_owned(),
                ]
            })
            .collect();
        table(&["goal", "value", "limit", ""], rows)
    }
}

fn row(series: &Series) -> Vec<String> {
    let mut row = vec![series.name.clone(), series.unit.to_owned()];
    match Summary::of(&series.samples) {
        Some(summary) => {
            row.push(summary.count.to_string());
            let values = [summary.median, summary.p95, summary.min, summary.max];
            row.extend(values.map(|value| shown(value, series.unit)));
        }
        None => row.push("0".to_owned()),
    }
    row
}

fn shown(value: f64, unit: &str) -> String {
    match unit {
        "s" | "×" => format!("{value:.2}"),
        "" | "reads" => format!("{value:.0}"),
        _ => format!("{value:.1}"),
    }
}

fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header)
        .add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn list(title: &str, items: &[String]) -> Option<String> {
    if items.is_empty() {
        return None;
    }
    let lines: Vec<String> = items.iter().map(|item| format!("  - {item}")).collect();
    Some(format!("{title}:\n{}", lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The JSON is an interface: what compares runs reads it by these names.
    #[test]
    fn the_json_has_samples_summaries_and_verdicts() {
        let report = Report {
            name: "x",
            series: vec![Series {
                group: "g",
                name: "n".to_owned(),
                unit: "ms",
                what: String::new(),
                samples: vec![2.0, 1.0],
            }],
            goals: vec![Goal::at_most("n".to_owned(), "ms", 1.5, 1.0)],
            ..Report::default()
        };
        let value = report.as_json();
        assert_eq!(value["series"][0]["samples"], json!([2.0, 1.0]));
        assert_eq!(value["series"][0]["summary"]["median"], json!(1.5));
        assert_eq!(value["goals"][0]["met"], json!(false));
        assert!(report.as_text().contains("MISSED"));
    }
}
