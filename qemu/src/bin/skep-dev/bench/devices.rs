//! A machine in QEMU's words: board, network device, firmware, what it boots from, and the
//! disk that applications overwrite. `{folder}` stands for the folder with a guest's files.

use super::{
    system::{Controller, Firmware, Guest, Medium, Start, System, VIRTIO_NIC},
    web,
};
use std::path::Path;

/// OVMF, and a variable store that forgets.
const OVMF: [&str; 4] = [
    "-drive",
    "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
    "-drive",
    "if=pflash,format=raw,snapshot=on,file=/usr/share/OVMF/OVMF_VARS_4M.fd",
];
/// What QEMU is told beside what the harness tells it of the same machine. `tool` is this
/// program.
pub(super) fn arguments(system: &System, tool: &Path) -> Vec<String> {
    let mut qemu = Vec::new();
    if let Start::Firmware(firmware, medium) = system.start {
        boot_arguments(system.guest, firmware, medium, &mut qemu);
        if medium == Medium::Pxe {
            network_arguments(uses_ipxe(system), tool, &mut qemu);
        }
    }
    if system.scratch != Controller::Virtio {
        scratch_arguments(system.scratch, &mut qemu);
    }
    qemu
}

/// The board: an 8254x is put on that of its time.
pub(super) fn machine(system: &System) -> &'static str {
    match system.start {
        Start::Microvm => "microvm,acpi=off,rtc=on,pit=on,pic=on",
        _ if system.nic == "e1000" => "pc",
        _ => "q35",
    }
}

/// The network device, with what it boots by.
pub(super) fn nic(system: &System) -> String {
    let is_booted = matches!(system.start, Start::Firmware(_, Medium::Pxe));
    let order = if is_booted { ",bootindex=0" } else { "" };
    let rom = if uses_ipxe(system) { "" } else { ",romfile=" };
    format!("{}{rom}{order}", system.nic)
}

/// Whether it boots from the network by iPXE, the boot ROM of QEMU's network devices, and
/// not by OVMF alone, which has a driver for virtio's.
fn uses_ipxe(system: &System) -> bool {
    match system.start {
        Start::Firmware(Firmware::Bios, Medium::Pxe) => true,
        Start::Firmware(Firmware::Uefi, Medium::Pxe) => system.nic != VIRTIO_NIC,
        _ => false,
    }
}

/// Firmware, screen and the disk it starts from.
fn boot_arguments(guest: Guest, firmware: Firmware, medium: Medium, qemu: &mut Vec<String>) {
    if firmware == Firmware::Uefi {
        qemu.extend(OVMF.map(String::from));
    }
    add(qemu, ["-device", "VGA"]);
    let image = match (guest, firmware) {
        (Guest::Skep, _) => "skep.img",
        (Guest::Linux, Firmware::Bios) => "bios.img",
        (Guest::Linux, Firmware::Uefi) => "uefi.img",
    };
    let disk = match medium {
        Medium::Nvme => "nvme,serial=boot",
        Medium::Ahci => "ide-hd,bus=ide.0",
        Medium::Usb => {
            add(qemu, ["-device", "qemu-xhci,id=usb"]);
            "usb-storage,bus=usb.0"
        }
        Medium::Pxe => return,
    };
    let drive = format!("if=none,id=boot,format=raw,snapshot=on,file={{folder}}/{image}");
    add(qemu, ["-drive", &drive]);
    add(qemu, ["-device", &format!("{disk},drive=boot,bootindex=0")]);
}

/// What QEMU's network offers to boot, as `skep pxe serve` would: a script by HTTP to iPXE,
/// and to OVMF a program by TFTP, our loader or Linux with all it needs.
fn network_arguments(uses_ipxe: bool, tool: &Path, qemu: &mut Vec<String>) {
    if uses_ipxe {
        let script = format!("netdev.n0.bootfile=http://{}/boot.ipxe", web::ADDRESS);
        add(qemu, ["-set", &script]);
        let server = format!("tcp:{}:80-cmd:{}", web::ADDRESS, tool.display());
        let server = format!("netdev.n0.guestfwd={server} bench-web {{folder}}");
        add(qemu, ["-set", &server]);
    } else {
        add(qemu, ["-set", "netdev.n0.bootfile=bootx64.efi"]);
        add(qemu, ["-set", "netdev.n0.tftp={folder}"]);
    }
}

fn scratch_arguments(controller: Controller, qemu: &mut Vec<String>) {
    let device = match controller {
        Controller::Virtio => "virtio-blk-pci",
        Controller::Nvme => "nvme,serial=scratch",
        Controller::Ahci => "ide-hd,bus=ide.0",
    };
    let drive = "if=none,id=scratch,format=raw,file={out}/scratch.img";
    add(qemu, ["-drive", drive]);
    add(qemu, ["-device", &format!("{device},drive=scratch")]);
}

/// Adds words.
pub(super) fn add<const N: usize>(qemu: &mut Vec<String>, words: [&str; N]) {
    qemu.extend(words.map(String::from));
}
