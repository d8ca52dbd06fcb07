//! `skep-dev test`: every check of the project, one named step after another.

use crate::{
    build::{Part, build_parts},
    cargo::{boot_cargo, cargo, kernel_cargo, pvh_cargo, uefi_cargo},
    ramdisk, tidy,
};
use anyhow::{Context as _, Result, bail, ensure};
use skep_qemu::Artifacts;
use std::{
    fs::{self, File},
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

/// Lines of a failed step's log that are shown.
const TAIL_LINES: usize = 40;

/// What a step does.
enum Work {
    /// Runs these programs; all must succeed.
    Commands(Vec<Command>),
    /// The checks of [`tidy`].
    Tidy,
    /// Builds what scenarios boot.
    Build(Vec<Part>),
    /// Packs what scenarios boot.
    Ramdisk,
    /// Builds and packs what scenarios run inside capsules.
    Programs,
    /// One test of an integration test file of `qemu/`.
    Scenario { file: String, test: String },
}

struct Step {
    name: String,
    work: Work,
    /// Whether it runs only when named, or in `--long`.
    only_named: bool,
}

/// Runs the steps the words select and prints the tally as the last line.
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
    let steps = steps(&artifacts)?;
    if list {
        let names: Vec<_> = steps.iter().map(|step| step.name.as_str()).collect();
        // Whoever closes the pipe early has read enough.
        let _ = writeln!(io::stdout(), "{}", names.join("\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let selected = select(steps, &names, long)?;
    let (passed, failed) = run_steps(&artifacts, selected, long)?;
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Every step, cheapest first.
fn steps(artifacts: &Artifacts) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut add = |name: &str, work| {
        steps.push(Step {
            name: name.to_string(),
            work,
            only_named: false,
        })
    };
    add(
        "format",
        Work::Commands(vec![
            cargo(artifacts, &["fmt", "--all", "--check"]),
            in_boot(artifacts, &["fmt", "--all", "--check"]),
        ]),
    );
    add("tidy", Work::Tidy);
    add("clippy-host", Work::Commands(clippy_host(artifacts)));
    add("clippy-kernel", Work::Commands(clippy_kernel(artifacts)));
    add("unit-host", Work::Commands(vec![unit_tests(artifacts)]));
    add(
        "unit-boot",
        Work::Commands(vec![boot_cargo(
            artifacts,
            &["test", "--workspace", "--lib"],
        )]),
    );
    add("build", Work::Build(Part::NODE.to_vec()));
    add("ramdisk", Work::Ramdisk);
    add("programs", Work::Programs);
    for Found {
        file,
        test,
        ignored,
    } in scenarios(&artifacts.root().join("qemu/tests"))?
    {
        steps.push(Step {
            name: format!("{file}::{test}"),
            work: Work::Scenario { file, test },
            only_named: ignored,
        });
    }
    Ok(steps)
}

fn in_boot(artifacts: &Artifacts, words: &[&str]) -> Command {
    let mut command = cargo(artifacts, words);
    command.current_dir(artifacts.root().join("boot"));
    command
}

fn clippy_host(artifacts: &Artifacts) -> Vec<Command> {
    let mut host = cargo(artifacts, &["clippy", "--all-targets"]);
    // The scenarios are not among the targets of `--all-targets`.
    let mut scenarios = cargo(artifacts, &["clippy", "-p", "skep-qemu", "--test", "*"]);
    let mut boot = boot_cargo(artifacts, &["clippy", "-p", "skep-image", "--all-targets"]);
    let mut pvh = boot_cargo(artifacts, &["clippy", "-p", "skep-pvh", "--lib"]);
    for command in [&mut host, &mut scenarios, &mut boot, &mut pvh] {
        command.args(["--", "-D", "warnings"]);
    }
    vec![host, scenarios, boot, pvh]
}

/// Lints of everything that becomes kernel, for the kernel's target.
fn clippy_kernel(artifacts: &Artifacts) -> Vec<Command> {
    let mut kernel = kernel_cargo(artifacts, &["clippy", "-p", "node"]);
    let mut pvh = pvh_cargo(artifacts, &["clippy"]);
    // Any file will do for a front end that is checked and not linked.
    pvh.env("SKEP_KERNEL", artifacts.root().join("Cargo.toml"));
    let mut uefi = uefi_cargo(artifacts, &["clippy", "--release"]);
    for command in [&mut kernel, &mut pvh, &mut uefi] {
        command.args(["--", "-D", "warnings"]);
    }
    vec![kernel, pvh, uefi]
}

/// Tests of the rooms, drivers and programs, but for the scenarios.
fn unit_tests(artifacts: &Artifacts) -> Command {
    let mut command = cargo(artifacts, &["test", "--lib", "--bins"]);
    command.env("RUST_BACKTRACE", "1");
    command
}

/// A scenario in a source text.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    file: String,
    test: String,
    /// Marked `#[ignore]`: too long for every run.
    ignored: bool,
}

/// The scenarios, found in the source so that they can be listed without building
/// anything.
fn scenarios(folder: &Path) -> Result<Vec<Found>> {
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
        let file = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        found.extend(tests_of(&file, &fs::read_to_string(path)?));
    }
    Ok(found)
}

/// The functions marked `#[test]` in a source text.
fn tests_of(file: &str, source: &str) -> Vec<Found> {
    let mut found = Vec::new();
    let (mut marked, mut ignored) = (false, false);
    for line in source.lines().map(str::trim) {
        if line == "#[test]" {
            (marked, ignored) = (true, false);
        } else if line.starts_with("#[ignore") {
            ignored = true;
        } else if marked && let Some(rest) = line.strip_prefix("fn ") {
            found.extend(rest.split('(').next().map(|test| Found {
                file: file.to_string(),
                test: test.to_string(),
                ignored,
            }));
            marked = false;
        }
    }
    found
}

/// The steps with these names, or whose group or test has one of them; a group may also
/// be named by the first word of its name (`physical` of `physical_net`). When no name
/// is given all, the longest ones in `--long` only. What a scenario boots is built
/// before it.
fn select(steps: Vec<Step>, names: &[String], long: bool) -> Result<Vec<Step>> {
    let is_named = |step: &Step, name: &String| {
        let group = step.name.split_once("::").map(|(group, _)| group);
        let words = group.and_then(|group| group.strip_prefix(name.as_str()));
        step.name == *name
            || step.name.split("::").any(|part| part == name)
            || words.is_some_and(|rest| rest.starts_with('_'))
    };
    for name in names {
        ensure!(
            steps.iter().any(|step| is_named(step, name)),
            "there is no test {name}; see scripts/test --list"
        );
    }
    let chosen = |step: &Step| match names {
        [] => long || !step.only_named,
        names => names.iter().any(|name| is_named(step, name)),
    };
    let boots = steps
        .iter()
        .any(|step| chosen(step) && matches!(step.work, Work::Scenario { .. }));
    let needed = |step: &Step| boots && is_build(&step.work);
    Ok(steps
        .into_iter()
        .filter(|step| chosen(step) || needed(step))
        .collect())
}

/// Whether scenarios need it.
fn is_build(work: &Work) -> bool {
    matches!(work, Work::Build(_) | Work::Ramdisk | Work::Programs)
}

fn run_steps(artifacts: &Artifacts, steps: Vec<Step>, long: bool) -> Result<(usize, usize)> {
    let logs = artifacts.target().join("test-logs");
    fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
    let width = steps.iter().map(|step| step.name.len()).max().unwrap_or(0);
    let (mut passed, mut failed) = (0, 0);
    let mut nothing_to_boot = false;
    for step in steps {
        let start = Instant::now();
        let log = logs.join(format!("{}.log", step.name.replace("::", ".")));
        let builds = is_build(&step.work);
        announce(&step.name);
        let result = match step.work {
            Work::Scenario { .. } if nothing_to_boot => {
                Err(anyhow::anyhow!("not run: there is nothing to boot"))
            }
            work => perform(artifacts, work, long, &log),
        };
        let seconds = start.elapsed().as_secs_f32();
        let name = &step.name;
        match result {
            Ok(()) => {
                passed += 1;
                println!("ok    {name:width$} {seconds:7.1} s");
            }
            Err(error) => {
                failed += 1;
                nothing_to_boot |= builds;
                println!("FAIL  {name:width$} {seconds:7.1} s\n      {error:#}");
            }
        }
    }
    Ok((passed, failed))
}

/// Shows which step runs, where somebody watches; its result overwrites the line.
fn announce(name: &str) {
    let mut terminal = io::stdout();
    if terminal.is_terminal() {
        // A terminal that cannot be written to is no reason to fail a test.
        let _ = write!(terminal, "...   {name}\r").and_then(|()| terminal.flush());
    }
}

fn perform(artifacts: &Artifacts, work: Work, long: bool, log: &Path) -> Result<()> {
    match work {
        Work::Commands(commands) => {
            let file = File::create(log)?;
            for mut command in commands {
                logged(&mut command, &file, log)?;
            }
            Ok(())
        }
        Work::Tidy => tidy::check(artifacts.root()),
        Work::Build(parts) => build_parts(&parts),
        Work::Ramdisk => ramdisk::build(),
        Work::Programs => {
            build_parts(&[Part::Programs])?;
            ramdisk::pack_shell()
        }
        Work::Scenario { file, test } => {
            let Err(error) = scenario(artifacts, &file, &test, long, log) else {
                return Ok(());
            };
            // An emulated machine on a busy host misses deadlines now and then. Two
            // more tries that must both succeed tell that from a fault that comes and
            // goes, and the tally's reader is told of the first one.
            let first = log.with_extension("first.log");
            fs::rename(log, &first)?;
            println!(
                "again {file}::{test} failed and must succeed twice; see {}\n      {error:#}",
                first.display()
            );
            scenario(artifacts, &file, &test, long, log)?;
            scenario(artifacts, &file, &test, long, log)
        }
    }
}

/// Runs one scenario.
fn scenario(artifacts: &Artifacts, file: &str, test: &str, long: bool, log: &Path) -> Result<()> {
    let mut command = cargo(artifacts, &["test", "-p", "skep-qemu", "--test", file]);
    command.args(["--", "--exact", test, "--include-ignored"]);
    command.args(["--nocapture", "--test-threads", "1"]);
    // What failed is told by the error and the serial log, not by our stack.
    command.env("RUST_BACKTRACE", "0");
    if long {
        command.env("SKEP_LONG", "1");
    }
    logged(&mut command, &File::create(log)?, log)?;
    // A name that is not there would pass too.
    let said = fs::read_to_string(log)?;
    ensure!(said.contains("1 passed"), "{file}.rs has no test {test}");
    Ok(())
}

/// Runs a program with its words going to `file`, which is `log`, and shows
/// their end when it fails.
fn logged(command: &mut Command, file: &File, log: &Path) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .env("CARGO_TERM_COLOR", "never")
        .env("TERM", "dumb")
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file.try_clone()?)
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    if status.success() {
        return Ok(());
    }
    let said = fs::read(log).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<_> = said.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n      ");
    bail!("{} ends:\n      {tail}", log.display())
}

