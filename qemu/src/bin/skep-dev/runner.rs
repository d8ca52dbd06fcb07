//! Running what was selected and telling how it went.

use crate::{
    scenarios::{Programs, Scenario},
    steps::Step,
};
use anyhow::{Context as _, Result, anyhow};
use skep_qemu::Artifacts;
use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::Instant,
};

/// Scenarios that run beside one another at most: more would need more memory than
/// many machines have.
const MOST_AT_ONCE: usize = 4;

/// Runs steps and scenarios, shows a line for each and counts.
pub(crate) struct Runner<'a> {
    artifacts: &'a Artifacts,
    logs: PathBuf,
    /// Whether scenarios have their whole length.
    long: bool,
    /// Characters of the longest name.
    width: usize,
    /// Whether a step that scenarios need has failed.
    nothing_to_boot: bool,
    passed: usize,
    failed: usize,
}

impl<'a> Runner<'a> {
    /// One for what has these names.
    pub(crate) fn new(artifacts: &'a Artifacts, long: bool, names: &[String]) -> Result<Self> {
        let logs = artifacts.target().join("test-logs");
        fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
        Ok(Self {
            artifacts,
            logs,
            long,
            width: names.iter().map(String::len).max().unwrap_or(0),
            nothing_to_boot: false,
            passed: 0,
            failed: 0,
        })
    }

    /// How many succeeded, and how many failed.
    pub(crate) fn tally(&self) -> (usize, usize) {
        (self.passed, self.failed)
    }

    /// Runs the steps in their order.
    pub(crate) fn steps(&mut self, steps: Vec<Step>) {
        for step in steps {
            announce(step.name);
            let (name, builds, start) = (step.name, step.builds(), Instant::now());
            let result = step.run(self.artifacts, &self.log(name));
            self.nothing_to_boot |= builds && result.is_err();
            self.tell(name, start, result);
        }
    }

    /// Runs the scenarios, as many at once as this machine has processors.
    ///
    /// An emulated machine on a busy host misses deadlines now and then. Whatever fails
    /// has two more tries, alone, that must both succeed: this tells a busy host from a
    /// fault that comes and goes, and the tally's reader is told of the first one.
    pub(crate) fn scenarios(&mut self, scenarios: Vec<Scenario>) {
        if scenarios.is_empty() {
            return;
        }
        let start = Instant::now();
        let built = if self.nothing_to_boot {
            Err(anyhow!("there is nothing to boot"))
        } else {
            Programs::build(self.artifacts, &self.log("scenarios"))
        };
        let programs = match built {
            Ok(programs) => programs,
            Err(error) => {
                let not_run = error.context(format!("{} were not run", scenarios.len()));
                self.failed += scenarios.len() - 1;
                self.tell("scenarios", start, Err(not_run));
                return;
            }
        };
        for scenario in self.side_by_side(&programs, scenarios) {
            let (name, start) = (scenario.name(), Instant::now());
            announce(&name);
            let again = || programs.run(&scenario, self.long, &self.log(&name));
            let result = again().and_then(|()| again());
            self.tell(&name, start, result);
        }
    }

    /// Runs them beside one another and returns those that failed, of which the tally
    /// says nothing yet.
    fn side_by_side(&mut self, programs: &Programs, scenarios: Vec<Scenario>) -> Vec<Scenario> {
        let at_once = thread::available_parallelism().map_or(1, |n| n.get().min(MOST_AT_ONCE));
        let waiting = Mutex::new(scenarios.into_iter());
        let next = || waiting.lock().ok()?.next();
        let (long, logs) = (self.long, self.logs.clone());
        let shared = Mutex::new((self, Vec::new()));
        thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| {
                    while let Some(scenario) = next() {
                        let (name, start) = (scenario.name(), Instant::now());
                        announce(&name);
                        let log = log_of(&logs, &name);
                        let result = programs.run(&scenario, long, &log);
                        let Ok(mut shared) = shared.lock() else {
                            return;
                        };
                        let (runner, failed) = &mut *shared;
                        match result {
                            Ok(()) => runner.tell(&name, start, Ok(())),
                            Err(error) => {
                                tell_of_first(&name, &log, &error);
                                failed.push(scenario);
                            }
                        }
                    }
                });
            }
        });
        shared
            .into_inner()
            .map_or_else(|e| e.into_inner().1, |all| all.1)
    }

    fn log(&self, name: &str) -> PathBuf {
        log_of(&self.logs, name)
    }

    /// Shows how it went and counts it.
    fn tell(&mut self, name: &str, start: Instant, result: Result<()>) {
        let (width, seconds) = (self.width, start.elapsed().as_secs_f32());
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("ok    {name:width$} {seconds:7.1} s");
            }
            Err(error) => {
                self.failed += 1;
                println!("FAIL  {name:width$} {seconds:7.1} s\n      {error:#}");
            }
        }
    }
}

fn log_of(logs: &Path, name: &str) -> PathBuf {
    logs.join(format!("{}.log", name.replace("::", ".")))
}

/// Tells of a scenario that failed and will be tried again, and keeps its log.
fn tell_of_first(name: &str, log: &Path, error: &anyhow::Error) {
    let first = log.with_extension("first.log");
    // The error has the log's end; a log that cannot be kept is not worth more words.
    let _ = fs::rename(log, &first);
    println!(
        "again {name} failed and must succeed twice, alone; see {}\n      {error:#}",
        first.display()
    );
}

/// Shows what runs, where somebody watches; its result overwrites the line.
fn announce(name: &str) {
    let mut terminal = io::stdout();
    if terminal.is_terminal() {
        // A terminal that cannot be written to is no reason to fail a test.
        let _ = write!(terminal, "...   {name}\r").and_then(|()| terminal.flush());
    }
}
