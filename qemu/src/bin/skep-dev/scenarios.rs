//! The scenarios of `qemu/tests`: how they are found, built and run.

use crate::{cargo::cargo, logged::logged};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use skep_qemu::Artifacts;
use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// Names that stand for other groups too: who tries physical machines wants all that
/// depends on firmware and devices.
const ALSO: [(&str, &[&str]); 1] = [(
    "physical",
    &["media", "slots", "console", "watchdog", "tpm"],
)];

/// A scenario in a source text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scenario {
    /// Its file, without the ending.
    pub file: String,
    /// Its function.
    pub test: String,
    /// Marked `#[ignore]`: too long for every run.
    pub ignored: bool,
}

impl Scenario {
    /// What it is called in lists.
    pub(crate) fn name(&self) -> String {
        format!("{}::{}", self.file, self.test)
    }

    /// Whether it is meant by `name`.
    pub(crate) fn is(&self, name: &str) -> bool {
        let mut also = ALSO.iter().filter(|(whole, _)| *whole == name);
        let grouped = also.any(|(_, parts)| parts.iter().any(|part| self.is_of(part)));
        grouped || self.is_of(name) || self.test == name || self.name() == name
    }

    /// Whether its file is called so, or begins with this word.
    fn is_of(&self, group: &str) -> bool {
        let rest = self.file.strip_prefix(group);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    }
}

/// The scenarios, found in the source so that they can be listed without building
/// anything.
pub(crate) fn find(folder: &Path) -> Result<Vec<Scenario>> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    let mut found = Vec::new();
    for path in files
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
    {
        let file = path.file_stem().unwrap_or_default().to_string_lossy();
        found.extend(tests_of(&file, &fs::read_to_string(path)?));
    }
    Ok(found)
}

/// The functions marked `#[test]` in a source text.
fn tests_of(file: &str, source: &str) -> Vec<Scenario> {
    let mut found = Vec::new();
    let (mut marked, mut ignored) = (false, false);
    for line in source.lines().map(str::trim) {
        if line == "#[test]" {
            (marked, ignored) = (true, false);
        } else if line.starts_with("#[ignore") {
            ignored = true;
        } else if marked && let Some(rest) = line.strip_prefix("fn ") {
            found.extend(rest.split('(').next().map(|test| Scenario {
                file: file.to_string(),
                test: test.to_string(),
                ignored,
            }));
            marked = false;
        }
    }
    found
}

/// The built scenarios: a program for each file.
pub(crate) struct Programs {
    folder: PathBuf,
    paths: HashMap<String, PathBuf>,
}

impl Programs {
    /// Builds them all.
    pub(crate) fn build(artifacts: &Artifacts, log: &Path) -> Result<Self> {
        let mut command = cargo(artifacts, &["test", "-p", "skep-qemu", "--test", "*"]);
        // What cargo says of each program goes to the log, line by line.
        command.args(["--no-run", "--message-format", "json-render-diagnostics"]);
        logged(&mut command, &File::create(log)?, log)?;
        Ok(Self {
            folder: artifacts.root().join("qemu"),
            paths: programs_of(&fs::read_to_string(log)?),
        })
    }

    /// Runs one scenario.
    pub(crate) fn run(&self, scenario: &Scenario, long: bool, log: &Path) -> Result<()> {
        let Scenario { file, test, .. } = scenario;
        let path = self.paths.get(file);
        let mut command = Command::new(path.with_context(|| format!("{file}.rs was not built"))?);
        command.args(["--exact", test, "--include-ignored"]);
        command.args(["--nocapture", "--test-threads", "1"]);
        // What failed is told by the error and the serial log, not by our stack.
        command.current_dir(&self.folder).env("RUST_BACKTRACE", "0");
        if long {
            command.env("SKEP_LONG", "1");
        }
        logged(&mut command, &File::create(log)?, log)?;
        // A name that is not there would pass too.
        let said = fs::read_to_string(log)?;
        ensure!(said.contains("1 passed"), "{file}.rs has no test {test}");
        Ok(())
    }
}

/// The test programs by their names, from what cargo says in JSON; other lines are for
/// people.
fn programs_of(said: &str) -> HashMap<String, PathBuf> {
    let messages = said
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages
        .filter(|message| {
            message
                .pointer("/target/kind/0")
                .is_some_and(|k| k == "test")
        })
        .filter_map(|message| {
            let name = message.pointer("/target/name")?.as_str()?;
            let path = message.get("executable")?.as_str()?;
            Some((name.to_string(), PathBuf::from(path)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Scenario, programs_of, tests_of};
    use std::path::Path;

    #[test]
    fn test_functions_are_found_behind_other_attributes_too() {
        let source =
            "#[test]\nfn one() {}\nfn helper() {}\n#[test]\n#[ignore = \"long\"]\nfn two() -> R {";
        let found = |test: &str, ignored| Scenario {
            file: "boot".to_string(),
            test: test.to_string(),
            ignored,
        };
        assert_eq!(
            tests_of("boot", source),
            [found("one", false), found("two", true)]
        );
    }

    #[test]
    fn programs_are_found_among_what_cargo_says() {
        let said = "   Compiling skep-qemu v0.1.0
{\"reason\":\"compiler-artifact\",\"target\":{\"kind\":[\"lib\"],\"name\":\"skep_qemu\"},\"executable\":null}
{\"reason\":\"compiler-artifact\",\"target\":{\"kind\":[\"test\"],\"name\":\"boot\"},\"executable\":\"/t/boot-1\"}
{\"reason\":\"build-finished\",\"success\":true}";
        let found = programs_of(said);
        assert_eq!(found.len(), 1);
        assert_eq!(found["boot"], Path::new("/t/boot-1"));
    }
}
