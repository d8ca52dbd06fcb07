//! The steps of this boot: the kernel's, and when each capsule was started and ready first.

use serde::Serialize;
use skep_api::control::BootStep;
use std::collections::BTreeSet;

use crate::journal::Journal;
use crate::supervisor::RecordKind;

/// Something that had to be done until the node did its work.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    step: String,
    /// When, in milliseconds since the kernel has a clock; before that it is less than 0.
    done_ms: f64,
}

/// All of them, in order. Those of capsules are in the journal until it has become too long.
pub(super) fn steps(kernel: Vec<BootStep>, journal: &Journal) -> Vec<Step> {
    let mut steps: Vec<_> = kernel.into_iter().map(of_kernel).collect();
    let is_whole = journal.after(0).next().is_some_and(|entry| entry.seq == 1);
    if is_whole {
        steps.extend(of_capsules(journal));
    }
    steps.sort_by(|a, b| a.done_ms.total_cmp(&b.done_ms));
    steps
}

fn of_kernel(step: BootStep) -> Step {
    Step {
        step: step.name,
        done_ms: step.done_ns as f64 / 1e6,
    }
}

fn of_capsules(journal: &Journal) -> impl Iterator<Item = Step> {
    let mut seen = BTreeSet::new();
    journal.after(0).filter_map(move |entry| {
        let name = entry.capsule.as_deref()?;
        let did = match entry.kind {
            RecordKind::Started => "started",
            RecordKind::Ready => "ready",
            RecordKind::Owner => {
                // What the owner has started is not of the boot.
                seen.extend([(name, "started"), (name, "ready")]);
                return None;
            }
            _ => return None,
        };
        seen.insert((name, did)).then(|| Step {
            step: format!("{name} {did}"),
            done_ms: entry.uptime_ms as f64,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_capsule_counts_once_and_before_what_came_later() {
        let mut journal = Journal::default();
        let mut tell = |ms, kind, name: &str| {
            journal.append(ms, None, kind, Some(name.to_owned()), String::new());
        };
        tell(300, RecordKind::Started, "nginx");
        tell(420, RecordKind::Ready, "nginx");
        tell(500, RecordKind::Exited, "nginx");
        tell(510, RecordKind::Started, "nginx");
        tell(600, RecordKind::Ready, "nginx");
        tell(700, RecordKind::Owner, "redis");
        tell(710, RecordKind::Started, "redis");
        let kernel = [("power on", -900_000_000), ("first address", 400_000_000)];
        let kernel = kernel.map(|(name, done_ns)| BootStep {
            name: name.to_owned(),
            done_ns,
        });
        let shown = steps(kernel.to_vec(), &journal);
        let shown: Vec<_> = shown.iter().map(|s| (&*s.step, s.done_ms as i64)).collect();
        let expected = [
            ("power on", -900),
            ("nginx started", 300),
            ("first address", 400),
            ("nginx ready", 420),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_journal_that_has_lost_its_beginning_says_nothing_of_the_boot() {
        let mut journal = Journal::default();
        for _ in 0..=crate::journal::ENTRIES_MAX {
            let name = Some("nginx".to_owned());
            journal.append(300, None, RecordKind::Started, name, String::new());
        }
        assert!(steps(Vec::new(), &journal).is_empty());
    }
}
