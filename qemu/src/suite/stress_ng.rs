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
/// How long a stressor may take.
const SECONDS: u64 = 300;
/// Exit codes for what cannot be tried: not enough of something, not there.
const UNTRIED: [i32; 2] = [3, 4];

/// The suite of this machine's Debian.
pub fn suite() -> Result<Suite> {
    let packages = Packages::pack("suite-stress_ng", PACKAGES)?;
    // All that it has: what a capsule may not do is told by the reasons.
    let stressors = packages.on_the_host(b"", &["stress-ng", "--stressors"])?;
    let stressors = String::from_utf8(stressors)?;
    // Those that may hang or restart a machine run in a capsule only, where the runner is.
    let entries = stressors.split_whitespace().map(|stressor| Entry {
        name: stressor.to_string(),
        command: format!(
            "wild=; [ ! -e /runner ] || wild=--pathological; \
             exec stress-ng --{stressor} 2 --{stressor}-ops 20 --timeout 5 --verify \
             --temp-path /tmp --no-rand-seed --oom-avoid $wild"
        ),
        seconds: SECONDS,
    });
    Parts {
        name: "stress_ng",
        entries: entries.collect(),
        packages,
        layer: Layer::empty("stress_ng")?,
        environment: &[("LANG", "C")],
        memory_mib: 1536,
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
