//! A network of its own for machines that boot from it: a bridge in a network
//! namespace, which nothing outside can reach.

use crate::command::output;
use anyhow::{Context as _, Result, ensure};
use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The address of the namespace on its bridge `br0`, with 24 bits of prefix.
pub const ADDRESS: &str = "10.9.0.1";
/// Pause between looks at something that is not there yet.
const POLL: Duration = Duration::from_millis(200);

/// A bridge in a namespace; gone when this is dropped, with all that runs there.
pub struct Lan {
    holder: Child,
    is_root: bool,
    programs: Vec<Child>,
}

impl Lan {
    /// Makes one.
    pub fn new() -> Result<Self> {
        let is_root = output(Command::new("id").arg("-u"))?.trim() == "0";
        let mut command = with_end_of_ours("unshare");
        if !is_root {
            command.args(["--user", "--map-root-user"]);
        }
        let script = format!(
            "ip link set lo up && ip link add br0 type bridge && \
             ip address add {ADDRESS}/24 dev br0 && ip link set br0 up && \
             echo ready && exec sleep infinity"
        );
        command.args(["--net", "--", "sh", "-c", &script]);
        let mut holder = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run unshare (package util-linux)")?;
        let mut said = String::new();
        if let Some(lines) = holder.stdout.take() {
            BufReader::new(lines).read_line(&mut said)?;
        }
        ensure!(said == "ready\n", "a network namespace cannot be had here");
        Ok(Self {
            holder,
            is_root,
            programs: Vec::new(),
        })
    }

    /// A program in this network; it ends when this thread does.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = with_end_of_ours("nsenter");
        let holder = self.holder.id().to_string();
        command.args(["--target", &holder, "--net"]);
        if !self.is_root {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--").arg(program);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a program of this network until the network is gone, with its words in
    /// the file `log`.
    pub fn spawn(&mut self, command: &mut Command, log: &Path) -> Result<()> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let program = command.stdout(file.try_clone()?).stderr(file).spawn()?;
        self.programs.push(program);
        Ok(())
    }

    /// Adds a port of the bridge for a machine: a tap device of this name.
    pub fn tap(&self, name: &str) -> Result<()> {
        let script =
            format!("ip tuntap add dev {name} mode tap && ip link set {name} master br0 up");
        output(self.command("sh").args(["-c", &script]))?;
        Ok(())
    }

    /// Fetches a page with curl until it comes, and contains `expected`.
    pub fn wait_page(&self, url: &str, expected: &str, timeout: Duration) -> Result<Duration> {
        let start = Instant::now();
        loop {
            let mut curl = self.command("curl");
            let got = output(curl.args(["--silent", "--fail", "--max-time", "5", url]));
            if got.as_ref().is_ok_and(|page| page.contains(expected)) {
                return Ok(start.elapsed());
            }
            ensure!(
                start.elapsed() < timeout,
                "{url} did not come with {expected:?} in {timeout:?}; last: {got:?}"
            );
            thread::sleep(POLL);
        }
    }

    /// Waits until a program's log contains a text.
    pub fn wait_log(&self, log: &Path, expected: &str, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            let said = fs::read_to_string(log).unwrap_or_default();
            if said.contains(expected) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{} lacks {expected:?}:\n{said}",
                log.display()
            );
            thread::sleep(POLL);
        }
    }
}

/// A command that is killed when this thread ends, however it does.
fn with_end_of_ours(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

impl Drop for Lan {
    fn drop(&mut self) {
        for program in self.programs.iter_mut().chain([&mut self.holder]) {
            // Both fail only when it has ended already.
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}
