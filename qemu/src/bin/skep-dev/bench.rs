//! `skep-dev bench`: Skep beside Linux guests, measured by the project's shared
//! harness, whose programs run as one capsule.
//!
//! The harness starts each system by a TOML file that this module writes; before
//! each start it calls back (`bench-ramdisk`) for a ramdisk whose capsule runs the
//! command of that start.

use crate::bench_disk;
use crate::build::{Part, build_parts};
use crate::publish;
use anyhow::{Context as _, Result, bail, ensure};
use skep_api::{
    manifest::{Outbound, RestartPolicy},
    node::CapsuleOutput,
};
use skep_qemu::{
    Artifacts,
    ramdisk::{Image, Ramdisk, manifest, port},
};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// Where the shared harness lies, beside a checkout.
const HARNESS: &str = "../shared/bench";
/// Where the harness keeps guests, programs and results.
const OUT: &str = "/tmp/skep-bench";
/// Runs the harness's applications and says, as it wants to hear, that they are done.
const RUN: &str = "/bench/run";
/// The disk that the harness lets its applications overwrite, its second.
const SCRATCH: &str = "vdb";

fn out() -> PathBuf {
    env::var_os("BENCH_OUT").map_or_else(|| PathBuf::from(OUT), PathBuf::from)
}

/// Builds the node, describes it to the harness, and passes on the words.
pub(crate) fn bench(words: &[String]) -> Result<ExitCode> {
    if words == ["publish"] {
        publish::publish(&out())?;
        return Ok(ExitCode::SUCCESS);
    }
    if words == ["prepare"] {
        build_parts(&[Part::User])?;
        bench_disk::prepare(&out())?;
        return Ok(ExitCode::SUCCESS);
    }
    let artifacts = Artifacts::new();
    let harness = artifacts.root().join(HARNESS).join("bench.py");
    ensure!(
        harness.exists(),
        "the benchmark harness is not at {}",
        harness.display()
    );
    ensure!(
        out().join("micro").exists(),
        "the benchmark's programs are not in {}: run build.sh of the harness first",
        out().display()
    );
    build_parts(&[Part::Kernel, Part::User, Part::Direct])?;
    let words = words.iter().map(|word| system(&artifacts, word));
    let words = words.collect::<Result<Vec<_>>>()?;
    let mut run = Command::new("python3").arg(&harness).args(words).spawn()?;
    let ramdisk = out().join(format!("skep-{}.ramdisk", run.id()));
    let status = run.wait()?;
    if ramdisk.exists() {
        fs::remove_file(ramdisk)?;
    }
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What the harness is told instead of `word`: for `skep`, for `skep-microvm` on a board
/// without PCI, and for `skep-NIC` with another network device of QEMU's, the file that
/// describes it.
fn system(artifacts: &Artifacts, word: &str) -> Result<String> {
    let hardware = match word {
        "skep" => Hardware::with_nic("virtio-net-pci"),
        "skep-microvm" => Hardware::microvm(),
        _ => match word.strip_prefix("skep-") {
            Some(nic) => Hardware::with_nic(nic),
            None => return Ok(word.to_string()),
        },
    };
    let path = out().join(format!("{word}.toml"));
    fs::write(&path, describe(artifacts, &hardware)?)?;
    Ok(path.display().to_string())
}

/// The board that is measured.
struct Hardware {
    machine: &'static str,
    nic: String,
    /// Lines of the harness's description about its other devices.
    devices: &'static str,
    /// Arguments for QEMU, each with a comma behind it.
    arguments: &'static str,
}

impl Hardware {
    /// A board with PCI and this network device; an 8254x is put on the board of its time.
    fn with_nic(nic: &str) -> Self {
        let (machine, arguments) = match nic {
            "e1000" => ("pc", ""),
            _ => ("q35", r#""-bios", "qboot.rom", "#),
        };
        Self {
            machine,
            nic: format!("{nic},romfile="),
            devices: "",
            arguments,
        }
    }

    /// As a small VMM makes it: no PCI, no ACPI, the command line tells of the devices.
    fn microvm() -> Self {
        Self {
            machine: "microvm,acpi=off,rtc=on,pit=on,pic=on",
            nic: "virtio-net-device".to_string(),
            devices: "blk = \"virtio-blk-device\"\nrng_dev = \"virtio-rng-device\"\n",
            arguments: r#""-global", "virtio-mmio.force-legacy=false", "#,
        }
    }
}

/// The harness's description of Skep on this hardware.
fn describe(artifacts: &Artifacts, hardware: &Hardware) -> Result<String> {
    let Hardware {
        machine,
        nic,
        devices,
        arguments,
    } = hardware;
    let tool = env::current_exe().context("cannot find this program")?;
    let tool = tool.display();
    let kernel = artifacts.direct();
    let kernel = kernel.display();
    Ok(format!(
        r#"desc = "Skep, started directly, one capsule"
machine = "{machine}"
nic = "{nic}"
{devices}qemu = [{arguments}"-kernel", "{kernel}", "-initrd", "{{out}}/skep-{{pid}}.ramdisk"]
prepare = "{tool} bench-ramdisk {{role}} {{out}}/skep-{{pid}}.ramdisk {{cmd}}"
image = ["{kernel}", "{{out}}/skep-{{pid}}.ramdisk"]
[cmd]
http = "/bin/httpd 80"
micro = "/bin/micro"
apps = "{RUN}"
serve = "/bench/apps.sh serve"
[marks]
threads = "CPU"
"#
    ))
}

/// `bench-ramdisk ROLE FILE COMMAND...`
pub(crate) fn bench_ramdisk(words: &[String]) -> Result<ExitCode> {
    let [role, file, command @ ..] = words else {
        bail!("usage: skep-dev bench-ramdisk ROLE FILE COMMAND...");
    };
    let image = match role.as_str() {
        "http" => programs(&["httpd"])?,
        "micro" => programs(&["micro"])?,
        "serve" | "apps" => Image::of_folder(&out().join("root"))?.with_files(&[(
            RUN,
            0o755,
            b"#!/bin/sh\n/bench/apps.sh \"$@\"\necho BENCH-END\n",
        )])?,
        _ => bail!("no such role: {role}"),
    };
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut capsule = manifest("bench", &image, &command);
    capsule.limits.memory_bytes = 1 << 30;
    capsule.limits.processes = 1024;
    capsule.limits.files = 16 << 10;
    capsule.outbound = Outbound::Allow;
    capsule.restart.policy = RestartPolicy::Never;
    capsule.environment.push(("HOME".into(), "/".into()));
    if role == "apps" {
        capsule.devices.push(SCRATCH.into());
    }
    capsule.ports = match role.as_str() {
        "http" => vec![port(80, 80)],
        "serve" => vec![port(80, 80), port(6379, 6379), port(5201, 5201)],
        _ => Vec::new(),
    };
    let mut ramdisk = Ramdisk::new()?;
    ramdisk.config.console.capsules = CapsuleOutput::Raw;
    ramdisk.capsule(&capsule, &image)?;
    fs::write(file, ramdisk.bytes()?).with_context(|| format!("cannot write {file}"))?;
    Ok(ExitCode::SUCCESS)
}

/// An image with these of the harness's programs in `/bin`.
fn programs(names: &[&str]) -> Result<Image> {
    let mut files = Vec::new();
    for name in names {
        let path = out().join(name);
        files.push((format!("/bin/{name}"), read(&path)?));
    }
    let files: Vec<_> = files
        .iter()
        .map(|(path, data)| (path.as_str(), 0o755, data.as_slice()))
        .collect();
    Image::of_files(&files)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
