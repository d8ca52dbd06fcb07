//! The nodes that a suite runs on, and the conversation with the runner.

use super::{Case, End, Entry, Outcome, Ran, Suite};
use crate::Artifacts;
use crate::{
    Machine, Node,
    ramdisk::{Image, Ramdisk, manifest, port},
    seconds,
};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// The runner's port.
const PORT: u16 = 9000;
/// Memory of a node that is not the capsule's, in MiB.
const NODE_MIB: u32 = 128;
/// How long after an entry's time the runner may take to kill it.
const GRACE: Duration = seconds(60);
/// How long a node may take until the runner answers.
const START: Duration = seconds(120);

/// Runs these entries on as many nodes, one after another, as they use up.
pub(super) fn run(
    suite: &Suite,
    number: usize,
    entries: &[Entry],
    logs: &Path,
) -> Result<Vec<(String, Vec<Case>)>> {
    let name = format!("suite-{}-{number}", suite.name);
    let ramdisk = ramdisk(suite, &name)?;
    let mut found = Vec::new();
    let mut printed = File::create(logs.join(format!("printed-{number}.txt")))?;
    let mut boots = 0;
    while let Some(rest) = entries.get(found.len()..).filter(|rest| !rest.is_empty()) {
        let mut node = start(suite, &format!("{name}-{boots}"), &ramdisk)?;
        boots += 1;
        let mut runner = connect(&mut node)?;
        for entry in rest {
            let ran = runner.ask(&mut node, entry)?;
            let cases = match &ran.end {
                End::Lost(how) => vec![Case::new(&entry.name, Outcome::Lost, how)],
                _ => (suite.judge)(entry, &ran),
            };
            report(&mut printed, entry, &ran, &cases)?;
            found.push((entry.name.clone(), cases));
            if matches!(ran.end, End::Lost(_)) {
                break;
            }
        }
    }
    fs::remove_file(&ramdisk)?;
    Ok(found)
}

/// Tells who watches what became of an entry, and keeps what it printed if it did not
/// pass.
fn report(printed: &mut File, entry: &Entry, ran: &Ran, cases: &[Case]) -> Result<()> {
    let time = ran.time.as_secs_f32();
    let passed = cases.iter().filter(|case| case.outcome == Outcome::Pass);
    let passed = passed.count();
    match cases {
        [case] => println!("{} {time:.1} s: {} {}", case.name, case.outcome, case.note),
        _ => println!("{} {time:.1} s: {passed} of {}", entry.name, cases.len()),
    }
    if passed < cases.len() {
        writeln!(printed, "== {} {:?}\n{}", entry.name, ran.end, ran.output)?;
    }
    Ok(())
}

fn ramdisk(suite: &Suite, name: &str) -> Result<PathBuf> {
    let artifacts = Artifacts::new();
    let runner = fs::read(artifacts.require(artifacts.program("runner"))?)?;
    let image: Image = suite.image.with_files(&[("/runner", 0o755, &runner)])?;
    let mut capsule = manifest("suite", &image, &["/runner"]);
    capsule.environment = suite.environment.clone();
    capsule.ports = vec![port(PORT, PORT)];
    capsule.limits.memory_bytes = u64::from(suite.memory_mib) << 20;
    capsule.limits.processes = 4096;
    capsule.limits.files = 65536;
    let mut ramdisk = Ramdisk::new()?;
    ramdisk.capsule(&capsule, &image)?;
    ramdisk.write(name)
}

fn start(suite: &Suite, name: &str, ramdisk: &Path) -> Result<Node> {
    let image_mib = u32::try_from(fs::metadata(ramdisk)?.len() >> 20)?;
    let mut machine = Machine::new(name)
        .cpus(2)
        .memory_mib(NODE_MIB + suite.memory_mib + image_mib)
        .ramdisk(ramdisk)
        .no_reboot();
    machine.guest_ports = vec![8080, PORT];
    machine.start()
}

/// Connects to the runner of a node that may still be starting.
fn connect(node: &mut Node) -> Result<Runner> {
    let deadline = Instant::now() + START;
    loop {
        let failure = match Runner::connect(node) {
            Ok(runner) => return Ok(runner),
            Err(error) => error,
        };
        let ended = node.exit_status()?;
        ensure!(
            ended.is_none() && Instant::now() < deadline,
            "the runner does not answer: {failure:#}; the node: {ended:?}"
        );
        thread::sleep(Duration::from_millis(100));
    }
}

/// A connection to the runner.
struct Runner(BufReader<TcpStream>);

impl Runner {
    fn connect(node: &Node) -> Result<Self> {
        let stream = TcpStream::connect(node.address(PORT))?;
        stream.set_read_timeout(Some(seconds(3)))?;
        let mut runner = Self(BufReader::new(stream));
        // QEMU takes connections for a program that is not there yet.
        let line = runner.line()?;
        ensure!(line == "ready", "it says {line:?}");
        Ok(runner)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line)?;
        ensure!(line.pop() == Some(b'\n'), "the connection ended");
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// Has an entry run.
    fn ask(&mut self, node: &mut Node, entry: &Entry) -> Result<Ran> {
        let started = Instant::now();
        let patience = Duration::from_secs(entry.seconds) + GRACE;
        let mut output = String::new();
        let end = match self.converse(entry, patience, &mut output) {
            Ok(end) => end,
            Err(error) => End::Lost(lost(node, &error)?),
        };
        Ok(Ran {
            end,
            output,
            time: started.elapsed(),
        })
    }

    fn converse(&mut self, entry: &Entry, patience: Duration, output: &mut String) -> Result<End> {
        let stream = self.0.get_mut();
        stream.set_read_timeout(Some(patience))?;
        let request = format!("{}\t{}\n", entry.seconds, entry.command);
        stream.write_all(request.as_bytes())?;
        loop {
            let line = self.line()?;
            match line.strip_prefix('|') {
                Some(text) => {
                    output.push_str(text);
                    output.push('\n');
                }
                None => return parsed(&line),
            }
        }
    }
}

fn parsed(line: &str) -> Result<End> {
    Ok(match line.split_once(' ') {
        None if line == "late" => End::Late,
        Some(("exit", code)) => End::Exit(code.parse()?),
        Some(("signal", number)) => End::Signal(number.parse()?),
        _ => bail!("the runner says {line:?}"),
    })
}

/// In words, what became of a node whose runner ended a conversation in this way.
fn lost(node: &mut Node, error: &anyhow::Error) -> Result<String> {
    // A panic writes its report before the machine restarts.
    let ended = node.wait_exit(seconds(10)).ok();
    let serial = node.serial();
    let panic = serial.lines().rev().find(|line| line.contains("panic"));
    Ok(match (ended, panic) {
        (Some(_), Some(panic)) => panic.trim().to_string(),
        (Some(status), None) => format!("the node ended with status {status}"),
        (None, _) => match node.api().capsule("suite") {
            Err(_) => "the node hangs".to_string(),
            Ok(capsule) => {
                let how = capsule["last_exit"]["how"].as_str();
                let how = how.context("it runs").unwrap_or("it runs");
                format!("the runner does not answer ({how}): {error:#}")
            }
        },
    })
}

#[cfg(test)]
mod tests {
    use super::{End, parsed};

    #[test]
    fn ends_are_what_the_runner_says() {
        assert_eq!(parsed("exit 3").unwrap(), End::Exit(3));
        assert_eq!(parsed("signal 9").unwrap(), End::Signal(9));
        assert_eq!(parsed("late").unwrap(), End::Late);
        assert!(parsed("exit").is_err() && parsed("ready").is_err());
    }
}
