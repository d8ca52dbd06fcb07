//! What hardware a node gets, as data, and the QEMU command line it becomes.

mod parts;

pub use parts::{Accel, Board, Bridges, Bus, Firmware};

use crate::{Artifacts, Node, VolatileDisk, switch::Ports};
use anyhow::Result;
use parts::devices;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// Code and variable store of OVMF in Debian's package.
const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
pub(crate) const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// The smallest firmware, in Debian's package of QEMU: it only sets the board up
/// and enters the PVH front end, 0.12 s sooner than SeaBIOS.
pub(crate) const QBOOT: &str = "/usr/share/qemu/qboot.rom";

/// A machine to be started: q35, with virtio network and entropy devices, a
/// serial port, and the device by which the kernel ends QEMU with a status; without
/// virtio after [`Machine::physical`].
///
/// The fields may be set directly or by the methods of the same names.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Name of the run, for its logs; unlike that of any run at the same time.
    pub name: String,
    /// How it boots.
    pub firmware: Firmware,
    /// Its board.
    pub board: Board,
    /// More words for QEMU's `-machine`, such as `acpi=off`.
    pub board_options: Vec<String>,
    /// QEMU's name of its network device.
    pub nic: String,
    /// Bridges that its network device and boot disk are behind.
    pub bridges: Option<Bridges>,
    /// How the disk is attached from which firmware boots.
    pub boot_bus: Bus,
    /// The disk image to boot from, whose changes stay; `None` makes one for the run.
    pub boot_disk: Option<PathBuf>,
    /// Where that disk is served, if it is a [`VolatileDisk`].
    pub boot_socket: Option<PathBuf>,
    /// QEMU's name of the screen that a machine with firmware has, if it has one.
    pub screen: Option<String>,
    /// Whether it has a virtio entropy device.
    pub entropy: bool,
    /// Number of CPUs.
    pub cpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// QEMU's CPU model.
    pub cpu_model: String,
    /// Who executes.
    pub accel: Accel,
    /// The ramdisk; `None` boots without one.
    pub ramdisk: Option<PathBuf>,
    /// For [`Firmware::Direct`], another file to start than the built one.
    pub direct: Option<PathBuf>,
    /// For the others, a disk image to boot from, and not one made of `ramdisk`. It is
    /// not written to.
    pub image: Option<PathBuf>,
    /// Between node and network, a switch that the scenario makes: see
    /// [`crate::switch`].
    pub switch: Option<Ports>,
    /// Ports of the node that the host is to reach.
    pub guest_ports: Vec<u16>,
    /// Host port of the first of them, the others follow; `None` takes free ones.
    pub port_base: Option<u16>,
    /// Whether somebody can type on the serial line: [`Node::terminal`].
    pub typed_serial: bool,
    /// Whether the machine restarts when asked to, or QEMU ends instead.
    pub reboots: bool,
    /// More arguments for QEMU: drives, devices.
    pub arguments: Vec<OsString>,
}

