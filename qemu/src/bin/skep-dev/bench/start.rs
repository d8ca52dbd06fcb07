//! `skep-dev bench-start ROLE MEDIUM DISK FOLDER COMMAND...`: what a start of this node
//! boots from, made before it. The harness calls it.

use super::{
    describe::{RUN, applications},
    out, web,
};
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use skep_api::{
    manifest::{Outbound, RestartPolicy},
    node::CapsuleOutput,
};
use skep_qemu::{
    Artifacts,
    command::output,
    ramdisk::{Image, Ramdisk, manifest, port},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Bytes of a sector of an image.
const SECTOR: u64 = 512;

/// Makes it.
pub(super) fn start(words: &[String]) -> Result<()> {
    let [role, medium, disk, folder, command @ ..] = words else {
        bail!("usage: skep-dev bench-start ROLE MEDIUM DISK FOLDER COMMAND...");
    };
    let folder = PathBuf::from(folder);
    fs::create_dir_all(&folder)?;
    let ramdisk = folder.join("ramdisk");
    fs::write(&ramdisk, ramdisk_for(role, disk, command)?)
        .with_context(|| format!("cannot write {}", ramdisk.display()))?;
    match medium.as_str() {
        "none" => Ok(()),
        "disk" => image(&ramdisk, &folder).map(drop),
        "network" => network(&ramdisk, &folder),
        _ => bail!("no such medium: {medium}"),
    }
}

/// A ramdisk with a capsule that runs the command of this role.
fn ramdisk_for(role: &str, disk: &str, command: &[String]) -> Result<Vec<u8>> {
    let image = match role {
        "http" => programs(&["httpd"])?,
        "micro" => programs(&["micro"])?,
        "serve" | "apps" => {
            let run = format!("#!/bin/sh\n{}\necho BENCH-END\n", applications(disk));
            Image::of_folder(&out().join("root"))?.with_files(&[(RUN, 0o755, run.as_bytes())])?
        }
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
        capsule.devices.push(disk.into());
    }
    capsule.ports = match role {
        "http" => vec![port(80, 80)],
        "serve" => vec![port(80, 80), port(6379, 6379), port(5201, 5201)],
        _ => Vec::new(),
    };
    let mut ramdisk = Ramdisk::new()?;
    ramdisk.config.console.capsules = CapsuleOutput::Raw;
    ramdisk.capsule(&capsule, &image)?;
    ramdisk.bytes()
}

/// An image with these of the harness's programs in `/bin`.
fn programs(names: &[&str]) -> Result<Image> {
    let mut files = Vec::new();
    for name in names {
        files.push((format!("/bin/{name}"), read(&out().join(name))?));
    }
    let files: Vec<_> = files
        .iter()
        .map(|(path, data)| (path.as_str(), 0o755, data.as_slice()))
        .collect();
    Image::of_files(&files)
}

/// The disk image that an owner would make of this ramdisk.
fn image(ramdisk: &Path, folder: &Path) -> Result<PathBuf> {
    let artifacts = Artifacts::new();
    let image = folder.join("skep.img");
    let mut cli = Command::new(artifacts.require(artifacts.cli())?);
    cli.args(["image", "disk", "--unsigned", "-o"]).arg(&image);
    cli.arg("--key").arg(artifacts.owner_key());
    output(cli.arg("--ramdisk").arg(ramdisk))?;
    Ok(image)
}

/// The files that `skep pxe serve` would offer, by the names it has for them.
fn network(ramdisk: &Path, folder: &Path) -> Result<()> {
    let artifacts = Artifacts::new();
    let mut cli = Command::new(artifacts.require(artifacts.cli())?);
    cli.arg("release").arg("-o").arg(folder.join("release"));
    cli.arg("--key").arg(artifacts.owner_key());
    output(cli.arg("--ramdisk").arg(ramdisk))?;
    let image = image(ramdisk, folder)?;
    let volume = format!("{}@@{}", image.display(), boot_sector(&image)? * SECTOR);
    let mut mcopy = Command::new("mcopy");
    mcopy.args(["-n", "-o", "-i", &volume, "::EFI/BOOT/BOOTX64.EFI"]);
    output(mcopy.arg(folder.join("bootx64.efi")))?;
    let root = format!("http://{}", web::ADDRESS);
    let script = format!(
        "#!ipxe\n\
         iseq ${{platform}} efi || goto bios\n\
         imgfetch --name release {root}/release\n\
         chain {root}/bootx64.efi\n\
         :bios\n\
         sanboot --no-describe {root}/skep.img\n"
    );
    fs::write(folder.join("boot.ipxe"), script)?;
    Ok(())
}

/// First sector of the partition of an image from which UEFI firmware boots.
fn boot_sector(image: &Path) -> Result<u64> {
    let table = output(Command::new("sfdisk").arg("--json").arg(image))?;
    let table: Value = serde_json::from_str(&table)?;
    let parts = table["partitiontable"]["partitions"].as_array();
    let mut parts = parts.context("the image has no partitions")?.iter();
    let part = parts.find(|part| part["name"] == "skep boot");
    let part = part.context("the image has no boot partition")?;
    part["start"]
        .as_u64()
        .context("a partition without a beginning")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
