use super::{Board, BootFiles, Bus, Firmware, Machine};
use std::path::{Path, PathBuf};

fn line(machine: &Machine, files: &BootFiles) -> String {
    let words = machine.command_line(&[5000, 5001], files);
    words
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn direct_boot_has_no_disk_and_no_screen() {
    let files = BootFiles::Direct {
        image: PathBuf::from("/k"),
        ramdisk: None,
        firmware: Some(PathBuf::from("/q")),
    };
    let line = line(
        &Machine::new("a").cpus(4).memory_mib(36).no_reboot(),
        &files,
    );
    assert!(line.contains("-smp 4 -m 36M"), "{line}");
    assert!(line.contains("hostfwd=tcp:127.0.0.1:5001-:8081"), "{line}");
    assert!(
        line.contains("-bios /q -kernel /k") && line.contains("-no-reboot"),
        "{line}"
    );
    assert!(!line.contains("-initrd") && !line.contains("VGA"), "{line}");
    assert!(line.contains("-accel tcg"), "{line}");
}

#[test]
fn disks_keep_commas_in_their_paths() {
    let files = BootFiles::Disk {
        image: PathBuf::from("/a,b"),
        uefi_vars: Some(PathBuf::from("/vars")),
    };
    let machine = Machine::new("a")
        .firmware(Firmware::Uefi)
        .disk("d0", Path::new("/c,d"));
    let line = line(&machine, &files);
    assert!(
        line.contains("file=/a,,b") && line.contains("file=/c,,d"),
        "{line}"
    );
    assert!(line.contains("pflash"), "{line}");
}

#[test]
fn a_microvm_has_no_pci_device() {
    let files = BootFiles::Direct {
        image: PathBuf::from("/k"),
        ramdisk: None,
        firmware: None,
    };
    let machine = Machine::new("a").microvm(&["acpi=off", "pit=off"]).disk_on(
        Bus::VirtioMmio,
        "d0",
        Path::new("/d"),
    );
    let line = line(&machine, &files);
    assert!(line.contains("-machine microvm,acpi=off,pit=off"), "{line}");
    assert!(
        !line.contains("-pci") && !line.contains("romfile"),
        "{line}"
    );
    assert!(line.contains("virtio-blk-device,drive=d0"), "{line}");
}

#[test]
fn physical_machines_have_no_virtio_device() {
    let files = BootFiles::Disk {
        image: PathBuf::from("/i"),
        uefi_vars: None,
    };
    for (board, bus) in [(Board::Q35, Bus::Nvme), (Board::Pc, Bus::Usb)] {
        let machine = Machine::new("a")
            .firmware(Firmware::Bios)
            .physical(board, bus)
            .disk_on(Bus::Ahci, "d0", Path::new("/d"));
        let line = line(&machine, &files);
        assert!(!line.contains("virtio"), "{line}");
        assert!(
            line.contains("drive=boot,id=boot-device,bootindex=0"),
            "{line}"
        );
        assert!(line.contains("ide-hd,bus=d0-bus.0,drive=d0"), "{line}");
    }
}
