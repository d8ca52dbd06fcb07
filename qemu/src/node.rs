//! A running node, seen from the host.

use crate::{
    Artifacts, Board, Firmware, Machine,
    http::{self, Response},
    machine::{BootFiles, OVMF_VARS, QBOOT, escape},
    qmp::Qmp,
    terminal::Terminal,
};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// How long QEMU may take to open its control socket.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(20);
/// Times a start is tried again because another process took a port first.
const PORT_TRIES: u32 = 5;
/// First and longest time given to one HTTP attempt while a node comes up. A
/// packet sent before the node has its address is lost, so short attempts
/// find the page sooner than patient ones.
const ATTEMPT_FIRST: Duration = Duration::from_millis(200);
const ATTEMPT_LONGEST: Duration = Duration::from_secs(3);
/// Pause between looks at something that is not there yet.
const POLL: Duration = Duration::from_millis(5);
/// Name of the socket on which somebody types.
const TERMINAL: &str = "terminal";
/// Lines of the serial log shown with a failure.
const TAIL_LINES: usize = 25;

/// A running QEMU, killed when this is dropped.
pub struct Node {
    child: Child,
    qmp: Qmp,
    started: Instant,
    /// Guest ports with the host ports that lead to them.
    ports: Vec<(u16, u16)>,
    logs: PathBuf,
    /// Gone with the node; holds the control socket and disks made for the run.
    folder: TempFolder,
}

impl Node {
    pub(crate) fn start(machine: &Machine) -> Result<Self> {
        let logs = Artifacts::new().logs().join(&machine.name);
        let _ = fs::remove_dir_all(&logs);
        fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
        let folder = TempFolder::new()?;
        let files = prepare(machine, folder.path())?;
        let mut tries = 0;
        loop {
            let ports = host_ports(machine)?;
            let arguments = machine.command_line(&ports, &files);
            match launch(&arguments, machine.typed_serial, folder.path(), &logs) {
                Ok((child, qmp, started)) => {
                    let ports = machine.guest_ports.iter().copied().zip(ports).collect();
                    return Ok(Self {
                        child,
                        qmp,
                        started,
                        ports,
                        logs,
                        folder,
                    });
                }
                Err(error) => {
                    let said = fs::read_to_string(logs.join("qemu.log")).unwrap_or_default();
                    let port_taken = said.contains("host forwarding rule");
                    tries += 1;
                    if !port_taken || machine.port_base.is_some() || tries == PORT_TRIES {
                        return Err(error.context(format!("QEMU did not start: {}", said.trim())));
                    }
                }
            }
        }
    }

