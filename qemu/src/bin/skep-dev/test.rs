//! `skep-dev test`: every check of the project, each with a name.

use crate::{
    runner::Runner,
    scenarios::{self, Scenario},
    steps::{Step, steps},
};
use anyhow::{Result, bail, ensure};
use skep_qemu::Artifacts;
use std::{
    io::{self, Write as _},
    process::ExitCode,
};

/// What is to be done: the steps one after another, then the scenarios.
struct Selection {
    steps: Vec<Step>,
    scenarios: Vec<Scenario>,
}

/// Runs what the words select and prints the tally as the last line.
pub(crate) fn test(words: &[String]) -> Result<ExitCode> {
    let artifacts = Artifacts::new();
    let mut list = false;
    let mut long = false;
    let mut names = Vec::new();
    for word in words {
        match word.as_str() {
            "--list" => list = true,
            "--long" => long = true,
            name if name.starts_with('-') => bail!("unknown option {name}"),
            name => names.push(name.to_string()),
        }
    }
    let all = Selection {
        steps: steps(&artifacts)?,
        scenarios: scenarios::find(&artifacts.root().join("qemu/tests"))?,
    };
    if list {
        // Whoever closes the pipe early has read enough.
        let _ = writeln!(io::stdout(), "{}", all.names().join("\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let selected = all.select(&names, long)?;
    let mut runner = Runner::new(&artifacts, long, &selected.names())?;
    runner.steps(selected.steps);
    runner.scenarios(selected.scenarios);
    let (passed, failed) = runner.tally();
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Selection {
    fn names(&self) -> Vec<String> {
        let steps = self.steps.iter().map(|step| step.name.to_string());
        steps
            .chain(self.scenarios.iter().map(Scenario::name))
            .collect()
    }

    /// The steps with these names, and the scenarios whose file or function has one of
    /// them; a file may also be named by the first word of its name (`physical` of
    /// `physical_net`), and `physical` means `media`, `slots`, `console`, `watchdog` and
    /// `tpm` too. When no name is given all, the longest scenarios in `--long` only. What
    /// a scenario boots is built before it.
    fn select(self, names: &[String], long: bool) -> Result<Selection> {
        for name in names {
            ensure!(
                self.steps.iter().any(|step| step.name == name)
                    || self.scenarios.iter().any(|scenario| scenario.is(name)),
                "there is no test {name}; see scripts/test --list"
            );
        }
        let scenarios = self.scenarios.into_iter();
        let scenarios: Vec<_> = scenarios
            .filter(|scenario| match names {
                [] => long || !scenario.ignored,
                names => names.iter().any(|name| scenario.is(name)),
            })
            .collect();
        let steps = self.steps.into_iter().filter(|step| {
            names.is_empty()
                || names.iter().any(|name| step.name == name)
                || step.builds() && !scenarios.is_empty()
        });
        Ok(Selection {
            steps: steps.collect(),
            scenarios,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Scenario, Selection, Step};
    use crate::steps::Work;

    fn selected(names: &[&str], long: bool) -> Vec<String> {
        let step = |name, work| Step { name, work };
        let scenario = |file: &str, test: &str, ignored| Scenario {
            file: file.to_string(),
            test: test.to_string(),
            ignored,
        };
        let all = Selection {
            steps: vec![
                step("tidy", Work::Tidy),
                step("build", Work::Build(Vec::new())),
            ],
            scenarios: vec![
                scenario("boot", "on_bios", false),
                scenario("boot", "on_uefi", false),
                scenario("compat", "postgres", true),
                scenario("console_serial", "status", false),
                scenario("physical_net", "e1000", false),
                scenario("tpm", "dies", false),
            ],
        };
        let names: Vec<_> = names.iter().map(|name| name.to_string()).collect();
        let selected = all.select(&names, long);
        selected.map_or(Vec::new(), |selected| selected.names())
    }

    #[test]
    fn names_select_steps_groups_and_single_scenarios_with_what_they_boot() {
        assert_eq!(selected(&["tidy"], false), ["tidy"]);
        assert_eq!(
            selected(&["boot"], false),
            ["build", "boot::on_bios", "boot::on_uefi"]
        );
        assert_eq!(selected(&["on_uefi"], false), ["build", "boot::on_uefi"]);
        let one = ["build", "boot::on_uefi"];
        assert_eq!(selected(&["boot::on_uefi"], false), one);
        let net = ["build", "physical_net::e1000"];
        assert_eq!(selected(&["physical_net"], false), net);
        assert_eq!(selected(&[], false).len(), 7);
    }

    #[test]
    fn a_name_may_stand_for_other_groups_too() {
        let all = [
            "build",
            "console_serial::status",
            "physical_net::e1000",
            "tpm::dies",
        ];
        assert_eq!(selected(&["physical"], false), all);
        let console = ["build", "console_serial::status"];
        assert_eq!(selected(&["console"], false), console);
    }

    #[test]
    fn the_longest_run_when_named_and_in_long_runs() {
        assert_eq!(selected(&["compat"], false), ["build", "compat::postgres"]);
        assert_eq!(selected(&[], true).len(), 8);
    }

    #[test]
    fn unknown_names_are_refused() {
        for name in ["no-such", "physical_ne", "e100"] {
            assert_eq!(selected(&[name], false).len(), 0, "{name}");
        }
    }
}