impl Machine {
    /// A machine with one CPU and 256 MiB that boots the standard ramdisk
    /// directly and whose ports 8080 (3Bot) and 8081 (nginx) the host reaches.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_string(),
            firmware: Firmware::Direct,
            board: Board::Q35,
            board_options: Vec::new(),
            nic: "virtio-net-pci".to_string(),
            bridges: None,
            boot_bus: Bus::Virtio,
            boot_disk: None,
            boot_socket: None,
            screen: Some("VGA".to_string()),
            entropy: true,
            cpus: 1,
            memory_mib: 256,
            cpu_model: "max".to_string(),
            accel: Accel::Tcg,
            ramdisk: Some(Artifacts::new().ramdisk()),
            direct: None,
            image: None,
            switch: None,
            guest_ports: vec![8080, 8081],
            port_base: None,
            typed_serial: false,
            reboots: true,
            arguments: Vec::new(),
        }
    }

    /// Sets how it boots.
    pub fn firmware(mut self, firmware: Firmware) -> Self {
        self.firmware = firmware;
        self
    }

    /// Makes it a machine without a virtio device: on q35 an `e1000e`, on pc an `e1000`,
    /// booting from `bus`.
    pub fn physical(mut self, board: Board, bus: Bus) -> Self {
        self.board = board;
        self.boot_bus = bus;
        self.entropy = false;
        self.nic = match board {
            Board::Q35 => "e1000e",
            Board::Pc => "e1000",
            Board::Microvm => "virtio-net-device",
        }
        .to_string();
        self
    }

    /// Makes it a machine without PCI, as small VMMs are, with these words for QEMU's
    /// `-machine`: all its devices are virtio's, in memory.
    pub fn microvm(mut self, options: &[&str]) -> Self {
        self.board = Board::Microvm;
        self.board_options = options.iter().map(|word| (*word).to_string()).collect();
        self.nic = "virtio-net-device".to_string();
        // Else QEMU gives devices of before virtio 1.
        self.option("-global", "virtio-mmio.force-legacy=false")
    }

    /// Sets QEMU's name of the network device, such as `e1000e`.
    pub fn nic(mut self, model: &str) -> Self {
        self.nic = model.to_string();
        self
    }

    /// Puts the network device and the controller of the boot disk behind bridges.
    pub fn behind(mut self, bridges: Bridges) -> Self {
        self.bridges = Some(bridges);
        self
    }

    /// Sets how the disk is attached from which firmware boots.
    pub fn boot_bus(mut self, bus: Bus) -> Self {
        self.boot_bus = bus;
        self
    }

    /// Boots this disk image, and lets changes of it stay.
    pub fn boot_disk(mut self, image: &Path) -> Self {
        self.boot_disk = Some(image.to_path_buf());
        self
    }

    /// Boots this disk, whose unflushed writes a power cut loses.
    pub fn boot_volatile(mut self, disk: &VolatileDisk) -> Self {
        self.boot_socket = Some(disk.socket());
        self.boot_disk(disk.image())
    }

    /// Has another screen, or none.
    pub fn screen(mut self, screen: Option<&str>) -> Self {
        self.screen = screen.map(str::to_string);
        self
    }

    /// Sets the number of CPUs.
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// Sets the memory, in MiB.
    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// Boots another ramdisk.
    pub fn ramdisk(mut self, path: &Path) -> Self {
        self.ramdisk = Some(path.to_path_buf());
        self
    }

    /// Boots without a ramdisk.
    pub fn no_ramdisk(mut self) -> Self {
        self.ramdisk = None;
        self
    }

    /// Boots from this disk image.
    pub fn image(mut self, path: &Path) -> Self {
        self.image = Some(path.to_path_buf());
        self
    }

    /// Lets the host reach one more port of the node.
    pub fn guest_port(mut self, port: u16) -> Self {
        self.guest_ports.push(port);
        self
    }

    /// Lets somebody type on the serial line: see [`Node::terminal`].
    pub fn typed_serial(mut self) -> Self {
        self.typed_serial = true;
        self
    }

    /// Lets QEMU end where the machine would restart.
    pub fn no_reboot(mut self) -> Self {
        self.reboots = false;
        self
    }

    /// Adds one argument for QEMU.
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds an option with its value, such as `-device` and `nvme,drive=d0`.
    pub fn option(self, option: &str, value: &str) -> Self {
        self.argument(option).argument(value)
    }

    /// Lets an instruction last a nanosecond, so that runs repeat exactly.
    ///
    /// Without x2APIC: QEMU 10 ends with "Bad icount read" when a program sets or reads the
    /// timer there, as its `rdmsr` and `wrmsr` are no instructions that may ask for the time.
    pub fn icount(mut self) -> Self {
        self.cpu_model.push_str(",-x2apic");
        self.option("-icount", "shift=0")
    }

    /// Adds a raw disk image behind a virtio block device, named `id` and `id-device`.
    /// Writes go to the file.
    pub fn disk(self, id: &str, image: &Path) -> Self {
        self.disk_on(Bus::Virtio, id, image)
    }

    /// Adds a raw disk image as drive `id` behind a device `id-device` of this kind.
    /// Writes go to the file.
    pub fn disk_on(mut self, bus: Bus, id: &str, image: &Path) -> Self {
        let drive = format!("if=none,id={id},format=raw,file={}", escape(image));
        self.arguments.extend(["-drive".into(), drive.into()]);
        self.attach(bus, id)
    }

    /// As [`Machine::disk_on`], a disk whose unflushed writes a power cut loses.
    pub fn volatile_disk(mut self, bus: Bus, id: &str, disk: &VolatileDisk) -> Self {
        let drive = format!("if=none,id={id},{}", volatile(&disk.socket()));
        self.arguments.extend(["-drive".into(), drive.into()]);
        self.attach(bus, id)
    }

    /// Adds the device `id-device` of this kind for a drive `id` that is there already.
    pub fn attach(mut self, bus: Bus, id: &str) -> Self {
        for device in devices(bus, id) {
            self.arguments.extend(["-device".into(), device.into()]);
        }
        self
    }

    /// Starts the machine. The thread that calls this must outlive the node:
    /// the host's kernel kills QEMU when it ends.
    pub fn start(&self) -> Result<Node> {
        Node::start(self)
    }

    /// QEMU's arguments for everything but logging and control.
    ///
    /// `ports` are the host's ports for [`Self::guest_ports`], `files` are what
    /// was prepared for this run.
    pub(crate) fn command_line(&self, ports: &[u16], files: &BootFiles) -> Vec<OsString> {
        let mut line = CommandLine(Vec::new());
        line.words([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-machine",
            &self.board_name(),
        ]);
        let accel = match self.accel {
            Accel::Tcg => "tcg",
            Accel::Kvm => "kvm",
        };
        line.words(["-accel", accel]);
        line.words(["-cpu", &self.cpu_model]);
        line.words([
            "-smp",
            &self.cpus.to_string(),
            "-m",
            &format!("{}M", self.memory_mib),
        ]);
        line.words(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
        if self.entropy {
            line.words(["-object", "rng-random,id=entropy,filename=/dev/urandom"]);
            let device = match self.board {
                Board::Microvm => "virtio-rng-device,rng=entropy",
                _ => "virtio-rng-pci,rng=entropy",
            };
            line.words(["-device", device]);
        }
        for bridge in self.bridges.iter().flat_map(|bridges| bridges.all) {
            line.words(["-device", bridge]);
        }
        self.attach_network(&mut line, ports);
        if !self.reboots {
            line.words(["-no-reboot"]);
        }
        match files {
            BootFiles::Direct {
                image,
                ramdisk,
                firmware,
            } => {
                if let Some(firmware) = firmware {
                    line.file("-bios", firmware);
                }
                line.file("-kernel", image);
                if let Some(ramdisk) = ramdisk {
                    line.file("-initrd", ramdisk);
                }
            }
            BootFiles::Disk { image, uefi_vars } => {
                self.boot_from_disk(&mut line, image, uefi_vars.as_deref());
            }
        }
        line.0.extend(self.arguments.iter().cloned());
        line.0
    }

    /// Network and network device.
    fn attach_network(&self, line: &mut CommandLine, ports: &[u16]) {
        match self.switch {
            None => line.words(["-netdev", &self.network("net0", ports)]),
            Some(switch) => {
                line.words(["-netdev", &switch.node.netdev("net0")]);
                line.words(["-netdev", &switch.network.netdev("cable")]);
                line.words(["-netdev", &self.network("outside", ports)]);
                for (id, netdev) in [("hub-cable", "cable"), ("hub-outside", "outside")] {
                    let hub = format!("hubport,hubid=0,id={id},netdev={netdev}");
                    line.words(["-netdev", &hub]);
                }
                // QEMU 7.2 does not let the machine run with a hub that has no device:
                // one that nodes have no driver for.
                line.words(["-netdev", "hubport,hubid=0,id=hub-idle"]);
                line.words(["-device", "rtl8139,netdev=hub-idle,romfile="]);
            }
        }
        // Without its boot ROM: nothing here boots from the network.
        let rom = match self.board {
            Board::Microvm => "",
            _ => ",romfile=",
        };
        let place = match &self.bridges {
            Some(bridges) => format!(",bus={}", bridges.nic),
            None => String::new(),
        };
        let nic = format!("{},id=net0-device,netdev=net0{rom}{place}", self.nic);
        line.words(["-device", &nic]);
    }

    /// Screen, firmware and boot disk.
    fn boot_from_disk(&self, line: &mut CommandLine, image: &Path, uefi_vars: Option<&Path>) {
        if let Some(screen) = &self.screen {
            line.words(["-device", screen]);
        }
        if let Some(vars) = uefi_vars {
            line.drive("if=pflash,format=raw,readonly=on", Path::new(OVMF_CODE));
            line.drive("if=pflash,format=raw", vars);
        }
        match (&self.boot_socket, &self.boot_disk) {
            (Some(socket), _) => {
                line.words(["-drive", &format!("if=none,id=boot,{}", volatile(socket))]);
            }
            (None, Some(_)) => line.drive("if=none,id=boot,format=raw,snapshot=off", image),
            (None, None) => line.drive("if=none,id=boot,format=raw,snapshot=on", image),
        }
        let mut devices = devices(self.boot_bus, "boot");
        if let (Some(bridges), Some(first)) = (&self.bridges, devices.first_mut()) {
            first.push_str(&format!(",bus={}", bridges.disk));
        }
        if let Some(disk) = devices.last_mut() {
            disk.push_str(",bootindex=0");
        }
        for device in &devices {
            line.words(["-device", device]);
        }
    }

    fn board_name(&self) -> String {
        let words = self.board_options.iter().map(String::as_str);
        let all: Vec<_> = [self.board.name()].into_iter().chain(words).collect();
        all.join(",")
    }

    fn network(&self, id: &str, ports: &[u16]) -> String {
        let mut network = format!("user,id={id}");
        for (guest, host) in self.guest_ports.iter().zip(ports) {
            network.push_str(&format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}"));
        }
        network
    }
}