    /// QEMU's control protocol.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.qmp
    }

    /// Process number of QEMU.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Time since QEMU was started.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Where the host reaches a port of the node.
    ///
    /// # Panics
    ///
    /// When the port is not among the machine's `guest_ports`.
    pub fn address(&self, guest_port: u16) -> SocketAddr {
        let host = self.ports.iter().find(|(guest, _)| *guest == guest_port);
        let (_, host) = host.unwrap_or_else(|| panic!("port {guest_port} is not forwarded"));
        SocketAddr::from((Ipv4Addr::LOCALHOST, *host))
    }

    /// All ways by which the host reaches a port of the node, when `guest_ports`
    /// names it more than once.
    pub fn addresses(&self, guest_port: u16) -> Vec<SocketAddr> {
        let hosts = self.ports.iter().filter(|(guest, _)| *guest == guest_port);
        hosts
            .map(|(_, host)| SocketAddr::from((Ipv4Addr::LOCALHOST, *host)))
            .collect()
    }

    /// Fetches a page from a port of the node.
    pub fn get(&self, guest_port: u16, path: &str, timeout: Duration) -> Result<Response> {
        http::get(self.address(guest_port), path, timeout)
    }

    /// Fetches a page again and again until it comes with status 200.
    pub fn wait_http(
        &mut self,
        guest_port: u16,
        path: &str,
        timeout: Duration,
    ) -> Result<Response> {
        let deadline = Instant::now() + timeout;
        let mut attempt = ATTEMPT_FIRST;
        loop {
            let failure = match self.get(guest_port, path, attempt) {
                Ok(response) if response.status == 200 => return Ok(response),
                Ok(response) => format!("status {}: {}", response.status, response.text()),
                Err(error) => format!("{error:#}"),
            };
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "QEMU ended ({status}) before the page came{}",
                    self.evidence()
                );
            }
            ensure!(
                Instant::now() < deadline,
                "no page from port {guest_port}{path} within {timeout:?}; last: {failure}{}",
                self.evidence()
            );
            attempt = (attempt * 5 / 4).min(ATTEMPT_LONGEST);
            thread::sleep(POLL);
        }
    }

    /// Everything the node has written to its serial line, over all its boots.
    pub fn serial(&self) -> String {
        let bytes = fs::read(self.serial_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The file that the serial line is written to.
    pub fn serial_path(&self) -> PathBuf {
        self.logs.join("serial.log")
    }

    /// A terminal on the serial line of a machine that allows it ([`Machine::typed_serial`]).
    pub fn terminal(&self) -> Result<Terminal> {
        Terminal::connect(&self.folder.path().join(TERMINAL))
    }

    /// Waits until the serial log contains `text` and returns the whole log.
    pub fn wait_serial(&mut self, text: &str, timeout: Duration) -> Result<String> {
        self.wait_serial_after(0, text, timeout)
    }

    /// Waits until the serial log contains `text` beyond its first `skip` bytes,
    /// so that words of an earlier boot do not count.
    pub fn wait_serial_after(
        &mut self,
        skip: usize,
        text: &str,
        timeout: Duration,
    ) -> Result<String> {
        let deadline = Instant::now() + timeout;
        loop {
            // Looked at before the log: what was written last is then seen.
            let ended = self.child.try_wait()?;
            let serial = self.serial();
            if serial.get(skip..).is_some_and(|new| new.contains(text)) {
                return Ok(serial);
            }
            if let Some(status) = ended {
                bail!(
                    "QEMU ended ({status}) before it printed {text:?}{}",
                    self.evidence()
                );
            }
            ensure!(
                Instant::now() < deadline,
                "{text:?} was not printed within {timeout:?}{}",
                self.evidence()
            );
            thread::sleep(POLL);
        }
    }

    /// The status QEMU ended with, if it has. A kernel that writes `n` to the
    /// exit device gives `2 * n + 1`; a clean power-off gives 0.
    pub fn exit_status(&mut self) -> Result<Option<i32>> {
        Ok(self
            .child
            .try_wait()?
            .map(|status| status.code().unwrap_or(-1)))
    }

    /// Waits for QEMU to end and returns its status, as [`Self::exit_status`].
    pub fn wait_exit(&mut self, timeout: Duration) -> Result<i32> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.exit_status()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "QEMU still runs after {timeout:?}{}",
                self.evidence()
            );
            thread::sleep(POLL);
        }
    }

    /// Presses the power button and waits for the node to shut down.
    pub fn shut_down(&mut self, timeout: Duration) -> Result<()> {
        self.qmp.power_button()?;
        let status = self.wait_exit(timeout)?;
        ensure!(
            status == 0,
            "the node went down with status {status}{}",
            self.evidence()
        );
        Ok(())
    }

    /// Kills QEMU at once, like pulling the plug.
    pub fn kill(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// CPU time QEMU has used, all its threads together.
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // Fields 14 and 15 of proc(5), in clock ticks of 1/100 s; the second
        // field, the name, may hold anything and ends with the last parenthesis.
        let after_name = stat.rsplit_once(')').context("bad /proc/PID/stat")?.1;
        let ticks = after_name.split_whitespace().skip(11).take(2);
        let ticks = ticks.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    /// The end of the serial log and where the rest is, for a failure's message.
    fn evidence(&self) -> String {
        let serial = self.serial();
        let lines: Vec<_> = serial.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n    ");
        format!(
            "\n  serial log ({}) ends:\n    {tail}",
            self.serial_path().display()
        )
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("{}", self.evidence());
        }
    }
}

