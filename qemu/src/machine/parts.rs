//! The parts of a machine that there is a choice of.

/// How a node gets from power-on to its kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// `qemu -kernel`: the PVH front end, no disk, the fastest.
    Direct,
    /// SeaBIOS and a disk image.
    Bios,
    /// OVMF and the same disk image.
    Uefi,
}

/// Who executes the node's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// QEMU's own translator, the same everywhere.
    Tcg,
    /// The host's kernel; never in tests.
    Kvm,
}

/// The board of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Board {
    /// PCI Express, an ICH9 with AHCI: `-machine q35`.
    Q35,
    /// PCI only, a PIIX3 with IDE: `-machine pc`.
    Pc,
    /// No PCI, virtio devices in memory: `-machine microvm`.
    Microvm,
}

impl Board {
    /// QEMU's name of it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Board::Q35 => "q35",
            Board::Pc => "pc",
            Board::Microvm => "microvm",
        }
    }
}

/// How a disk is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// A virtio block device.
    Virtio,
    /// The same in memory, on a board without PCI.
    VirtioMmio,
    /// An NVMe controller with one namespace.
    Nvme,
    /// A SATA disk on an AHCI controller of its own.
    Ahci,
    /// A USB stick on an xHCI controller of its own.
    Usb,
}

/// Bridges between the board and the devices that boot it.
#[derive(Clone, Copy, Debug)]
pub struct Bridges {
    /// Each as QEMU's `-device` has it; one that is behind another comes after it.
    pub all: &'static [&'static str],
    /// The `id` of the one whose bus the network device is on.
    pub nic: &'static str,
    /// That of the boot disk's controller.
    pub disk: &'static str,
}

/// The devices by which drive `id` is attached; the last one, `id-device`, is the disk.
pub(super) fn devices(bus: Bus, id: &str) -> Vec<String> {
    let (controller, disk) = match bus {
        Bus::Virtio => (None, format!("virtio-blk-pci,drive={id}")),
        Bus::VirtioMmio => (None, format!("virtio-blk-device,drive={id}")),
        Bus::Nvme => (None, format!("nvme,serial={id},drive={id}")),
        Bus::Ahci => (
            Some(format!("ahci,id={id}-bus")),
            format!("ide-hd,bus={id}-bus.0,drive={id}"),
        ),
        Bus::Usb => (
            Some(format!("qemu-xhci,id={id}-bus")),
            format!("usb-storage,bus={id}-bus.0,drive={id}"),
        ),
    };
    let disk = format!("{disk},id={id}-device");
    controller.into_iter().chain([disk]).collect()
}
