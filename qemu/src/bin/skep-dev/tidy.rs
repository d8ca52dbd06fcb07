//! The house's rules that no compiler checks.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use skep_qemu::{Artifacts, command::output};
use std::{collections::BTreeMap, fs, path::Path, process::Command};

/// The rooms in the order of their arrows: each may use only those before it.
const ROOMS: [&str; 8] = [
    "machine", "mm", "vfs", "net", "process", "capsule", "syscall", "node",
];

/// Crates beside the kernel's rooms, and which of ours each may use.
const OTHERS: &[(&str, &[&str])] = &[
    ("skep-virtio", &["machine", "net"]),
    ("skep-usb", &["machine"]),
    ("skep-nvme", &["machine"]),
    ("skep-ahci", &["machine"]),
    ("skep-console", &["machine"]),
    ("skep-intel", &["machine", "net"]),
    ("skep-watchdog", &["machine"]),
    ("skep-ps2", &["machine"]),
    ("skep-tpm", &["machine"]),
    ("skep-api", &[]),
    ("threebot", &["skep-api"]),
    ("skep-volume", &[]),
    ("skep", &["skep-api", "skep-image", "skep-volume"]),
    ("skep-qemu", &["skep-api"]),
    ("skep-programs", &[]),
];

/// What rooms share with programs, and drivers: the drivers only for the last room.
const USED_BY_ROOMS: [&str; 2] = ["skep-api", "skep-volume"];
const DRIVERS: &[&str] = &[
    "skep-virtio",
    "skep-nvme",
    "skep-ahci",
    "skep-usb",
    "skep-console",
    "skep-intel",
    "skep-watchdog",
    "skep-ps2",
    "skep-tpm",
];

/// Packages that carry a lint table of their own: the three that use `unsafe`, the
/// node, which exports the one symbol that the machine room calls, and the programs
/// of scenarios, one of which attacks the kernel.
const OWN_LINTS: [&str; 6] = [
    "kernel/machine",
    "kernel/node",
    "boot/bios",
    "boot/pvh",
    "boot/uefi",
    "qemu/programs",
];

const LINES_MAX: usize = 600;
const FILE_BYTES_MAX: u64 = 100 << 10;

/// Checks everything and names every breach.
pub(crate) fn check(root: &Path) -> Result<()> {
    let files = tracked_files(root)?;
    let mut breaches = arrows(&dependencies(root)?);
    breaches.extend(check_scenarios(
        &files,
        &fs::read_to_string(root.join("qemu/Cargo.toml"))?,
    ));
    for file in &files {
        let path = root.join(file);
        let Ok(data) = fs::read(&path) else { continue };
        let text = String::from_utf8_lossy(&data);
        breaches.extend(check_size(file, data.len() as u64));
        if file.ends_with(".rs") {
            breaches.extend(check_source(file, &text));
        }
        if let Some(package) = file.strip_suffix("/Cargo.toml") {
            breaches.extend(check_lints(package, &text));
        }
    }
    if breaches.is_empty() {
        return Ok(());
    }
    bail!("{}", breaches.join("\n      "))
}

/// Files under version control, by their paths from the root.
fn tracked_files(root: &Path) -> Result<Vec<String>> {
    let list = output(
        Command::new("git")
            .args(["ls-files", "-z"])
            .current_dir(root),
    )?;
    Ok(list.split_terminator('\0').map(str::to_string).collect())
}

