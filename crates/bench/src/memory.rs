//! How much memory a platform's processes take, by role.
//!
//! RSS counts a page that several processes share once for each of them; PSS (proc(5),
//! `smaps_rollup`) counts it once in all. For PostgreSQL, whose processes share their buffers, only
//! sums of PSS mean something.

use std::collections::BTreeMap;
use std::fs;

use crate::process::Process;

/// Kilobytes of a megabyte, as the kernel counts.
const KIB_PER_MIB: f64 = 1024.0;

/// What one role takes, in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Weight {
    /// How many processes.
    pub(crate) processes: u32,
    /// Sum of their RSS.
    pub(crate) rss: f64,
    /// Sum of their PSS; None if one of them does not let us look.
    pub(crate) pss: Option<f64>,
}

impl Weight {
    const NOTHING: Self = Self {
        processes: 0,
        rss: 0.0,
        pss: Some(0.0),
    };

    fn plus(self, other: Self) -> Self {
        Self {
            processes: self.processes + other.processes,
            rss: self.rss + other.rss,
            pss: self.pss.zip(other.pss).map(|(one, two)| one + two),
        }
    }
}

/// Weighs processes by role, and all together as `all`. A process that ends meanwhile is left out.
pub(crate) fn weigh(family: &[Process]) -> BTreeMap<String, Weight> {
    let mut roles = BTreeMap::new();
    for process in family {
        let Some(weight) = weight(process) else {
            continue;
        };
        for role in [role(process), "all".to_owned()] {
            let sum = roles.entry(role).or_insert(Weight::NOTHING);
            *sum = sum.plus(weight);
        }
    }
    roles
}

fn weight(process: &Process) -> Option<Weight> {
    let of = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", process.pid));
    let rss = kib(&of("status").ok()?, "VmRSS:")?;
    let pss = of("smaps_rollup").ok().and_then(|text| kib(&text, "Pss:"));
    Some(Weight {
        processes: 1,
        rss: rss / KIB_PER_MIB,
        pss: pss.map(|pss| pss / KIB_PER_MIB),
    })
}

/// The number of a line such as `Pss:    1234 kB`.
fn kib(text: &str, label: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(label))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// `up`, `control`, `gateway`, a module's name, or `postgres` with the name of its cell.
fn role(process: &Process) -> String {
    let arguments = process.arguments();
    let mut words = arguments.iter().map(String::as_str);
    let program = words.next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default();
    if program.starts_with("postgres") {
        return postgres(process);
    }
    match program.strip_prefix("waangu-") {
        Some(module) => module.to_owned(),
        None => words.next().unwrap_or(program).to_owned(),
    }
}

/// All processes of a server work in its data folder, `…/pg/<cell>/data`.
fn postgres(process: &Process) -> String {
    let folder = process.folder();
    let cell = folder
        .as_deref()
        .and_then(|data| data.parent()?.file_name()?.to_str());
    format!("postgres {}", cell.unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read() {
        let text = "Rss:   10 kB\nPss:   7 kB\nPss_Dirty:   3 kB\n";
        assert_eq!(kib(text, "Pss:"), Some(7.0));
        assert_eq!(kib(text, "Swap:"), None);
    }

    /// One process that hides its pages would make a sum look small.
    #[test]
    fn a_sum_with_an_unknown_part_is_unknown() {
        let known = Weight {
            processes: 1,
            rss: 2.0,
            pss: Some(1.0),
        };
        let hidden = Weight { pss: None, ..known };
        assert_eq!(Weight::NOTHING.plus(known), known);
        assert_eq!(known.plus(hidden).pss, None);
    }
}
