//! Builds the BIOS stages of the boot loader from their published crates.
//!
//! All are of release 0.11.15, the one whose kernel contract we speak, but for
//! the second BIOS stage: before 0.11.16 it cannot read a FAT volume over
//! 32 MiB and reads smaller ones seven times slower. What it hands to the third
//! stage (`bootloader-x86_64-bios-common`) is the same in both releases.

use crate::stack::with_stack;
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// One binary of the boot loader.
struct Stage {
    /// File name under the output folder.
    file: &'static str,
    /// Crate on the registry.
    package: &'static str,
    version: &'static str,
    target: Target,
    /// Cargo profile the crate brings for itself.
    profile: &'static str,
}

/// What a stage is compiled for: a target of ours.
struct Target {
    file: &'static str,
    specification: &'static str,
}

const REAL_MODE: Target = Target {
    file: "real-mode.json",
    specification: include_str!("../targets/real-mode.json"),
};
const PROTECTED_MODE: Target = Target {
    file: "protected-mode.json",
    specification: include_str!("../targets/protected-mode.json"),
};
const LONG_MODE: Target = Target {
    file: "long-mode.json",
    specification: include_str!("../targets/long-mode.json"),
};

const STAGES: [Stage; 4] = [
    Stage {
        file: "boot-sector",
        package: "bootloader-x86_64-bios-boot-sector",
        version: "0.11.15",
        target: REAL_MODE,
        profile: "stage-1",
    },
    Stage {
        file: "stage-2",
        package: "bootloader-x86_64-bios-stage-2",
        version: "0.11.17",
        target: REAL_MODE,
        profile: "stage-2",
    },
    Stage {
        file: "stage-3",
        package: "bootloader-x86_64-bios-stage-3",
        version: "0.11.15",
        target: PROTECTED_MODE,
        profile: "stage-3",
    },
    Stage {
        file: "stage-4",
        package: "bootloader-x86_64-bios-stage-4",
        version: "0.11.15",
        target: LONG_MODE,
        profile: "stage-4",
    },
];

/// The boot loader's binaries, read into memory.
#[derive(Clone)]
pub struct Stages {
    /// First sector of the disk, 512 bytes with an empty partition table.
    pub boot_sector: Vec<u8>,
    /// Second BIOS stage, in a partition of its own.
    pub stage_2: Vec<u8>,
    /// Third BIOS stage, a file, with a stack of its own.
    pub stage_3: Vec<u8>,
    /// Fourth BIOS stage, a file.
    pub stage_4: Vec<u8>,
    /// What chooses the slot before the second stage (`boot/bios`).
    pub selector: Vec<u8>,
    /// Our UEFI loader (`boot/uefi`), with no release key in it yet.
    pub loader: Vec<u8>,
}

impl Stages {
    /// Reads the binaries that [`build`] left in `folder`.
    pub fn load(folder: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let stages = Self {
            boot_sector: read("boot-sector")?,
            stage_2: read("stage-2")?,
            stage_3: with_stack(&read("stage-3")?)?,
            stage_4: read("stage-4")?,
            selector: read("selector")?,
            loader: read("loader")?,
        };
        ensure!(
            stages.boot_sector.len() == 512,
            "the boot sector is not one sector long"
        );
        Ok(stages)
    }
}

/// Builds every stage into `folder` unless it is there already, calling
/// `progress` with the name of each before it is built.
pub fn build(folder: &Path, mut progress: impl FnMut(&str)) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let compiler = output(Command::new("rustc").arg("-vV"))?;
    for stage in &STAGES {
        let stamp = format!("{} {}\n{compiler}", stage.package, stage.version);
        let stamp_path = folder.join(format!("{}.stamp", stage.file));
        let out = folder.join(stage.file);
        if out.exists() && fs::read_to_string(&stamp_path).is_ok_and(|found| found == stamp) {
            continue;
        }
        progress(stage.file);
        let installed = install(stage, folder)?;
        flatten(&installed, &out)?;
        fs::write(&stamp_path, stamp)?;
    }
    Ok(())
}

/// Compiles one stage with `cargo install`, which fetches it, and returns where
/// its executable is.
fn install(stage: &Stage, folder: &Path) -> Result<PathBuf> {
    let root = folder.join("install").join(stage.file);
    let mut cargo = Command::new("cargo");
    cargo
        .args(["install", "--quiet", "--locked", "--force", stage.package])
        .args(["--version", stage.version, "--profile", stage.profile])
        .args([
            "-Zbuild-std=core",
            "-Zbuild-std-features=compiler-builtins-mem",
        ])
        .arg("--root")
        .arg(&root)
        .arg("--target-dir")
        .arg(folder.join("work"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    let target = folder.join(stage.target.file);
    fs::write(&target, stage.target.specification)?;
    cargo.arg("--target").arg(&target).arg("-Zjson-target-spec");
    output(&mut cargo).with_context(|| {
        format!(
            "the boot loader's {} ({} {}) could not be fetched or built",
            stage.file, stage.package, stage.version
        )
    })?;
    Ok(root.join("bin").join(stage.package))
}

/// Cuts the loadable bytes out of an ELF file.
fn flatten(elf: &Path, out: &Path) -> Result<()> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let objcopy =
        Path::new(sysroot.trim()).join("lib/rustlib/x86_64-unknown-linux-gnu/bin/llvm-objcopy");
    ensure!(
        objcopy.exists(),
        "{} is missing; run scripts/setup",
        objcopy.display()
    );
    output(
        Command::new(&objcopy)
            .args([
                "-I",
                "elf64-x86-64",
                "-O",
                "binary",
                "--binary-architecture=i386:x86-64",
            ])
            .arg(elf)
            .arg(out),
    )?;
    Ok(())
}

/// Runs a command to its end and returns its standard output, or an error with
/// what it said.
fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!(
            "{program} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
