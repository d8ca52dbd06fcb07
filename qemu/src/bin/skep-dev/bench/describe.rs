//! Systems in the harness's words: a TOML file for each.

use super::{
    devices::{self, add},
    system::{Controller, Firmware, Guest, Medium, Start, System, VIRTIO_NIC},
};
use std::path::Path;

/// Runs the harness's applications and says, as it wants to hear, that they are done.
pub(super) const RUN: &str = "/bench/run";

/// The command line of a Linux that runs `{cmd}`, as the harness has it.
const LINUX: &str = "console=ttyS0 panic=-1 quiet -- {cmd}";

/// Where the programs and files are that a description names.
pub(super) struct Places<'a> {
    /// This program.
    pub(super) tool: &'a Path,
    /// Kernel and PVH front end in one file.
    pub(super) direct: &'a Path,
}

/// The shell's words that run the harness's applications with the disk `name` for
/// overwriting, which may yet be looked for.
pub(super) fn applications(name: &str) -> String {
    let disk = format!("/dev/{name}");
    format!(
        "until [ -b {disk} ]; do sleep 0.1; done; \
         sed s,/dev/vdb,{disk}, /bench/apps.sh > /tmp/apps.sh; /bin/sh /tmp/apps.sh $*"
    )
}

/// The harness's description of a system.
pub(super) fn describe(system: &System, places: &Places<'_>) -> String {
    let mut lines = Lines(Vec::new());
    lines.text("nic", &devices::nic(system));
    lines.text("machine", devices::machine(system));
    if system.start == Start::Microvm {
        lines.text("blk", "virtio-blk-device");
        lines.text("rng_dev", "virtio-rng-device");
    }
    if matches!(system.start, Start::Firmware(..)) {
        let made_for_guests = system.nic == VIRTIO_NIC;
        lines.0.push(format!("rng = {made_for_guests}"));
    }
    let qemu = devices::arguments(system, places.tool);
    if system.scratch != Controller::Virtio {
        // The programs of Linux come from its first disk, virtio's as before.
        lines.0.push("disks = false".to_string());
        if system.guest == Guest::Linux {
            lines.list("drive", &["file={out}/apps.ext4,snapshot=on".to_string()]);
        }
    }
    match system.guest {
        Guest::Skep => skep(system, places, &mut lines, qemu),
        Guest::Linux => linux(system, &mut lines, qemu),
    }
    lines.0.join("\n") + "\n"
}

fn skep(system: &System, places: &Places<'_>, lines: &mut Lines, mut qemu: Vec<String>) {
    let folder = "{out}/skep-{pid}";
    let ramdisk = format!("{folder}/ramdisk");
    let kernel = places.direct.display().to_string();
    let medium = match system.start {
        Start::Firmware(_, Medium::Pxe) => "network",
        Start::Firmware(..) => "disk",
        Start::Direct | Start::Microvm => "none",
    };
    match system.start {
        Start::Firmware(firmware, _) => {
            if firmware == Firmware::Uefi {
                // OVMF writes to the serial line before.
                lines.text("first", "[Ss]kep [0-9]");
            }
        }
        Start::Microvm => add(&mut qemu, ["-global", "virtio-mmio.force-legacy=false"]),
        Start::Direct if devices::machine(system) == "pc" => {}
        Start::Direct => add(&mut qemu, ["-bios", "qboot.rom"]),
    }
    if medium == "none" {
        add(&mut qemu, ["-kernel", &kernel]);
        add(&mut qemu, ["-initrd", &ramdisk]);
    }
    lines.text("desc", "Skep, one capsule");
    lines.list("qemu", &in_folder(qemu, folder));
    let tool = places.tool.display();
    let disk = system.scratch.disk();
    lines.text(
        "prepare",
        &format!("{tool} bench-start {{role}} {medium} {disk} {folder} {{cmd}}"),
    );
    lines.list("image", &[kernel, ramdisk]);
    lines.0.push("[cmd]".to_string());
    lines.text("http", "/bin/httpd 80");
    if medium == "none" {
        lines.text("micro", "/bin/micro");
        lines.text("apps", RUN);
        lines.text("serve", "/bench/apps.sh serve");
    }
    lines.0.push("[marks]".to_string());
    lines.text("threads", "CPU");
}

fn linux(system: &System, lines: &mut Lines, mut qemu: Vec<String>) {
    let folder = match system.needs_full_linux() {
        true => "{out}/full",
        false => "{out}/cloud",
    };
    let is_direct = system.start == Start::Direct;
    if is_direct {
        for (option, file) in [("-kernel", "vmlinuz"), ("-initrd", "tools.cpio")] {
            add(&mut qemu, [option, &format!("{folder}/{file}")]);
        }
        add(&mut qemu, ["-append", LINUX]);
    } else {
        // OVMF and the boot loaders write to the serial line before.
        lines.text("first", "BENCH-INIT");
    }
    lines.text("desc", "Debian's Linux 6.1");
    lines.list("qemu", &in_folder(qemu, folder));
    let image = ["vmlinuz", "min.cpio.lz4"].map(|file| format!("{folder}/{file}"));
    lines.list("image", &image);
    lines.0.push("[cmd]".to_string());
    if is_direct {
        lines.text("http", "stay /bin/httpd 80");
        lines.text("micro", "run /bin/micro");
        lines.text("serve", "root stay /bench/apps.sh serve");
        let apps = match system.scratch {
            Controller::Virtio => "root run /bench/apps.sh".to_string(),
            // The name of the shell, then the tests.
            _ => {
                let script = applications(system.scratch.disk());
                format!("root run /bin/sh -c \"{script}\" sh")
            }
        };
        lines.text("apps", &apps);
    } else {
        // It is on the medium.
        lines.text("http", "");
    }
    lines.0.push("[marks]".to_string());
    lines.text("init", "BENCH-INIT");
}

