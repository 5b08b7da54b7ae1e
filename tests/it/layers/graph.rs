//! Circles among imports.

use std::collections::{BTreeMap, BTreeSet};

/// The shortest way from `start` along the edges back to `start`, without its last step.
pub(super) fn cycle_through(edges: &BTreeMap<String, BTreeSet<String>>, start: &str) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.to_owned()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            let next = way.last().and_then(|last| edges.get(last)).into_iter().flatten();
            for to in next {
                if to == start {
                    return Some(way);
                }
                if seen.insert(to.clone()) {
                    longer.push(way.iter().cloned().chain([to.clone()]).collect());
                }
            }
        }
        ways = longer;
    }
    None
}

/// The same circle, from its first name on, so that it is reported once.
pub(super) fn canonical(mut cycle: Vec<String>) -> Vec<String> {
    let first = cycle
        .iter()
        .enumerate()
        .min_by_key(|(_, name)| *name)
        .map_or(0, |(at, _)| at);
    cycle.rotate_left(first);
    cycle.extend(cycle.first().cloned());
    cycle
}
