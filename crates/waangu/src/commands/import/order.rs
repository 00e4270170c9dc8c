//! Parents before their children, whatever the order of the file.

use std::collections::{HashMap, HashSet};

use super::file::Wish;
use super::report::{Mistake, Outcome};

/// Who waits for whom.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Those who wait for nobody, in the order of the file.
    pub(super) roots: Vec<usize>,
    /// Those who wait, by whom they wait for.
    pub(super) below: HashMap<usize, Vec<usize>>,
    /// The parent in the file, by child.
    pub(super) parent: HashMap<usize, usize>,
    /// Those who would wait for ever.
    pub(super) mistakes: Vec<Outcome>,
}

/// Puts wishes in order; one that is its own ancestor, or stands below such a one, has no place in it.
pub(super) fn order(wishes: &[Wish]) -> Order {
    let slugs = wishes.iter().enumerate();
    let by_slug: HashMap<&str, usize> = slugs
        .map(|(at, wish)| (wish.body.slug.as_str(), at))
        .collect();
    let parent_of = |at: usize| {
        let parent = wishes.get(at)?.body.parent.as_deref()?;
        by_slug.get(parent).copied()
    };
    let mut order = Order::default();
    let mut endless: HashSet<usize> = HashSet::new();
    let mut fine: HashSet<usize> = HashSet::new();
    for (at, wish) in wishes.iter().enumerate() {
        let mut way = Vec::new();
        let mut seen = HashSet::new();
        let mut here = Some(at);
        let loops = loop {
            match here {
                None => break false,
                Some(at) if fine.contains(&at) => break false,
                Some(at) if endless.contains(&at) || !seen.insert(at) => break true,
                Some(at) => {
                    way.push(at);
                    here = parent_of(at);
                }
            }
        };
        if loops {
            endless.extend(way);
            let why = "its parents in this file go round in a circle".to_owned();
            let mistake = Mistake::new("parent-cycle", Some("parent"), why);
            let line = Outcome::failed(wish.line, wish.body.slug.clone(), mistake);
            order.mistakes.push(line);
            continue;
        }
        fine.extend(way);
        match parent_of(at) {
            Some(parent) => {
                order.parent.insert(at, parent);
                order.below.entry(parent).or_default().push(at);
            }
            None => order.roots.push(at),
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use waangu_api::types::CreateTenant;

    use super::*;

    fn wishes(pairs: &[(&str, &str)]) -> Vec<Wish> {
        let wish = |(line, (slug, parent)): (u64, &(&str, &str))| Wish {
            line,
            body: CreateTenant {
                slug: (*slug).to_owned(),
                parent: (!parent.is_empty()).then(|| (*parent).to_owned()),
                ..CreateTenant::default()
            },
        };
        (1..).zip(pairs).map(wish).collect()
    }

    /// A holding that stands after its subsidiaries in the file must not cost them their place, and a
    /// circle must not hold anybody up for ever.
    #[test]
    fn parents_come_first_and_circles_not_at_all() {
        let wishes = wishes(&[
            ("grandchild", "child"),
            ("child", "root"),
            ("root", ""),
            ("elsewhere", "of-the-registry"),
            ("egg", "hen"),
            ("hen", "egg"),
            ("chick", "hen"),
            ("self", "self"),
        ]);
        let order = order(&wishes);
        assert_eq!(order.roots, [2, 3]);
        assert_eq!(order.below[&2], [1]);
        assert_eq!(order.below[&1], [0]);
        let lost: Vec<u64> = order.mistakes.iter().map(|line| line.line).collect();
        assert_eq!(lost, [5, 6, 7, 8]);
    }

    /// Ten thousand tenants below each other must not take a day to put in order.
    #[test]
    fn a_long_chain_is_no_burden() {
        let names: Vec<String> = (0..10_000).map(|number| format!("t{number}")).collect();
        let mut pairs: Vec<(&str, &str)> =
            names.windows(2).map(|two| (&*two[0], &*two[1])).collect();
        pairs.push((&names[9_999], ""));
        let order = order(&wishes(&pairs));
        assert_eq!((order.roots.len(), order.mistakes.len()), (1, 0));
        assert_eq!(order.parent.len(), 9_999);
    }
}
