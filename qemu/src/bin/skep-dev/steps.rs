//! The steps of `skep-dev test`, and what each does.

use crate::{
    build::{Part, build_parts},
    cargo::{bios_cargo, boot_cargo, cargo, kernel_cargo, pvh_cargo, uefi_cargo},
    logged::logged,
    ramdisk, tidy,
};
use anyhow::{Context as _, Result};
use skep_qemu::Artifacts;
use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

/// What a step does.
pub(crate) enum Work {
    /// Runs these programs; all must succeed.
    Commands(Vec<Command>),
    /// The checks of [`tidy`].
    Tidy,
    /// Builds what scenarios boot.
    Build(Vec<Part>),
    /// Packs what scenarios boot.
    Ramdisk,
    /// Builds and packs what scenarios run inside capsules.
    Programs,
}

/// A check, or a part of the build.
pub(crate) struct Step {
    pub name: &'static str,
    pub work: Work,
}

impl Step {
    /// Whether scenarios need it.
    pub(crate) fn builds(&self) -> bool {
        matches!(self.work, Work::Build(_) | Work::Ramdisk | Work::Programs)
    }

    /// Does it; what programs say goes to `log`.
    pub(crate) fn run(self, artifacts: &Artifacts, log: &Path) -> Result<()> {
        match self.work {
            Work::Commands(commands) => {
                let file = File::create(log)?;
                for mut command in commands {
                    logged(&mut command, &file, log)?;
                }
                Ok(())
            }
            Work::Tidy => tidy::check(artifacts.root()),
            Work::Build(parts) => build_parts(&parts),
            Work::Ramdisk => ramdisk::build(),
            Work::Programs => {
                build_parts(&[Part::Programs])?;
                ramdisk::pack_shell()
            }
        }
    }
}

/// Every step, cheapest first.
pub(crate) fn steps(artifacts: &Artifacts) -> Result<Vec<Step>> {
    let step = |name, work| Step { name, work };
    Ok(vec![
        step(
            "format",
            Work::Commands(vec![
                cargo(artifacts, &["fmt", "--all", "--check"]),
                in_boot(artifacts, &["fmt", "--all", "--check"]),
            ]),
        ),
        step("tidy", Work::Tidy),
        step("clippy-host", Work::Commands(clippy_host(artifacts))),
        step("clippy-kernel", Work::Commands(clippy_kernel(artifacts))),
        step("unit-host", Work::Commands(host_tests(artifacts)?)),
        step(
            "unit-boot",
            Work::Commands(vec![boot_cargo(
                artifacts,
                &["test", "--workspace", "--lib"],
            )]),
        ),
        step("build", Work::Build(Part::NODE.to_vec())),
        step("ramdisk", Work::Ramdisk),
        step("programs", Work::Programs),
    ])
}

fn in_boot(artifacts: &Artifacts, words: &[&str]) -> Command {
    let mut command = cargo(artifacts, words);
    command.current_dir(artifacts.root().join("boot"));
    command
}

fn clippy_host(artifacts: &Artifacts) -> Vec<Command> {
    let mut host = cargo(artifacts, &["clippy", "--all-targets"]);
    // The scenarios are not among the targets of `--all-targets`.
    let mut scenarios = cargo(artifacts, &["clippy", "-p", "skep-qemu", "--test", "*"]);
    let mut boot = boot_cargo(artifacts, &["clippy", "--all-targets"]);
    boot.args(["-p", "skep-image", "-p", "skep-boot"]);
    let mut pvh = boot_cargo(artifacts, &["clippy", "-p", "skep-pvh", "--lib"]);
    for command in [&mut host, &mut scenarios, &mut boot, &mut pvh] {
        command.args(["--", "-D", "warnings"]);
    }
    vec![host, scenarios, boot, pvh]
}

/// Lints of everything that becomes kernel, for the kernel's target.
fn clippy_kernel(artifacts: &Artifacts) -> Vec<Command> {
    let mut kernel = kernel_cargo(artifacts, &["clippy", "-p", "node"]);
    let mut pvh = pvh_cargo(artifacts, &["clippy"]);
    // Any file will do for a front end that is checked and not linked.
    pvh.env("SKEP_KERNEL", artifacts.root().join("Cargo.toml"));
    let mut uefi = uefi_cargo(artifacts, &["clippy", "--release"]);
    let mut bios = bios_cargo(artifacts, &["clippy", "--release"]);
    for command in [&mut kernel, &mut pvh, &mut uefi, &mut bios] {
        command.args(["--", "-D", "warnings"]);
    }
    vec![kernel, pvh, uefi, bios]
}

/// Tests of the rooms, drivers and programs: those inside of them, and those that use
/// them from outside, but for the scenarios.
fn host_tests(artifacts: &Artifacts) -> Result<Vec<Command>> {
    let mut inside = cargo(artifacts, &["test", "--lib", "--bins"]);
    let mut outside = cargo(artifacts, &["test", "--test", "*"]);
    for package in packages_with_tests(artifacts.root())? {
        outside.args(["-p", &package]);
    }
    for command in [&mut inside, &mut outside] {
        command.env("RUST_BACKTRACE", "1");
    }
    Ok(vec![inside, outside])
}

/// The packages of kernel, drivers and user space that have a folder `tests`.
fn packages_with_tests(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for group in ["kernel", "drivers", "userspace"] {
        for entry in fs::read_dir(root.join(group))? {
            let package = entry?.path();
            if !package.join("tests").is_dir() {
                continue;
            }
            let manifest = fs::read_to_string(package.join("Cargo.toml"))?;
            let name = manifest
                .lines()
                .find_map(|line| line.strip_prefix("name = "));
            let name = name.with_context(|| format!("{} has no name", package.display()))?;
            found.push(name.trim_matches('"').to_string());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::packages_with_tests;
    use skep_qemu::Artifacts;

    #[test]
    fn tests_beside_the_sources_are_found() {
        let found = packages_with_tests(Artifacts::new().root()).unwrap();
        for package in ["net", "skep", "skep-api"] {
            assert!(
                found.iter().any(|name| name == package),
                "{package}: {found:?}"
            );
        }
        assert!(!found.iter().any(|name| name == "skep-qemu"), "{found:?}");
    }
}
