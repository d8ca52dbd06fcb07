//! Cases with their outcomes, as recorded below `docs/suites/`.

use super::{End, matches};
use anyhow::{Context as _, Result, bail};
use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    fs,
    path::Path,
};

/// What became of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It found what it expects.
    Pass,
    /// It found something else.
    Fail,
    /// It could not even begin, or ended in the middle.
    Broken,
    /// It says itself that it does not apply.
    Skipped,
    /// It was killed when its time was over.
    Late,
    /// A signal killed it.
    Killed,
    /// The node did not survive it.
    Lost,
}

impl Outcome {
    /// All of them, in the order of the summary.
    pub const ALL: [Self; 7] = [
        Self::Pass,
        Self::Fail,
        Self::Broken,
        Self::Skipped,
        Self::Late,
        Self::Killed,
        Self::Lost,
    ];

    /// For commands that tell by their exit code.
    pub fn of(end: &End) -> Self {
        match end {
            End::Exit(0) => Self::Pass,
            End::Exit(_) => Self::Fail,
            End::Signal(_) => Self::Killed,
            End::Late => Self::Late,
            End::Lost(_) => Self::Lost,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Broken => "broken",
            Self::Skipped => "skipped",
            Self::Late => "timed out",
            Self::Killed => "killed",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Its name, unlike any other of the suite.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
    /// In a few words what was seen, or why it cannot pass.
    pub note: String,
}

/// Longest note, in characters.
const NOTE: usize = 120;

impl Case {
    /// A case; of the note, what fits a line of the table. What passed has none.
    pub fn new(name: &str, outcome: Outcome, note: &str) -> Self {
        let words: Vec<_> = note.split_whitespace().collect();
        let note = match outcome {
            Outcome::Pass => String::new(),
            _ => words.join(" ").chars().take(NOTE).collect(),
        };
        Self {
            name: name.split_whitespace().collect::<Vec<_>>().join(" "),
            outcome,
            note,
        }
    }
}

impl Case {
    fn is_unexplained(&self) -> bool {
        self.outcome != Outcome::Pass && !self.note.starts_with(REASON)
    }
}

/// The cases of a suite, by name.
#[derive(Clone, Debug, Default)]
pub struct Table {
    cases: BTreeMap<String, Case>,
    /// The entries that cases come from.
    entries: BTreeMap<String, String>,
}

impl Table {
    /// The recorded table; an empty one where nothing has been recorded.
    pub fn open(path: &Path) -> Result<Self> {
        let mut table = Self::default();
        if !path.exists() {
            return Ok(table);
        }
        let text = fs::read_to_string(path)?;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let case = parsed(line).with_context(|| format!("{}: {line:?}", path.display()))?;
            table.cases.insert(case.name.clone(), case);
        }
        Ok(table)
    }

    /// The cases of these entries.
    pub fn of(found: Vec<(String, Vec<Case>)>) -> Self {
        let mut table = Self::default();
        table.merge(found);
        table
    }

    /// Replaces cases by what was found later.
    pub fn merge(&mut self, found: Vec<(String, Vec<Case>)>) {
        for (entry, cases) in found {
            for case in cases {
                self.entries.insert(case.name.clone(), entry.clone());
                self.cases.insert(case.name.clone(), case);
            }
        }
    }

    /// Entries that these cases come from; none for a case that was not seen.
    pub fn entries_of(&self, cases: &[String]) -> Vec<String> {
        let entries = cases.iter().filter_map(|case| self.entries.get(case));
        entries.cloned().collect()
    }

    /// Cases that pass here and not in `found`; those missing there too, when it comes
    /// from the whole suite.
    pub fn lost_by(&self, found: &Self, whole: bool) -> Vec<String> {
        let passing = self
            .cases
            .values()
            .filter(|case| case.outcome == Outcome::Pass);
        passing
            .filter(|case| match found.cases.get(&case.name) {
                Some(found) => found.outcome != Outcome::Pass,
                None => whole,
            })
            .map(|case| case.name.clone())
            .collect()
    }

    /// This table with what was found in its place; nothing of it remains when the
    /// whole suite was run.
    pub fn replaced_by(mut self, found: Self, whole: bool) -> Self {
        if whole {
            return found;
        }
        self.cases.extend(found.cases);
        self
    }

    /// What the node did not survive.
    pub fn lost(&self) -> Vec<Case> {
        let cases = self.cases.values();
        let lost = cases.filter(|case| case.outcome == Outcome::Lost);
        lost.cloned().collect()
    }

    /// Gives each case that does not pass the first reason whose pattern its name
    /// matches, or, behind a `~`, what it printed.
    pub fn explain(&mut self, reasons: &[(String, String)]) {
        for case in self.cases.values_mut() {
            let fits = |pattern: &str| match pattern.strip_prefix('~') {
                Some(pattern) => matches(pattern, &case.note),
                None => matches(pattern, &case.name),
            };
            if case.is_unexplained()
                && let Some((_, why)) = reasons.iter().find(|(pattern, _)| fits(pattern))
            {
                case.note = format!("{REASON}{why}");
            }
        }
    }

    /// Cases that do not pass and have no reason.
    pub fn unexplained(&self) -> Vec<String> {
        let cases = self.cases.values().filter(|case| case.is_unexplained());
        cases.map(|case| case.name.clone()).collect()
    }

    /// Gives a reason to what does not pass on this machine's Linux either.
    pub fn excuse(&mut self, host: &Self) {
        for case in self.cases.values_mut() {
            let there = host.cases.get(&case.name).map(|case| case.outcome);
            if case.is_unexplained() && there.is_some_and(|outcome| outcome != Outcome::Pass) {
                case.note = format!("{REASON}as on the host's Linux: {}", case.note);
                case.note = case.note.chars().take(NOTE).collect();
            }
        }
    }

    /// How many cases have which outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        let cases = self.cases.values();
        cases.filter(|case| case.outcome == outcome).count()
    }

