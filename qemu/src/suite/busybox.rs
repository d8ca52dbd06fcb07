//! busybox's own tests, of Debian's busybox.

use super::{Case, Entry, Outcome, Ran, Suite, host::Parts, layer::Layer};
use crate::twin::Packages;
use anyhow::{Context as _, Result, ensure};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

const PACKAGES: &[&str] = &["busybox-static", "base-files", "netbase"];
/// Where the tests are in the capsule.
const PREFIX: &str = "/opt/busybox";
/// How long the tests of an applet may take.
const SECONDS: u64 = 600;

/// The tests of the unpacked source package, which `SKEP_BUSYBOX` names.
pub fn suite() -> Result<Suite> {
    let source = std::env::var_os("SKEP_BUSYBOX").context(
        "SKEP_BUSYBOX does not say where Debian's source of busybox is: `apt-get source busybox`",
    )?;
    let source = PathBuf::from(source);
    let tests = source.join("testsuite");
    let packages = Packages::pack("suite-busybox", PACKAGES)?;
    let busybox = packages.file("/bin/busybox")?;
    let layer = Layer::empty("busybox")?;
    layer.copy(&tests, &format!("{PREFIX}/testsuite"))?;
    // `/bin` is a link.
    layer.add("/usr/bin/sh", 0o755, &busybox)?;
    layer.add(&format!("{PREFIX}/busybox"), 0o755, &busybox)?;
    let configuration = fs::read(source.join("debian/config/pkg/static"))?;
    layer.add(&format!("{PREFIX}/.config"), 0o644, &configuration)?;
    let mut applets = BTreeSet::new();
    let listed = fs::read_dir(&tests).with_context(|| format!("no {}", tests.display()))?;
    for file in listed {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match name.strip_suffix(".tests") {
            Some(name) => applets.insert(name.to_string()),
            None => path.is_dir() && applets.insert(name.to_string()),
        };
    }
    ensure!(!applets.is_empty(), "{} has no tests", tests.display());
    Parts {
        name: "busybox",
        packages,
        layer,
        environment: &[
            ("LANG", "C"),
            ("SKIP_INTERNET_TESTS", "1"),
            ("VERBOSE", "1"),
        ],
        memory_mib: 256,
        entries: applets.iter().map(|applet| entry(applet)).collect(),
        judge,
    }
    .suite()
}

fn entry(applet: &str) -> Entry {
    Entry {
        name: applet.to_string(),
        // They write where they are.
        command: format!(
            "B=/bin/busybox; $B cp -r {PREFIX} /tmp/b && cd /tmp/b/testsuite && \
             PATH=/tmp/l:$PATH && $B mkdir /tmp/l && $B --install -s /tmp/l && \
             exec sh ./runtest {applet} </dev/null"
        ),
        seconds: SECONDS,
    }
}

/// A case for each line of the suite that says so; some names are there several times.
fn judge(entry: &Entry, ran: &Ran) -> Vec<Case> {
    let mut seen = BTreeMap::new();
    let mut cases = Vec::new();
    for line in ran.output.lines() {
        let Some((word, name)) = line.split_once(": ") else {
            continue;
        };
        let outcome = match word {
            "PASS" => Outcome::Pass,
            "FAIL" => Outcome::Fail,
            "SKIPPED" | "UNTESTED" => Outcome::Skipped,
            _ => continue,
        };
        let number: &mut u32 = seen.entry(name).or_default();
        *number += 1;
        let name = match number {
            1 => format!("{}: {name}", entry.name),
            _ => format!("{}: {name} #{number}", entry.name),
        };
        cases.push(Case::new(&name, outcome, ""));
    }
    let last = ran.output.lines().last().unwrap_or_default();
    match Outcome::of(&ran.end) {
        ended @ (Outcome::Late | Outcome::Killed) => {
            cases.push(Case::new(&entry.name, ended, last));
        }
        _ if !cases.is_empty() => {}
        Outcome::Pass => {
            let note = "none of its tests is for this busybox";
            cases.push(Case::new(&entry.name, Outcome::Skipped, note));
        }
        _ => cases.push(Case::new(&entry.name, Outcome::Broken, last)),
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Ran, entry, judge};
    use crate::suite::End;
    use std::time::Duration;

    #[test]
    fn lines_are_cases_with_names_of_their_own() {
        let mut ran = Ran {
            end: End::Exit(1),
            output: "PASS: a\nFAIL: a\n--- expected\nSKIPPED: b\n".to_string(),
            time: Duration::ZERO,
        };
        let cases = judge(&entry("cp"), &ran);
        let names: Vec<_> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names, ["cp: a", "cp: a #2", "cp: b"]);
        ran.output.clear();
        assert_eq!(judge(&entry("cp"), &ran)[0].outcome, Outcome::Broken);
    }
}
