//! `skep-dev build`: everything a node is made of, into `target/skep/`.

use crate::{
    cargo::{
        BARE, LINUX, UEFI, bios_cargo, boot_cargo, kernel_cargo, pvh_cargo, uefi_cargo, user_cargo,
    },
    frames, ramdisk,
};
use anyhow::{Context as _, Result, bail};
use skep_qemu::{
    Artifacts,
    command::{output, run},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

/// The programs of `qemu/programs`.
const PROGRAMS: [&str; 8] = [
    "bustle",
    "disk",
    "hog",
    "hostile",
    "neighbour",
    "polite",
    "prober",
    "runner",
];

/// Something to build. Each needs those before it, but for `User`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// The kernel.
    Kernel,
    /// 3Bot and command line.
    User,
    /// Kernel and PVH front end in one file.
    Direct,
    /// The image builder and the loaders.
    Image,
    /// The programs that scenarios run inside capsules.
    Programs,
}

impl Part {
    /// All that a node is made of, in an order that works.
    pub(crate) const NODE: [Self; 4] = [Self::Kernel, Self::User, Self::Direct, Self::Image];
    const NAMED: [Self; 5] = [
        Self::Kernel,
        Self::User,
        Self::Direct,
        Self::Image,
        Self::Programs,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::User => "user",
            Self::Direct => "direct",
            Self::Image => "image",
            Self::Programs => "programs",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Kernel => "the kernel",
            Self::User => "the 3Bot and the command line",
            Self::Direct => "the direct-boot front end",
            Self::Image => "the image builder and the loaders",
            Self::Programs => "the programs of the scenarios",
        }
    }
}

/// Builds the named parts, or all of a node when none is named.
pub(crate) fn build(names: &[String]) -> Result<()> {
    let mut parts = Vec::new();
    for name in names {
        let part = Part::NAMED.into_iter().find(|part| part.name() == name);
        let Some(part) = part else {
            bail!("there is no part {name} to build")
        };
        parts.push(part);
    }
    parts.sort();
    if !parts.is_empty() {
        return build_parts(&parts);
    }
    build_parts(&Part::NODE)?;
    ramdisk::build()
}

/// Builds these parts, saying what is done and how long it took.
pub(crate) fn build_parts(parts: &[Part]) -> Result<()> {
    let artifacts = Artifacts::new();
    fs::create_dir_all(artifacts.out())?;
    for part in parts {
        eprintln!("build: {} ...", part.what());
        let start = Instant::now();
        match part {
            Part::Kernel => kernel(&artifacts),
            Part::User => user(&artifacts),
            Part::Direct => direct(&artifacts),
            Part::Image => image(&artifacts),
            Part::Programs => programs(&artifacts),
        }
        .with_context(|| format!("{} could not be built", part.what()))?;
        eprintln!(
            "build: {} done in {:.1} s",
            part.what(),
            start.elapsed().as_secs_f32()
        );
    }
    Ok(())
}

fn kernel(artifacts: &Artifacts) -> Result<()> {
    run(&mut kernel_cargo(
        artifacts,
        &["build", "--release", "-p", "node"],
    ))?;
    let built = artifacts
        .target()
        .join("kernel")
        .join(BARE)
        .join("release/skep-kernel");
    frames::check(&built)?;
    install(&built, &artifacts.kernel_symbols())?;
    // Loaders read the whole file, so what is shipped carries no symbols.
    install_stripped(&built, &artifacts.kernel())
}

fn user(artifacts: &Artifacts) -> Result<()> {
    run(&mut user_cargo(
        artifacts,
        &["build", "--release", "-p", "threebot", "-p", "skep"],
    ))?;
    let built = artifacts.target().join("user").join(LINUX).join("release");
    install_stripped(&built.join("threebot"), &artifacts.threebot())?;
    install(&built.join("skep"), &artifacts.cli())
}

fn programs(artifacts: &Artifacts) -> Result<()> {
    run(&mut user_cargo(
        artifacts,
        &["build", "--release", "-p", "skep-programs"],
    ))?;
    let built = artifacts.target().join("user").join(LINUX).join("release");
    fs::create_dir_all(artifacts.out().join("programs"))?;
    for name in PROGRAMS {
        install_stripped(&built.join(name), &artifacts.program(name))?;
    }
    Ok(())
}

fn direct(artifacts: &Artifacts) -> Result<()> {
    run(&mut pvh_cargo(artifacts, &["build", "--release"]))?;
    let built = artifacts
        .target()
        .join("boot/build")
        .join(BARE)
        .join("release/skep-pvh");
    install(&built, &artifacts.direct())
}

fn image(artifacts: &Artifacts) -> Result<()> {
    run(&mut boot_cargo(
        artifacts,
        &["build", "--release", "-p", "skep-image"],
    ))?;
    let built = artifacts.target().join("boot/build/release/skep-image");
    install(&built, &artifacts.image_tool())?;
    run(&mut uefi_cargo(artifacts, &["build", "--release"]))?;
    let built = artifacts
        .target()
        .join("boot/build")
        .join(UEFI)
        .join("release/skep-uefi.efi");
    fs::create_dir_all(artifacts.loaders())?;
    install(&built, &artifacts.loaders().join("uefi"))?;
    run(&mut bios_cargo(artifacts, &["build", "--release"]))?;
    let built = artifacts
        .target()
        .join("boot/build")
        .join(BARE)
        .join("release/skep-bios");
    let flat = built.with_extension("flat");
    output(
        Command::new(llvm_objcopy()?)
            .args(["-O", "binary"])
            .args([&built, &flat]),
    )?;
    install(&flat, &artifacts.loaders().join("bios"))
}

/// Copies a program without its symbols.
fn install_stripped(from: &Path, to: &Path) -> Result<()> {
    let stripped = to.with_extension("new");
    output(
        Command::new(llvm_objcopy()?)
            .arg("--strip-all")
            .arg(from)
            .arg(&stripped),
    )?;
    install(&stripped, to)?;
    fs::remove_file(stripped)?;
    Ok(())
}

/// Copies a file unless the copy is the same already, so that what depends on
/// its time is not built again.
fn install(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    fs::copy(from, to).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(())
}

fn llvm_objcopy() -> Result<PathBuf> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let path =
        Path::new(sysroot.trim()).join("lib/rustlib/x86_64-unknown-linux-gnu/bin/llvm-objcopy");
    if !path.exists() {
        bail!("{} is missing; run scripts/setup", path.display());
    }
    Ok(path)
}
