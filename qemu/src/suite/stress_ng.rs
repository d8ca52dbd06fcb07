//! stress-ng, which checks its own work: every stressor is a case.

use super::{Case, End, Entry, Outcome, Ran, Suite, host::Parts, layer::Layer};
use crate::twin::Packages;
use anyhow::Result;

const PACKAGES: &[&str] = &[
    "stress-ng",
    "base-files",
    "bash",
    "dash",
    "coreutils",
    "grep",
];
/// The stressors of interfaces that a capsule may use.
const STRESSORS: &str = include_str!("../../tests/suites/stress-ng.txt");
/// How long a stressor may take.
const SECONDS: u64 = 300;
/// Exit codes for what cannot be tried: not enough of something, not there.
const UNTRIED: [i32; 2] = [3, 4];

/// The suite of this machine's Debian.
pub fn suite() -> Result<Suite> {
    let entries = STRESSORS.split_whitespace().map(|stressor| Entry {
        name: stressor.to_string(),
        command: format!(
            "exec stress-ng --{stressor} 2 --{stressor}-ops 20 --timeout 5 --verify \
             --temp-path /tmp --no-rand-seed --oom-avoid"
        ),
        seconds: SECONDS,
    });
    Parts {
        name: "stress_ng",
        packages: Packages::pack("suite-stress_ng", PACKAGES)?,
        layer: Layer::empty("stress_ng")?,
        environment: &[("LANG", "C")],
        memory_mib: 1536,
        entries: entries.collect(),
        judge,
    }
    .suite()
}

fn judge(entry: &Entry, ran: &Ran) -> Vec<Case> {
    let line = |word: &str| ran.output.lines().find(|line| line.contains(word));
    let skipped = line("skipp");
    let outcome = match ran.end {
        End::Exit(code) if UNTRIED.contains(&code) => Outcome::Skipped,
        End::Exit(0) if skipped.is_some() => Outcome::Skipped,
        _ => Outcome::of(&ran.end),
    };
    let said = skipped
        .or_else(|| line("fail:"))
        .or_else(|| ran.output.lines().last());
    vec![Case::new(&entry.name, outcome, said.unwrap_or_default())]
}