    /// The counts in words.
    pub fn counts(&self) -> String {
        let counts = Outcome::ALL.map(|outcome| format!("{} {outcome}", self.count(outcome)));
        format!("{} cases: {}", self.cases.len(), counts.join(", "))
    }

    /// The table as it is recorded.
    pub fn text(&self, suite: &str) -> String {
        let mut text = format!(
            "# Recorded by `BLESS=1 scripts/test {suite}`; `!` stands before reasons of {suite}.reasons.\n"
        );
        for case in self.cases.values() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}\t{}\t{}", case.name, case.outcome, case.note);
        }
        text
    }

    /// How many cases do not pass for which reason.
    fn by_reason(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for case in self.cases.values() {
            if let Some(reason) = case.note.strip_prefix(REASON) {
                let reason = reason.split_once(": ").map_or(reason, |(reason, _)| reason);
                *counts.entry(reason).or_default() += 1;
            }
        }
        counts
    }
}

/// Stands before a reason, unlike what a case printed.
const REASON: &str = "!";

fn parsed(line: &str) -> Result<Case> {
    let mut fields = line.split('\t');
    let (Some(name), Some(word), Some(note)) = (fields.next(), fields.next(), fields.next()) else {
        bail!("not a row");
    };
    let outcome = Outcome::ALL
        .into_iter()
        .find(|outcome| outcome.word() == word);
    Ok(Case {
        name: name.to_string(),
        outcome: outcome.context("not an outcome")?,
        note: note.to_string(),
    })
}

/// The text of `docs/suites.md`, from the tables in a folder.
pub fn summary(folder: &Path) -> Result<String> {
    let mut paths: Vec<_> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|end| end == "tsv"));
    paths.sort();
    let mut text = String::from(
        "# Suites\n\nMade from `docs/suites/` by `BLESS=1 cargo test -p skep-qemu suite`; do not \
         edit.\n\nTests that other people wrote, run in a capsule (`qemu/src/suite`): a case that \
         is\nrecorded as passing and does not pass any more fails `scripts/test NAME` of its suite.\n\
         Each suite's table says what became of every case.\n\n| suite | cases |",
    );
    for outcome in Outcome::ALL {
        write!(text, " {outcome} |")?;
    }
    text += "\n| --- | ---: |";
    text += &" ---: |".repeat(Outcome::ALL.len());
    let mut details = String::new();
    for path in &paths {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let table = Table::open(path)?;
        write!(
            text,
            "\n| [{name}](suites/{name}.tsv) | {} |",
            table.cases.len()
        )?;
        for outcome in Outcome::ALL {
            write!(text, " {} |", table.count(outcome))?;
        }
        let reasons = table.by_reason();
        if !reasons.is_empty() {
            let mut reasons: Vec<_> = reasons.into_iter().collect();
            reasons.sort_by_key(|(why, count)| (std::cmp::Reverse(*count), *why));
            write!(
                details,
                "\n## What cannot pass in {name}\n\n| cases | because |\n| ---: | --- |\n"
            )?;
            for (why, count) in reasons {
                writeln!(details, "| {count} | {why} |")?;
            }
        }
    }
    Ok(text + "\n" + &details)
}

#[cfg(test)]
mod tests {
    use super::{Case, Outcome, Table, summary};

    fn table(cases: &[(&str, Outcome)]) -> Table {
        let case = |(name, outcome): &(&str, Outcome)| Case::new(name, *outcome, "saw this");
        Table::of(vec![(
            "entry".to_string(),
            cases.iter().map(case).collect(),
        )])
    }

    #[test]
    fn only_what_passed_can_be_lost() {
        use Outcome::{Fail, Pass, Skipped};
        let recorded = table(&[("a", Pass), ("b", Fail), ("c", Pass), ("d", Pass)]);
        let found = table(&[("a", Pass), ("b", Skipped), ("c", Fail)]);
        assert_eq!(recorded.lost_by(&found, false), ["c"]);
        assert_eq!(recorded.lost_by(&found, true), ["c", "d"]);
        assert_eq!(found.entries_of(&["c".to_string()]), ["entry"]);
    }

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let mut found = table(&[("a", Outcome::Pass), ("b one", Outcome::Late)]);
        let reason = |pattern: &str| (pattern.to_string(), "no disk".to_string());
        found.explain(&[reason("saw this"), reason("~saw *")]);
        let folder = crate::node::TempFolder::new().unwrap();
        let path = folder.path().join("x.tsv");
        std::fs::write(&path, found.text("x")).unwrap();
        let read = Table::open(&path).unwrap();
        assert_eq!(read.cases, found.cases);
        assert_eq!(read.counts(), found.counts());
        let summary = summary(folder.path()).unwrap();
        assert!(summary.contains("| 1 | no disk |"), "{summary}");
    }

    /// `docs/suites.md` is made from the tables, and this holds it to that.
    #[test]
    fn the_summary_is_fresh() {
        let text = summary(&super::super::folder()).unwrap();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/suites.md");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(found, text, "stale: BLESS=1 cargo test -p skep-qemu suite");
    }
}