/// Makes what the machine boots from.
fn prepare(machine: &Machine, folder: &Path) -> Result<BootFiles> {
    let artifacts = Artifacts::new();
    let ramdisk = machine
        .ramdisk
        .clone()
        .map(|path| artifacts.require(path))
        .transpose()?;
    if machine.firmware == Firmware::Direct {
        let image = machine.direct.clone().unwrap_or_else(|| artifacts.direct());
        return Ok(BootFiles::Direct {
            image: artifacts.require(image)?,
            ramdisk,
            firmware: Some(PathBuf::from(QBOOT))
                .filter(|path| machine.board == Board::Q35 && path.exists()),
        });
    }
    let image = match machine.boot_disk.as_ref().or(machine.image.as_ref()) {
        Some(image) => artifacts.require(image.clone())?,
        None => {
            let image = folder.join("boot.img");
            artifacts.write_disk(ramdisk.as_deref(), &image)?;
            image
        }
    };
    let uefi_vars = match machine.firmware {
        Firmware::Uefi => {
            let vars = folder.join("uefi-vars");
            fs::copy(OVMF_VARS, &vars).with_context(|| format!("cannot copy {OVMF_VARS}"))?;
            Some(vars)
        }
        _ => None,
    };
    Ok(BootFiles::Disk { image, uefi_vars })
}

/// Starts QEMU and connects to its control socket.
fn launch(
    arguments: &[std::ffi::OsString],
    is_typed: bool,
    folder: &Path,
    logs: &Path,
) -> Result<(Child, Qmp, Instant)> {
    let socket = folder.join("qmp");
    let _ = fs::remove_file(&socket);
    let said = File::create(logs.join("qemu.log"))?;
    // `setpriv` has the kernel kill QEMU when this process dies, however it does.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"])
        .args(arguments)
        .args(serial(is_typed, folder, logs))
        .arg("-qmp")
        .arg(format!("unix:{},server=on,wait=off", socket.display()))
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(said)
        // Out of the terminal's reach: Ctrl-C is for us to handle.
        .process_group(0);
    fs::write(logs.join("command"), format!("{command:?}\n"))?;
    let started = Instant::now();
    let mut child = command
        .spawn()
        .context("cannot run setpriv (package util-linux)")?;
    match connect(&mut child, &socket) {
        Ok(qmp) => Ok((child, qmp, started)),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// QEMU's arguments for the serial line: a file, and where somebody types a socket too.
fn serial(is_typed: bool, folder: &Path, logs: &Path) -> Vec<String> {
    let log = logs.join("serial.log");
    if !is_typed {
        return vec!["-serial".into(), format!("file:{}", log.display())];
    }
    let (socket, log) = (escape(&folder.join(TERMINAL)), escape(&log));
    let line =
        format!("socket,id=terminal,path={socket},server=on,wait=off,logfile={log},logappend=on");
    let words = ["-chardev", &line, "-serial", "chardev:terminal"];
    words.map(String::from).to_vec()
}

fn connect(child: &mut Child, socket: &Path) -> Result<Qmp> {
    let deadline = Instant::now() + CONTROL_TIMEOUT;
    loop {
        match Qmp::connect(socket) {
            Ok(qmp) => return Ok(qmp),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => {}
        }
        if let Some(status) = child.try_wait()? {
            bail!("it ended at once ({status})");
        }
        thread::sleep(POLL);
    }
}

/// The host's ports for a machine: the wanted ones, or free ones.
fn host_ports(machine: &Machine) -> Result<Vec<u16>> {
    let count = machine.guest_ports.len();
    if let Some(base) = machine.port_base {
        let last = usize::from(base) + count;
        ensure!(
            last <= usize::from(u16::MAX) + 1,
            "no {count} ports from {base} on"
        );
        return Ok((base..=u16::MAX).take(count).collect());
    }
    // Held all at once, so that they differ.
    let held = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<Result<Vec<_>, _>>()
        .context("the host has no free port")?;
    held.iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect()
}

/// A folder of our own that goes when this is dropped. In the system's place
/// for them, because a socket's path may not be longer than 107 bytes.
pub struct TempFolder(PathBuf);

impl TempFolder {
    /// Makes one.
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("skep-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