/// Settings of a drive that is served at `socket`. The cache that the machine sees is the
/// server's: its flushes are passed on.
fn volatile(socket: &Path) -> String {
    let socket = escape(socket);
    format!("format=raw,cache=writeback,file=nbd+unix:///?socket={socket}")
}

/// Files a machine boots from, made ready for one run.
pub(crate) enum BootFiles {
    /// Front end with kernel, the ramdisk, and the firmware if not QEMU's own.
    Direct {
        image: PathBuf,
        ramdisk: Option<PathBuf>,
        firmware: Option<PathBuf>,
    },
    /// Disk image; for UEFI, its own copy of the variable store too.
    Disk {
        image: PathBuf,
        uefi_vars: Option<PathBuf>,
    },
}

struct CommandLine(Vec<OsString>);

impl CommandLine {
    fn words<const N: usize>(&mut self, words: [&str; N]) {
        self.0.extend(words.map(OsString::from));
    }

    fn file(&mut self, option: &str, path: &Path) {
        self.0.extend([option.into(), path.into()]);
    }

    fn drive(&mut self, settings: &str, path: &Path) {
        self.words(["-drive", &format!("{settings},file={}", escape(path))]);
    }
}

/// A path inside a QEMU option list, where a comma is doubled.
pub fn escape(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests;
