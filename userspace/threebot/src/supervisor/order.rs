//! The order of first starts.
//!
//! A capsule waits until each one that it starts after is ready. It does not wait for what will
//! not come: a capsule that the node does not have, that was refused, that the owner stopped, or
//! that did its work and ended. The order is about the first start only: a capsule that ran
//! before is restarted whatever its predecessors do.

use std::collections::{BTreeMap, BTreeSet};

use super::unit::{Phase, Unit};

/// The capsules that `unit` still waits for.
pub(super) fn missing(units: &BTreeMap<String, Unit>, unit: &Unit) -> BTreeSet<String> {
    let holds_up = |name: &&String| {
        units.get(*name).is_some_and(|other| match other.phase {
            Phase::Held | Phase::Finished | Phase::Refused(_) => false,
            _ => !other.is_ready(),
        })
    };
    unit.spec
        .start_after
        .iter()
        .filter(holds_up)
        .cloned()
        .collect()
}

/// The waiting capsules that need wait no longer.
pub(super) fn may_start(units: &BTreeMap<String, Unit>) -> Vec<String> {
    let waiting = units
        .iter()
        .filter(|(_, unit)| unit.phase == Phase::Waiting);
    waiting
        .filter(|(_, unit)| unit.memory.was_started || missing(units, unit).is_empty())
        .map(|(name, _)| name.clone())
        .collect()
}

/// Removes every `start_after` that closes a circle, and tells which: (capsule, what it
/// would have waited for).
pub(super) fn break_cycles(units: &mut BTreeMap<String, Unit>) -> Vec<(String, String)> {
    let names: Vec<String> = units.keys().cloned().collect();
    let mut cut = Vec::new();
    for name in names {
        let Some(unit) = units.get(&name) else {
            continue;
        };
        let circular: Vec<String> = unit
            .spec
            .start_after
            .iter()
            .filter(|after| reaches(units, after, &name))
            .cloned()
            .collect();
        if let Some(unit) = units.get_mut(&name) {
            unit.spec
                .start_after
                .retain(|after| !circular.contains(after));
        }
        cut.extend(circular.into_iter().map(|after| (name.clone(), after)));
    }
    cut
}

/// Whether `from` comes, over any number of steps, after `target`.
fn reaches(units: &BTreeMap<String, Unit>, from: &str, target: &str) -> bool {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(name) = open.pop() {
        if name == target {
            return true;
        }
        if seen.insert(name)
            && let Some(unit) = units.get(name)
        {
            open.extend(unit.spec.start_after.iter().map(String::as_str));
        }
    }
    false
}
