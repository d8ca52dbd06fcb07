//! The systems that are measured, by name.
//!
//! | name | what is started |
//! | --- | --- |
//! | `OS` | directly, on virtio |
//! | `skep-microvm` | directly, on a board without PCI |
//! | `OS-NIC` | directly, with this network device of QEMU's: `e1000e`, `e1000` |
//! | `OS-nvme`, `OS-ahci` | directly, the disk for overwriting on that controller |
//! | `OS-MEDIUM-FIRMWARE` | by `bios` or `uefi` from `nvme`, `ahci`, `usb` or `pxe`, network on an e1000e |
//! | `OS-MEDIUM-FIRMWARE-virtio` | the same with a virtio network device |
//!
//! OS is `skep` or `linux`. Every other name is the harness's own.

use anyhow::{Result, bail};

/// Who runs on the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guest {
    /// This node.
    Skep,
    /// Debian's Linux: the harness's cloud kernel where all devices are virtio's, else
    /// the full kernel of [`super::linux`].
    Linux,
}

/// A disk controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controller {
    Virtio,
    Nvme,
    Ahci,
}

impl Controller {
    /// What both systems call its disk: the second of virtio's, the first of the others.
    pub(super) fn disk(self) -> &'static str {
        match self {
            Self::Virtio => "vdb",
            Self::Nvme => "nvme0n1",
            Self::Ahci => "sda",
        }
    }
}

/// What firmware starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Medium {
    Nvme,
    Ahci,
    Usb,
    /// The network.
    Pxe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF.
    Uefi,
}

/// How a guest gets from power-on to its kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// QEMU loads the kernel.
    Direct,
    /// The same on a board without PCI.
    Microvm,
    Firmware(Firmware, Medium),
}

/// A guest on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct System {
    pub(super) guest: Guest,
    pub(super) start: Start,
    /// QEMU's name of the network device.
    pub(super) nic: String,
    /// Where the disk is that applications may overwrite.
    pub(super) scratch: Controller,
}

/// The network device of small virtual machines, and those that Linux is measured with.
pub(super) const VIRTIO_NIC: &str = "virtio-net-pci";
const E1000E: &str = "e1000e";
const LINUX_NICS: [&str; 2] = [E1000E, "e1000"];

impl System {
    /// The system of this name; `None` if it is none of ours, but the harness's or a flag.
    ///
    /// # Errors
    /// The name is one of ours but for a medium or firmware that there is not.
    pub(super) fn named(word: &str) -> Result<Option<Self>> {
        let (guest, hardware) = match word.split_once('-') {
            None if word == "skep" => (Guest::Skep, VIRTIO_NIC),
            Some(("skep", hardware)) => (Guest::Skep, hardware),
            Some(("linux", hardware)) => (Guest::Linux, hardware),
            _ => return Ok(None),
        };
        let system = |start, nic: &str, scratch| {
            Ok(Some(Self {
                guest,
                start,
                nic: nic.to_string(),
                scratch,
            }))
        };
        let parts: Vec<&str> = hardware.split('-').collect();
        let is_ours = guest == Guest::Skep;
        match parts[..] {
            ["microvm"] if is_ours => {
                system(Start::Microvm, "virtio-net-device", Controller::Virtio)
            }
            ["nvme"] => system(Start::Direct, VIRTIO_NIC, Controller::Nvme),
            ["ahci"] => system(Start::Direct, VIRTIO_NIC, Controller::Ahci),
            [medium, firmware @ ("bios" | "uefi"), ref rest @ ..] => {
                let nic = match rest {
                    [] => E1000E,
                    ["virtio"] => VIRTIO_NIC,
                    _ => bail!("{word}: after the firmware comes nothing or -virtio"),
                };
                let start = Start::Firmware(firmware_named(firmware), medium_named(medium)?);
                system(start, nic, Controller::Virtio)
            }
            _ if is_ours || LINUX_NICS.contains(&hardware) => {
                system(Start::Direct, hardware, Controller::Virtio)
            }
            _ => Ok(None),
        }
    }

    /// Whether nothing of its machine is made for guests only.
    pub(super) fn needs_full_linux(&self) -> bool {
        self.guest == Guest::Linux
            && (!self.nic.starts_with("virtio") || self.scratch != Controller::Virtio)
    }
}

fn firmware_named(word: &str) -> Firmware {
    match word {
        "bios" => Firmware::Bios,
        _ => Firmware::Uefi,
    }
}

fn medium_named(word: &str) -> Result<Medium> {
    Ok(match word {
        "nvme" => Medium::Nvme,
        "ahci" => Medium::Ahci,
        "usb" => Medium::Usb,
        "pxe" => Medium::Pxe,
        _ => bail!("firmware starts from nvme, ahci, usb or pxe, not from {word}"),
    })
}

#[cfg(test)]
mod tests {
    use super::{Controller, Firmware, Guest, Medium, Start, System};

    fn named(word: &str) -> Option<System> {
        System::named(word).unwrap()
    }

    #[test]
    fn every_kind_of_name_is_understood() {
        let skep = named("skep").unwrap();
        assert_eq!(
            (skep.start, skep.nic.as_str()),
            (Start::Direct, "virtio-net-pci")
        );
        assert_eq!(named("skep-microvm").unwrap().start, Start::Microvm);
        assert_eq!(named("skep-igb").unwrap().nic, "igb");
        for (guest, name) in [(Guest::Skep, "skep"), (Guest::Linux, "linux")] {
            assert_eq!(named(&format!("{name}-e1000")).unwrap().nic, "e1000");
            let disk = named(&format!("{name}-nvme")).unwrap();
            assert_eq!((disk.guest, disk.scratch), (guest, Controller::Nvme));
            let boot = named(&format!("{name}-usb-uefi")).unwrap();
            let start = Start::Firmware(Firmware::Uefi, Medium::Usb);
            assert_eq!((boot.start, boot.nic.as_str()), (start, "e1000e"));
            let boot = named(&format!("{name}-pxe-bios-virtio")).unwrap();
            let start = Start::Firmware(Firmware::Bios, Medium::Pxe);
            assert_eq!((boot.start, boot.nic.as_str()), (start, "virtio-net-pci"));
        }
    }

    #[test]
    fn what_is_the_harness_s_own_is_left_to_it() {
        for word in [
            "linux",
            "linux-tiny",
            "linux-tiny-min",
            "linux-bios",
            "linux-uefi",
            "linux-microvm",
            "boot",
            "--reps",
            "3",
            "/a/linux.toml",
        ] {
            assert_eq!(named(word), None, "{word}");
        }
    }

    #[test]
    fn a_wrong_medium_is_refused() {
        assert!(System::named("skep-floppy-bios").is_err());
        assert!(System::named("linux-nvme-bios-fast").is_err());
    }

    #[test]
    fn the_full_kernel_is_for_what_the_cloud_kernel_cannot_drive() {
        for (word, full) in [
            ("linux-nvme-bios", true),
            ("linux-nvme-bios-virtio", false),
            ("linux-ahci", true),
            ("linux-e1000", true),
            ("skep-e1000", false),
        ] {
            assert_eq!(named(word).unwrap().needs_full_linux(), full, "{word}");
        }
    }
}
