//! Facts about a database, and what distinguishes two pictures of one.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use waangu_kernel::Fault;

use super::{Cells, Drift, Mend, unreadable};

const EXPECTED: &str = include_str!("../../sql/expected.json");

/// Kinds of which a database has as many objects as it likes, all alike.
const UNIFORM: [&str; 7] = [
    "schema",
    "schema in stock",
    "table",
    "append-only table",
    "view",
    "login",
    "login for reading",
];

const LOST: Mend = Mend::Advice(
    "it can't be made again by one statement: see crates/tenancy/sql, or restore the database",
);

/// What one aspect of an object is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Fact {
    aspect: String,
    value: String,
    /// What makes it so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    redo: Option<String>,
    /// What undoes it.
    #[serde(skip)]
    undo: Option<String>,
}

/// Objects that have the same facts.
#[derive(Debug)]
pub(super) struct Seen {
    kind: String,
    module: String,
    facts: Vec<Fact>,
    objects: Vec<String>,
}

/// What the objects of each kind should be like.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Expected {
    kinds: BTreeMap<String, Vec<Fact>>,
}

/// Names that stand for the placeholders of a database's facts.
pub(super) struct Names {
    pub(super) administrator: String,
    pub(super) database: String,
}

impl Seen {
    /// Reads a row: kind, module, facts, objects.
    pub(super) fn read<R: Cells>(row: &R) -> Result<Self, Fault> {
        let facts: Value = row.cell(1 + 1)?;
        let facts: Vec<[Option<String>; 4]> =
            serde_json::from_value(facts).map_err(|error| unreadable().cause(error))?;
        let facts = facts
            .into_iter()
            .map(|[aspect, value, redo, undo]| Fact {
                aspect: aspect.unwrap_or_default(),
                value: value.unwrap_or_default(),
                redo,
                undo,
            })
            .collect();
        Ok(Self {
            kind: row.cell(0)?,
            module: row.cell(1)?,
            facts,
            objects: row.cell(3)?,
        })
    }
}

impl Seen {
    /// Whether it is of a module that is not installed.
    fn is_stray(&self, modules: &[String]) -> bool {
        !self.kind.starts_with("login")
            && !self.module.is_empty()
            && !modules.contains(&self.module)
    }

    /// The finding about an object of which nothing is expected.
    fn unexpected(&self) -> Finding {
        let whole = self.facts.iter().find(|fact| fact.aspect == "object");
        let undo: Vec<_> = match whole {
            Some(whole) => whole.undo.as_deref().into_iter().collect(),
            None => self
                .facts
                .iter()
                .filter_map(|fact| fact.undo.as_deref())
                .collect(),
        };
        let said = self
            .facts
            .iter()
            .map(|Fact { aspect, value, .. }| format!("{aspect}: {value}"));
        let said: Vec<_> = said.collect();
        let what = if whole.is_some() {
            "is there; not expected".to_owned()
        } else {
            format!("{}; not expected", said.join(", "))
        };
        (what, (!undo.is_empty()).then(|| undo.join("; ")))
    }
}

impl Expected {
    /// What this program was built with.
    pub(super) fn known() -> Result<Self, Fault> {
        serde_json::from_str(EXPECTED).map_err(|error| unreadable().cause(error))
    }

    /// What is not as expected.
    pub(super) fn compare(&self, seen: &[Seen], modules: &[String], names: &Names) -> Vec<Drift> {
        let mut drifts = Vec::new();
        for group in seen {
            let found = match self.kinds.get(&group.kind) {
                // Nobody misses what a module that is not installed should have.
                Some(expected) if group.is_stray(modules) => surplus(expected, &group.facts),
                Some(expected) => differences(expected, &group.facts),
                None => vec![group.unexpected()],
            };
            for object in &group.objects {
                let filled = found
                    .iter()
                    .map(|(found, mend)| fill(group, object, found, mend.as_deref(), names));
                drifts.extend(filled);
            }
        }
        let present: BTreeSet<_> = seen.iter().map(|group| group.kind.as_str()).collect();
        for (kind, facts) in &self.kinds {
            if !UNIFORM.contains(&kind.as_str()) && !present.contains(kind.as_str()) {
                drifts.push(missing(kind, facts, names));
            }
        }
        for module in modules {
            for kind in ["login", "login for reading"] {
                let is_there = |group: &Seen| group.kind == kind && group.module == *module;
                if !seen.iter().any(is_there) {
                    drifts.push(Drift {
                        object: format!("{kind} of module {module}"),
                        found: "is missing".to_owned(),
                        mend: Mend::Advice("start the control plane again: it makes the login"),
                    });
                }
            }
        }
        drifts
    }
}

