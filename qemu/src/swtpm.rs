//! A TPM 2.0 made of software (swtpm), whose memory outlives the machines it is put in.

use crate::{Artifacts, Machine, node::TempFolder};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long it may take to open its socket.
const START_TIMEOUT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

/// How a machine talks to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// Byte by byte: QEMU's `tpm-tis`.
    Tis,
    /// Through a buffer: QEMU's `tpm-crb`.
    Crb,
}

/// The memory of one TPM: what it keeps over power cycles.
pub struct Swtpm {
    folder: TempFolder,
    log: PathBuf,
    running: Option<Child>,
}

impl Swtpm {
    /// A TPM as it comes from the factory; `name` is that of its log.
    pub fn new(name: &str) -> Result<Self> {
        let logs = Artifacts::new().logs();
        fs::create_dir_all(&logs)?;
        let tpm = Self {
            folder: TempFolder::new()?,
            log: logs.join(format!("{name}-swtpm.log")),
            running: None,
        };
        fs::create_dir_all(tpm.memory())?;
        Ok(tpm)
    }

    fn memory(&self) -> PathBuf {
        self.folder.path().join("memory")
    }

    /// Forgets everything, as a person before the machine can have it do.
    pub fn clear(&mut self) -> Result<()> {
        self.stop();
        fs::remove_dir_all(self.memory())?;
        Ok(fs::create_dir_all(self.memory())?)
    }

    /// Puts it into a machine, which is to be started next: it serves one QEMU, and ends
    /// with it.
    pub fn plug(&mut self, machine: Machine, interface: Interface) -> Result<Machine> {
        let arguments = self.arguments(interface)?;
        let machine = arguments
            .into_iter()
            .fold(machine, |machine, (name, value)| {
                machine.option(name, &value)
            });
        Ok(machine)
    }

    /// The same for a QEMU of one's own: its options and their values.
    pub fn arguments(&mut self, interface: Interface) -> Result<[(&'static str, String); 3]> {
        self.stop();
        let socket = self.folder.path().join("control");
        let _ = fs::remove_file(&socket);
        let said = File::create(&self.log)?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", "swtpm", "socket", "--tpm2"])
            .arg("--tpmstate")
            .arg(format!("dir={}", self.memory().display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", socket.display()))
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said);
        let child = command.spawn().context("cannot run setpriv")?;
        let child = self.running.insert(child);
        let deadline = Instant::now() + START_TIMEOUT;
        while !socket.exists() {
            if let Some(status) = child.try_wait()? {
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                bail!("swtpm ended at once ({status}): {said}");
            }
            ensure!(Instant::now() < deadline, "swtpm opens no socket");
            thread::sleep(POLL);
        }
        let device = match interface {
            Interface::Tis => "tpm-tis,tpmdev=tpm0",
            Interface::Crb => "tpm-crb,tpmdev=tpm0",
        };
        let socket = format!("socket,id=tpm-control,path={}", socket.display());
        let emulator = "emulator,id=tpm0,chardev=tpm-control";
        Ok([
            ("-chardev", socket),
            ("-tpmdev", emulator.to_string()),
            ("-device", device.to_string()),
        ])
    }

    /// Kills it, as if its chip had died.
    pub fn kill(&mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.running.take() {
            // Both fail only when it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.stop();
    }
}
