//! Test suites that other people wrote, run inside a capsule and compared with a
//! recorded table.
//!
//! A [`Suite`] is an image with the suite's programs and a list of [`Entry`]s, shell
//! commands. The program `runner` of `qemu/programs` runs them one after another in one
//! capsule, as the host asks for them; a node that dies is started again and goes on
//! after the entry that killed it. What an entry printed becomes one [`Case`] or several
//! (`judge`), and all of them `docs/suites/NAME.tsv`. A case that is recorded as passing
//! and does not pass fails the scenario, and so does any entry that ends the node, hangs
//! it or leaves a process that cannot be killed, whatever was recorded.
//!
//! `docs/suites/NAME.reasons` says why cases cannot pass: lines of a pattern of case
//! names (`*` is any text) or, behind a `~`, of what they printed, a tab, and the reason.
//! While a table is recorded, entries with cases that do not pass run on this machine's
//! Linux too ([`Host`]): what does not pass there either is no fault of the node.
//!
//! `SKEP_SUITE_ONLY=PATTERN,PATTERN` runs only some of the entries, `BLESS=1` records
//! what was found, `SKEP_SUITE_NODES=N` runs that many nodes beside each other.

pub mod busybox;
pub mod cpython;
pub mod go;
mod host;
pub(crate) mod layer;
pub mod libc_test;
pub mod ltp;
mod node;
pub mod stress_ng;
mod table;

pub use host::Host;

pub use table::{Case, Outcome, Table, summary};

use crate::{Artifacts, ramdisk::Image};
use anyhow::{Context as _, Result, bail, ensure};
use std::{fs, path::PathBuf, thread, time::Duration};

/// One command of a suite.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name in the suite.
    pub name: String,
    /// What the capsule's `/bin/sh` runs, in `/tmp`, with no input.
    pub command: String,
    /// After how many seconds it is killed.
    pub seconds: u64,
}

/// How an entry's command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With this code.
    Exit(i32),
    /// By this signal.
    Signal(i32),
    /// It was killed when its time was over.
    Late,
    /// The node or the runner died of it or does not answer any more: how.
    Lost(String),
}

/// What an entry did.
#[derive(Clone, Debug)]
pub struct Ran {
    /// How its command ended.
    pub end: End,
    /// What it printed, its last MiBs if that is much.
    pub output: String,
    /// How long it took.
    pub time: Duration,
}

/// Makes cases of what an entry did.
pub type Judge = fn(&Entry, &Ran) -> Vec<Case>;

/// A suite, ready to be run.
pub struct Suite {
    /// Name of its files below `docs/suites/`.
    pub name: &'static str,
    /// Its programs, with `/bin/sh`.
    pub image: Image,
    /// Environment of the commands.
    pub environment: Vec<(String, String)>,
    /// Memory of the capsule, in MiB.
    pub memory_mib: u32,
    /// What it consists of.
    pub entries: Vec<Entry>,
    /// Makes cases of what an entry did that was not [`End::Lost`].
    pub judge: Judge,
    /// The same files on this machine's Linux.
    pub host: Option<Host>,
}

/// One case of the entry's own name: exit code 0 passes.
pub fn by_exit_code(entry: &Entry, ran: &Ran) -> Vec<Case> {
    let note = ran.output.lines().last().unwrap_or_default();
    vec![Case::new(&entry.name, Outcome::of(&ran.end), note)]
}

impl Suite {
    /// Runs the suite and holds it to its recorded table.
    pub fn check(&self) -> Result<()> {
        let entries = selected(&self.entries)?;
        let found = self.run(&entries)?;
        let recorded = Table::open(&table_path(self.name))?;
        let mut found = Table::of(found);
        let whole = entries.len() == self.entries.len();
        // These fail whatever a second try gives.
        let mut broken = found.lost();
        // A busy host makes some late: what no longer passes has a second try.
        let again = recorded.lost_by(&found, whole);
        if !again.is_empty() && again.len() * 4 < entries.len() {
            let names: Vec<_> = found.entries_of(&again);
            let entries = entries.iter().filter(|entry| names.contains(&entry.name));
            found.merge(self.run(&entries.cloned().collect::<Vec<_>>())?);
            broken.extend(found.lost());
        }
        let blessed = std::env::var_os("BLESS").is_some();
        found.explain(&reasons(self.name)?);
        if blessed && let Some(host) = &self.host {
            found.excuse(&self.run_on_the_host(host, &found)?);
        }
        fs::write(self.logs()?.join("table.tsv"), found.text(self.name))?;
        println!("{}", found.counts());
        if blessed {
            let text = recorded.replaced_by(found, whole).text(self.name);
            fs::write(table_path(self.name), text)?;
        } else {
            let missed = recorded.lost_by(&found, whole);
            ensure!(
                missed.is_empty(),
                "{} cases passed and do not any more: {}; what they print is in {}",
                missed.len(),
                missed.join(" "),
                self.logs()?.display()
            );
        }
        ensure!(broken.is_empty(), "the node did not survive {broken:?}");
        Ok(())
    }