fn in_folder(qemu: Vec<String>, folder: &str) -> Vec<String> {
    let words = qemu.into_iter();
    words.map(|word| word.replace("{folder}", folder)).collect()
}

/// Lines of a TOML file.
struct Lines(Vec<String>);

impl Lines {
    fn text(&mut self, key: &str, value: &str) {
        self.0.push(format!("{key} = {}", quoted(value)));
    }

    fn list(&mut self, key: &str, values: &[String]) {
        let values: Vec<_> = values.iter().map(|value| quoted(value)).collect();
        self.0.push(format!("{key} = [{}]", values.join(", ")));
    }
}

/// A basic string of TOML.
fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::{Places, describe};
    use crate::bench::system::System;
    use std::path::Path;

    fn described(name: &str) -> String {
        let places = Places {
            tool: Path::new("/tool"),
            direct: Path::new("/kernel"),
        };
        let text = describe(&System::named(name).unwrap().unwrap(), &places);
        // Easier to read here.
        text.replace('"', "'")
    }

    fn ensure_has(name: &str, parts: &[&str]) {
        let text = described(name);
        for part in parts {
            assert!(text.contains(part), "{name} has no {part}:\n{text}");
        }
    }

    #[test]
    fn strings_are_quoted() {
        assert_eq!(super::quoted(r#"a 'b' "c" \d"#), r#""a 'b' \"c\" \\d""#);
    }

    #[test]
    fn what_is_started_directly_has_its_devices() {
        ensure_has(
            "skep",
            &[
                "nic = 'virtio-net-pci,romfile='\nmachine = 'q35'\n",
                "'-bios', 'qboot.rom', '-kernel', '/kernel', '-initrd', '{out}/skep-{pid}/ramdisk'",
                "prepare = '/tool bench-start {role} none vdb {out}/skep-{pid} {cmd}'",
                "apps = '/bench/run'",
            ],
        );
        ensure_has("skep-e1000", &["machine = 'pc'", "qemu = ['-kernel'"]);
        ensure_has(
            "skep-microvm",
            &["blk = 'virtio-blk-device'", "force-legacy"],
        );
        ensure_has(
            "linux-e1000e",
            &[
                "'{out}/full/tools.cpio', '-append', 'console=ttyS0",
                "apps = 'root run /bench/apps.sh'",
            ],
        );
    }

    #[test]
    fn the_disk_for_overwriting_is_the_same_on_both() {
        for (controller, device, name) in [
            ("nvme", "'nvme,serial=scratch,drive=scratch'", "nvme0n1"),
            ("ahci", "'ide-hd,bus=ide.0,drive=scratch'", "sda"),
        ] {
            let disks = "disks = false";
            let skep = format!(" none {name} ");
            ensure_has(&format!("skep-{controller}"), &[disks, device, &skep]);
            let script = format!("sed s,/dev/vdb,/dev/{name}, ");
            let linux = [disks, device, "apps.ext4,snapshot", &script, "\\' sh'"];
            ensure_has(&format!("linux-{controller}"), &linux);
        }
    }

    /// Both of a pair have the same machine, firmware and medium.
    #[test]
    fn pairs_differ_in_nothing_but_what_they_boot() {
        for medium in ["nvme", "ahci", "usb", "pxe"] {
            for firmware in ["bios", "uefi"] {
                for (end, folder) in [("", "full"), ("-virtio", "cloud")] {
                    let of = |guest: &str| {
                        let text = described(&format!("{guest}-{medium}-{firmware}{end}"));
                        let lines = text.lines().filter(|line| {
                            let key = line.split(' ').next().unwrap_or_default();
                            ["nic", "machine", "rng", "qemu"].contains(&key)
                        });
                        let lines: Vec<_> = lines.map(str::to_string).collect();
                        assert_eq!(lines.len(), 4, "{text}");
                        lines.join("\n")
                    };
                    let skep = of("skep")
                        .replace("{out}/skep-{pid}/skep.img", "IMAGE")
                        .replace("{out}/skep-{pid}", "FOLDER");
                    let linux = of("linux")
                        .replace(&format!("{{out}}/{folder}/{firmware}.img"), "IMAGE")
                        .replace(&format!("{{out}}/{folder}"), "FOLDER");
                    assert_eq!(skep, linux);
                }
            }
        }
    }

    #[test]
    fn the_network_s_offer_fits_the_firmware() {
        let script = "'netdev.n0.bootfile=http://10.0.2.4/boot.ipxe'";
        let server = "'netdev.n0.guestfwd=tcp:10.0.2.4:80-cmd:/tool bench-web {out}/full'";
        for name in ["linux-pxe-bios", "linux-pxe-uefi"] {
            ensure_has(name, &["nic = 'e1000e,bootindex=0'", script, server]);
        }
        let name = "skep-pxe-uefi-virtio";
        ensure_has(
            name,
            &[
                "nic = 'virtio-net-pci,romfile=,bootindex=0'",
                "'netdev.n0.tftp={out}/skep-{pid}'",
                "first = '[Ss]kep [0-9]'",
            ],
        );
        for part in ["guestfwd", "if=none"] {
            assert!(!described(name).contains(part), "{part}");
        }
    }
}