/// Our packages, with those of ours that each depends on outside of tests.
fn dependencies(root: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    let mut cargo = crate::cargo::cargo(&Artifacts::new(), &["metadata", "--no-deps"]);
    cargo.args(["--format-version", "1"]).current_dir(root);
    let metadata: Value = serde_json::from_str(&output(&mut cargo)?)?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata has no packages")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let mut found = BTreeMap::new();
    for package in packages {
        let uses = package["dependencies"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let ours = uses.iter().filter(|dependency| {
            // Ours have a path; `kind` is null but for tests and build scripts.
            dependency["path"].is_string() && dependency["kind"].is_null()
        });
        found.insert(
            text(&package["name"]),
            ours.map(|used| text(&used["name"])).collect(),
        );
    }
    Ok(found)
}

/// Dependencies that go against the arrows.
fn arrows(dependencies: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut breaches = Vec::new();
    for (package, uses) in dependencies {
        for used in uses.iter().filter(|used| !may_use(package, used)) {
            breaches.push(format!(
                "{package} must not depend on {used} (docs/map.md, arrows)"
            ));
        }
        if !ROOMS.contains(&package.as_str()) && !OTHERS.iter().any(|(name, _)| name == package) {
            breaches.push(format!("{package} has no place in the arrows (tidy.rs)"));
        }
    }
    breaches
}

fn may_use(package: &str, used: &str) -> bool {
    if let Some((_, allowed)) = OTHERS.iter().find(|(name, _)| *name == package) {
        return allowed.contains(&used);
    }
    let place = |name: &str| ROOMS.iter().position(|room| *room == name);
    match (place(package), place(used)) {
        (Some(room), Some(other)) => other < room,
        (Some(room), None) => {
            USED_BY_ROOMS.contains(&used) || (DRIVERS.contains(&used) && room == ROOMS.len() - 1)
        }
        _ => false,
    }
}

/// A file too large to be source.
fn check_size(file: &str, len: u64) -> Option<String> {
    let exempt = file.ends_with("Cargo.lock") || file.starts_with("docs/");
    (len > FILE_BYTES_MAX && !exempt)
        .then(|| format!("{file} is over {} KiB", FILE_BYTES_MAX >> 10))
}

/// Rules of one Rust file: its length, its opening words, no unfinished business.
fn check_source(file: &str, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    let code = text.split("\n#[cfg(test)]\n").next().unwrap_or(text);
    let lines = code.lines().count();
    let tests = file.ends_with("tests.rs") || file.contains("tests/");
    if lines > LINES_MAX && !tests {
        breaches.push(format!(
            "{file} has {lines} lines before its tests; split it at {LINES_MAX}"
        ));
    }
    if !text.starts_with("//!") && !tests {
        breaches.push(format!("{file} does not open with //! and what it is for"));
    }
    // Put together, so that this line is not found itself.
    for word in [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("todo", "!("),
        concat!("unimple", "mented!("),
    ] {
        if code.contains(word) {
            breaches.push(format!("{file} says {word}; finish it or open an issue"));
        }
    }
    breaches.extend(check_panics(file, text));
    breaches
}

/// Lints that every crate of the kernel and its drivers asks for by itself, because
/// the programs beside the kernel may do without.
const NO_PANICS: [&str; 4] = [
    "clippy::unwrap_used",
    "clippy::expect_used",
    "clippy::panic",
    "clippy::unreachable",
];

/// A crate of the kernel that does not ask for [`NO_PANICS`].
fn check_panics(file: &str, text: &str) -> Option<String> {
    let kernel = file.starts_with("kernel/") || file.starts_with("drivers/");
    let root = file.ends_with("/src/lib.rs") || file.ends_with("/src/main.rs");
    let missing = NO_PANICS.iter().find(|lint| !text.contains(*lint))?;
    (kernel && root).then(|| format!("{file} does not ask for the lint {missing}"))
}

/// The lint tables: the workspace's for all, but for the few that use `unsafe`.
fn check_lints(package: &str, manifest: &str) -> Option<String> {
    if !manifest.contains("[package]") {
        return None;
    }
    let inherits = manifest.contains("[lints]\nworkspace = true");
    match (inherits, OWN_LINTS.contains(&package)) {
        (false, false) => Some(format!(
            "{package} must take the workspace's lints, which forbid unsafe"
        )),
        (true, true) => Some(format!(
            "{package} has the workspace's lints; take it off tidy's list"
        )),
        _ => None,
    }
}

/// Scenario files that plain `cargo test` would run.
fn check_scenarios(files: &[String], manifest: &str) -> Vec<String> {
    let scenarios = files.iter().filter_map(|file| {
        let name = file.strip_prefix("qemu/tests/")?.strip_suffix(".rs")?;
        (!name.contains('/')).then_some(name)
    });
    scenarios
        .filter(|name| !manifest.contains(&format!("[[test]]\nname = \"{name}\"\ntest = false")))
        .map(|name| format!("qemu/Cargo.toml lacks [[test]] {name} with test = false"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{
        NO_PANICS, arrows, check_lints, check_panics, check_scenarios, check_size, check_source,
        may_use,
    };
    use std::collections::BTreeMap;

    #[test]
    fn rooms_use_only_those_before_them() {
        assert!(may_use("vfs", "mm") && may_use("node", "syscall"));
        assert!(!may_use("mm", "vfs") && !may_use("mm", "mm"));
    }

    #[test]
    fn only_the_node_knows_drivers() {
        assert!(may_use("skep-virtio", "machine") && !may_use("skep-virtio", "mm"));
        assert!(may_use("node", "skep-virtio") && !may_use("net", "skep-virtio"));
        assert!(may_use("capsule", "skep-api") && !may_use("skep-api", "machine"));
    }

    #[test]
    fn a_wrong_arrow_and_an_unplaced_package_are_named() {
        let uses = [("mm", vec!["process"]), ("stranger", vec![])];
        let uses: BTreeMap<_, Vec<String>> = uses
            .into_iter()
            .map(|(name, uses)| {
                (
                    name.to_string(),
                    uses.into_iter().map(String::from).collect(),
                )
            })
            .collect();
        let breaches = arrows(&uses);
        assert_eq!(breaches.len(), 2, "{breaches:?}");
        assert!(breaches[0].contains("mm must not depend on process"));
    }

    #[test]
    fn sources_are_short_documented_and_finished() {
        assert!(check_source("a.rs", "//! What it is.\nfn a() {}\n").is_empty());
        assert_eq!(check_source("a.rs", "fn a() {}\n").len(), 1);
        assert_eq!(
            check_source("a.rs", &format!("//! X\n{}", "\n".repeat(700))).len(),
            1
        );
        assert_eq!(
            check_source("a.rs", concat!("//! X\n// TO", "DO: later\n")).len(),
            1
        );
    }

    #[test]
    fn tests_may_be_long() {
        let text = format!("//! X\n\n#[cfg(test)]\n{}", "\n".repeat(700));
        assert!(check_source("a.rs", &text).is_empty());
        assert!(check_source("a/pipe_tests.rs", &"\n".repeat(700)).is_empty());
    }

    #[test]
    fn only_listed_packages_have_their_own_lints() {
        let inherits = "[package]\n[lints]\nworkspace = true\n";
        assert!(check_lints("kernel/mm", inherits).is_none());
        assert!(check_lints("kernel/mm", "[package]\n").is_some());
        assert!(check_lints("kernel/machine", "[package]\n").is_none());
        assert!(check_lints("kernel/machine", inherits).is_some());
    }

    #[test]
    fn scenarios_must_be_kept_out_of_plain_test_runs() {
        let files = [
            "qemu/tests/boot.rs".to_string(),
            "qemu/tests/common/mod.rs".to_string(),
        ];
        assert_eq!(check_scenarios(&files, "").len(), 1);
        let listed = "[[test]]\nname = \"boot\"\ntest = false\n";
        assert!(check_scenarios(&files, listed).is_empty());
    }

    #[test]
    fn large_files_are_refused() {
        assert!(
            check_size("a.bin", 200 << 10).is_some()
                && check_size("Cargo.lock", 200 << 10).is_none()
        );
    }

    #[test]
    fn crates_of_the_kernel_ask_for_the_lints() {
        let all = NO_PANICS.join(", ");
        for file in ["kernel/mm/src/lib.rs", "drivers/x/src/lib.rs"] {
            assert_eq!(check_panics(file, &all), None);
            assert!(check_panics(file, "clippy::panic").is_some());
        }
        for file in ["kernel/mm/src/areas.rs", "userspace/cli/src/main.rs"] {
            assert_eq!(check_panics(file, ""), None);
        }
    }
}
