//! `skep-dev run`: a node in the foreground.

use crate::{
    build::{Part, build_parts},
    check::check,
    options::RunOptions,
    ramdisk,
};
use anyhow::{Context as _, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};
use skep_qemu::{Accel, Firmware, Machine, Node, http, seconds};
use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Where the node's pages are inside it, and so from the port base on outside.
const STATUS_PORT: u16 = 8080;
const NGINX_PORT: u16 = 8081;
/// How often the console is looked at.
const CONSOLE_POLL: Duration = Duration::from_millis(20);
/// How long a node may take to shut down before it is switched off.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

/// Does what `scripts/run` was asked to.
pub(crate) fn run(words: &[String]) -> Result<ExitCode> {
    let Some(options) = RunOptions::parse(words)? else {
        // Whoever closes the pipe early has read enough.
        let _ = writeln!(io::stdout(), "{}", RunOptions::HELP);
        return Ok(ExitCode::SUCCESS);
    };
    for port in [options.port_base, options.port_base + 1] {
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err() {
            bail!("port {port} is taken on this machine; choose others with --port-base N");
        }
    }
    if options.accel == Accel::Kvm && File::options().write(true).open("/dev/kvm").is_err() {
        bail!("/dev/kvm cannot be opened; leave out --accel kvm, or get access to it");
    }
    let start_file = match options.firmware {
        Firmware::Direct => Part::Direct,
        Firmware::Bios | Firmware::Uefi => Part::Image,
    };
    build_parts(&[Part::Kernel, Part::User, start_file])?;
    ramdisk::build()?;
    let mut machine = Machine::new("run")
        .firmware(options.firmware)
        .cpus(options.cpus)
        .memory_mib(options.memory_mib);
    machine.accel = options.accel;
    machine.port_base = Some(options.port_base);
    if options.check {
        check(&machine)
    } else {
        foreground(&machine)
    }
}

/// Boots the node and shows its console until it ends or is interrupted.
fn foreground(machine: &Machine) -> Result<ExitCode> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone())
            .context("cannot listen for Ctrl-C")?;
    }
    let mut node = machine.start()?;
    eprintln!("run: the node is booting; Ctrl-C shuts it down");
    let pages = [(STATUS_PORT, "status page"), (NGINX_PORT, "nginx capsule")];
    for (port, what) in pages {
        announce(node.address(port), what);
    }
    let mut console = Console::open(&node.serial_path())?;
    loop {
        console.show()?;
        if let Some(status) = node.exit_status()? {
            console.show()?;
            eprintln!("run: the node has ended ({})", describe(status));
            return Ok(if status == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        if interrupted.swap(false, Ordering::Relaxed) {
            return shut_down(node, console, &interrupted);
        }
        thread::sleep(CONSOLE_POLL);
    }
}

/// Presses the power button and waits; a second Ctrl-C pulls the plug.
fn shut_down(mut node: Node, mut console: Console, interrupted: &AtomicBool) -> Result<ExitCode> {
    eprintln!("\nrun: shutting the node down; Ctrl-C again switches it off");
    node.qmp().power_button()?;
    let deadline = Instant::now() + SHUTDOWN_TIMEOUT;
    loop {
        console.show()?;
        if let Some(status) = node.exit_status()? {
            console.show()?;
            eprintln!("run: the node is off ({})", describe(status));
            return Ok(if status == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        if interrupted.load(Ordering::Relaxed) {
            bail!("the node was switched off before it had shut down");
        }
        if Instant::now() >= deadline {
            bail!("the node did not shut down within {SHUTDOWN_TIMEOUT:?} and was switched off");
        }
        thread::sleep(CONSOLE_POLL);
    }
}

fn describe(status: i32) -> String {
    match status {
        0 => "powered off".to_string(),
        _ => format!("status {status}"),
    }
}

/// Says where a page is as soon as it answers.
fn announce(address: SocketAddr, what: &'static str) {
    let start = Instant::now();
    thread::spawn(move || {
        while !http::get(address, "/", seconds(2)).is_ok_and(|page| page.status == 200) {
            thread::sleep(Duration::from_millis(50));
        }
        let took = start.elapsed().as_secs_f32();
        eprintln!("run: {what:14} http://{address}/   (after {took:.2} s)");
    });
}

/// The node's serial line, shown as it grows.
struct Console {
    file: File,
    buffer: Vec<u8>,
}

impl Console {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self {
            file,
            buffer: Vec::new(),
        })
    }

    /// Shows what is new.
    fn show(&mut self) -> Result<()> {
        self.buffer.clear();
        self.file.read_to_end(&mut self.buffer)?;
        if !self.buffer.is_empty() {
            let mut terminal = io::stdout().lock();
            terminal.write_all(&self.buffer)?;
            terminal.flush()?;
        }
        Ok(())
    }
}
