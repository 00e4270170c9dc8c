//! What differs between two worlds, field by field. Pure.
//!
//! Invariant: a field that the declaration leaves open is not compared.

use serde::Serialize;
use serde_json::{Map, Value};
use waangu_api::world::{FieldChange, World, WorldChange};
use waangu_registry::Kind;

pub(super) const ADD: &str = "add";
pub(super) const CHANGE: &str = "change";
pub(super) const REMOVE: &str = "remove";
pub(super) const EXTRA: &str = "extra";

/// One declared thing: its id and its fields.
type Entry = (String, Map<String, Value>);

/// What has to change for the world `now` to be as `declared`, and what is there besides.
pub(super) fn diff(declared: &World, now: &World) -> Vec<WorldChange> {
    let mut changes = Vec::new();
    let wanted: Vec<&str> = declared
        .environments
        .iter()
        .map(|environment| environment.id.as_str())
        .collect();
    let known = |id: &&str| wanted.contains(id);
    let there: Vec<&str> = now
        .environments
        .iter()
        .map(|environment| environment.id.as_str())
        .collect();
    let positions: Vec<&str> = there.iter().copied().filter(known).collect();
    let others: Vec<&str> = there.into_iter().filter(|id| !known(id)).collect();
    let mut standing = in_order(&positions);
    standing.extend(others.into_iter().map(|id| (id.to_owned(), Map::new())));
    compare(
        Kind::Environment,
        &in_order(&wanted),
        &standing,
        &mut changes,
    );
    let both = [
        (
            Kind::Region,
            entries(&declared.regions, "id"),
            entries(&now.regions, "id"),
        ),
        (
            Kind::Country,
            entries(&declared.countries, "code"),
            entries(&now.countries, "code"),
        ),
        (
            Kind::Profile,
            entries(&declared.profiles, "id"),
            entries(&now.profiles, "id"),
        ),
        (
            Kind::Cell,
            entries(&declared.cells, "id"),
            entries(&now.cells, "id"),
        ),
        (
            Kind::Threshold,
            entries(&declared.thresholds, "id"),
            entries(&now.thresholds, "id"),
        ),
        (
            Kind::Policy,
            entries(&declared.advisor, "id"),
            entries(&now.advisor, "id"),
        ),
    ];
    for (kind, declared, now) in both {
        compare(kind, &declared, &now, &mut changes);
    }
    changes
}

/// Environments have no field but their place in the order of promotion.
fn in_order(ids: &[&str]) -> Vec<Entry> {
    (1..)
        .zip(ids)
        .map(|(position, id)| {
            let fields = Map::from_iter([("position".to_owned(), Value::from(position))]);
            ((*id).to_owned(), fields)
        })
        .collect()
}

fn entries<T: Serialize>(specs: &[T], key: &str) -> Vec<Entry> {
    specs
        .iter()
        .filter_map(|spec| match serde_json::to_value(spec) {
            Ok(Value::Object(mut fields)) => {
                let id = fields.remove(key)?.as_str()?.to_owned();
                Some((id, fields))
            }
            _ => None,
        })
        .collect()
}

fn compare(kind: Kind, declared: &[Entry], now: &[Entry], changes: &mut Vec<WorldChange>) {
    let mut push = |action: &str, id: &str, fields| {
        changes.push(WorldChange {
            action: action.to_owned(),
            kind: kind.as_str().to_owned(),
            id: id.to_owned(),
            fields,
            used_by: Vec::new(),
        });
    };
    for (id, fields) in declared {
        match now.iter().find(|(there, _)| there == id) {
            None => push(ADD, id, field_changes(&Map::new(), fields)),
            Some((_, before)) => {
                let fields = field_changes(before, fields);
                if !fields.is_empty() {
                    push(CHANGE, id, fields);
                }
            }
        }
    }
    for (id, _) in now {
        if !declared.iter().any(|(wanted, _)| wanted == id) {
            push(EXTRA, id, Vec::new());
        }
    }
}

/// The fields of `after` that are not as they are in `before`.
fn field_changes(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<FieldChange> {
    after
        .iter()
        .filter_map(|(field, new)| {
            let old = before.get(field).unwrap_or(&Value::Null);
            (old != new).then(|| FieldChange {
                field: field.clone(),
                old: old.clone(),
                new: new.clone(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use waangu_api::world::{CellSpec, EnvironmentSpec, WORLD_VERSION};

    use super::*;

    fn world(environments: &[&str], cells: &[CellSpec]) -> World {
        World {
            version: WORLD_VERSION,
            environments: environments
                .iter()
                .map(|id| EnvironmentSpec {
                    id: (*id).to_owned(),
                })
                .collect(),
            cells: cells.to_vec(),
            ..World::default()
        }
    }

    fn cell(id: &str, capacity: i32) -> CellSpec {
        let text = format!("{{\"id\":\"{id}\",\"region\":\"r\",\"capacity\":{capacity}}}");
        serde_json::from_str(&text).unwrap()
    }

    fn said(declared: &World, now: &World) -> Vec<String> {
        diff(declared, now)
            .iter()
            .map(|change| {
                let fields: Vec<String> = change
                    .fields
                    .iter()
                    .map(|field| format!("{} {}>{}", field.field, field.old, field.new))
                    .collect();
                format!("{} {} {}", change.action, change.id, fields.join(","))
            })
            .collect()
    }

    /// An operator reads this before saying yes: it must name all that changes and nothing else.
    #[test]
    fn a_diff_names_what_differs_and_nothing_else() {
        let mut there = cell("a", 10);
        (there.state, there.host) = (Some("draining".to_owned()), Some("db".to_owned()));
        let now = world(&["dev", "prod"], &[there, cell("old", 1)]);
        assert_eq!(
            said(
                &world(&["dev", "prod"], &[cell("a", 10), cell("old", 1)]),
                &now
            ),
            Vec::<String>::new(),
            "what is left open is left alone"
        );
        assert_eq!(
            said(&world(&["dev", "test", "prod"], &[cell("a", 20)]), &now),
            [
                "add test position null>2",
                "change prod position 2>3",
                "change a capacity 10>20",
                "extra old ",
            ]
        );
    }
}