    /// Runs these entries, spread over nodes, in any order.
    fn run(&self, entries: &[Entry]) -> Result<Vec<(String, Vec<Case>)>> {
        let nodes =
            std::env::var("SKEP_SUITE_NODES").map_or(Ok(1), |text| text.parse::<usize>())?;
        let share = entries.len().div_ceil(nodes.max(1)).max(1);
        let logs = self.logs()?;
        thread::scope(|scope| {
            let parts: Vec<_> = entries
                .chunks(share)
                .enumerate()
                .map(|(number, part)| {
                    let logs = &logs;
                    scope.spawn(move || node::run(self, number, part, logs))
                })
                .collect();
            let mut found = Vec::new();
            for part in parts {
                match part.join() {
                    Ok(cases) => found.extend(cases?),
                    Err(_) => bail!("a run of {} panicked", self.name),
                }
            }
            Ok(found)
        })
    }

    /// What this machine's Linux makes of the entries with cases that do not pass and
    /// have no reason.
    fn run_on_the_host(&self, host: &Host, found: &Table) -> Result<Table> {
        let wanted = found.entries_of(&found.unexplained());
        let entries = self.entries.iter();
        let entries = entries.filter(|entry| wanted.contains(&entry.name));
        let ran = entries.map(|entry| {
            let ran = host.run(&self.environment, entry)?;
            Ok((entry.name.clone(), (self.judge)(entry, &ran)))
        });
        Ok(Table::of(ran.collect::<Result<_>>()?))
    }

    /// Folder of what entries printed that did not pass.
    fn logs(&self) -> Result<PathBuf> {
        let folder = Artifacts::new().logs().join(format!("suite-{}", self.name));
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }
}

/// The entries that `SKEP_SUITE_ONLY` names, or all.
fn selected(entries: &[Entry]) -> Result<Vec<Entry>> {
    let Ok(patterns) = std::env::var("SKEP_SUITE_ONLY") else {
        return Ok(entries.to_vec());
    };
    let wanted = |entry: &&Entry| {
        let mut patterns = patterns.split([',', ' ']);
        patterns.any(|pattern| matches(pattern, &entry.name))
    };
    let found: Vec<_> = entries.iter().filter(wanted).cloned().collect();
    ensure!(!found.is_empty(), "no entry is called {patterns}");
    Ok(found)
}

/// Whether a name is as the pattern says, in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => name.strip_prefix(head).is_some_and(|name| {
            let mut ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            ends.any(|at| name.get(at..).is_some_and(|tail| matches(rest, tail)))
        }),
    }
}

fn table_path(name: &str) -> PathBuf {
    folder().join(format!("{name}.tsv"))
}

fn folder() -> PathBuf {
    Artifacts::new().root().join("docs/suites")
}

/// Patterns of case names, and why they cannot pass.
fn reasons(name: &str) -> Result<Vec<(String, String)>> {
    let path = folder().join(format!("{name}.reasons"));
    let text = fs::read_to_string(&path).unwrap_or_default();
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (pattern, reason) = line
                .split_once('\t')
                .with_context(|| format!("{}: no tab in {line:?}", path.display()))?;
            Ok((pattern.to_string(), reason.to_string()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_whole_names() {
        assert!(matches("open01", "open01") && !matches("open0", "open01"));
        assert!(matches("open*", "open") && matches("open*", "openat02"));
        assert!(matches("*_16", "chown01_16") && !matches("*_16", "chown01_161"));
        assert!(matches("a*b*c", "axxbyyc") && !matches("a*b*c", "axxcyyb"));
    }
}