/// The text of `sql/expected.json` for these facts.
pub(super) fn record(seen: Vec<Seen>) -> String {
    let kinds = seen
        .into_iter()
        .map(|group| (group.kind, group.facts))
        .collect();
    let text = serde_json::to_string_pretty(&Expected { kinds });
    text.unwrap_or_default() + "\n"
}

/// What is wrong, and what mends it, with placeholders.
type Finding = (String, Option<String>);

fn differences(expected: &[Fact], live: &[Fact]) -> Vec<Finding> {
    let mut found = surplus(expected, live);
    for wanted in expected {
        if !live.iter().any(|fact| fact.aspect == wanted.aspect) {
            let what = format!("{}: none; expected: {}", wanted.aspect, wanted.value);
            found.push((what, wanted.redo.clone()));
        }
    }
    found
}

/// What is not, or not so, expected.
fn surplus(expected: &[Fact], live: &[Fact]) -> Vec<Finding> {
    let mut found = Vec::new();
    for fact in live {
        let Fact { aspect, value, .. } = fact;
        match expected.iter().find(|wanted| wanted.aspect == *aspect) {
            Some(wanted) if wanted.value == *value => {}
            Some(wanted) => {
                let mends = [fact.undo.as_deref(), wanted.redo.as_deref()];
                let mend: Vec<_> = mends.into_iter().flatten().collect();
                let what = format!("{}: {value}; expected: {}", aspect.trim_end(), wanted.value);
                found.push((what, (!mend.is_empty()).then(|| mend.join("; "))));
            }
            None => {
                let what = format!("{}: {value}; not expected", aspect.trim_end());
                found.push((what, fact.undo.clone()));
            }
        }
    }
    found
}

fn missing(kind: &str, facts: &[Fact], names: &Names) -> Drift {
    let remade: Vec<_> = facts
        .iter()
        .filter_map(|fact| fact.redo.as_deref())
        .collect();
    // A function and a catalogue's rights are made again by their facts; a table or a role is not.
    let whole = facts.iter().any(|fact| fact.aspect == "body")
        || !kind.starts_with("role ") && facts.iter().all(|fact| fact.redo.is_some());
    Drift {
        object: kind.to_owned(),
        found: match facts {
            [fact] if fact.aspect == "rights" => {
                format!(
                    "rights: those of a new PostgreSQL; expected: {}",
                    fact.value
                )
            }
            [fact] => format!("{}: none; expected: {}", fact.aspect, fact.value),
            _ => "is missing".to_owned(),
        },
        mend: if whole {
            Mend::Sql(names.fill(&remade.join("; "), "", ""))
        } else {
            LOST
        },
    }
}

fn fill(group: &Seen, object: &str, found: &str, mend: Option<&str>, names: &Names) -> Drift {
    let label = if UNIFORM.contains(&group.kind.as_str()) {
        format!("{} {object}", group.kind)
    } else {
        group.kind.clone()
    };
    Drift {
        object: names.fill(&label, object, &group.module),
        found: names.fill(found, object, &group.module),
        mend: match mend {
            Some(sql) => Mend::Sql(names.fill(sql, object, &group.module)),
            None => LOST,
        },
    }
}

impl Names {
    fn fill(&self, text: &str, object: &str, module: &str) -> String {
        text.replace("{object}", object)
            .replace("{login}", &format!("waangu_{module}"))
            .replace("{module}", module)
            .replace("{database}", &self.database)
            .replace("{administrator}", &self.administrator)
    }
}