#[cfg(test)]
mod tests {
    use super::{Found, Step, Work, select, tests_of};

    fn steps() -> Vec<Step> {
        let scenario = |file: &str, test: &str, only_named| Step {
            name: format!("{file}::{test}"),
            work: Work::Scenario {
                file: file.to_string(),
                test: test.to_string(),
            },
            only_named,
        };
        vec![
            Step {
                name: "tidy".to_string(),
                work: Work::Tidy,
                only_named: false,
            },
            Step {
                name: "build".to_string(),
                work: Work::Build(Vec::new()),
                only_named: false,
            },
            scenario("boot", "on_bios", false),
            scenario("boot", "on_uefi", false),
            scenario("compat", "postgres", true),
            scenario("physical_net", "e1000", false),
        ]
    }

    fn selected(names: &[&str], long: bool) -> Vec<String> {
        let names: Vec<_> = names.iter().map(|name| name.to_string()).collect();
        select(steps(), &names, long)
            .unwrap()
            .into_iter()
            .map(|step| step.name)
            .collect()
    }

    #[test]
    fn names_select_steps_groups_and_single_scenarios_with_what_they_boot() {
        assert_eq!(selected(&["tidy"], false), ["tidy"]);
        assert_eq!(
            selected(&["boot"], false),
            ["build", "boot::on_bios", "boot::on_uefi"]
        );
        assert_eq!(selected(&["on_uefi"], false), ["build", "boot::on_uefi"]);
        let physical = ["build", "physical_net::e1000"];
        assert_eq!(selected(&["physical"], false), physical);
        assert_eq!(selected(&["physical_net"], false), physical);
        assert!(select(steps(), &["physical_ne".to_string()], false).is_err());
        assert_eq!(selected(&[], false).len(), 5);
    }

    #[test]
    fn the_longest_run_when_named_and_in_long_runs() {
        assert_eq!(selected(&["compat"], false), ["build", "compat::postgres"]);
        assert_eq!(selected(&[], true).len(), 6);
    }

    #[test]
    fn unknown_names_are_refused() {
        assert!(select(steps(), &["no-such".to_string()], false).is_err());
    }

    #[test]
    fn test_functions_are_found_behind_other_attributes_too() {
        let source =
            "#[test]\nfn one() {}\nfn helper() {}\n#[test]\n#[ignore = \"long\"]\nfn two() -> R {";
        let found = |test: &str, ignored| Found {
            file: "boot".to_string(),
            test: test.to_string(),
            ignored,
        };
        assert_eq!(
            tests_of("boot", source),
            [found("one", false), found("two", true)]
        );
    }
}
