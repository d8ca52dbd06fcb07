//! `skep-dev bench prepare`: PostgreSQL and Node.js on the disk of the harness, beside
//! the programs that it has itself.

use anyhow::{Context as _, Result, ensure};
use skep_qemu::{command::output, twin::Packages};
use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

/// What is added, with everything that it needs.
const PACKAGES: &[&str] = &["postgresql", "nodejs", "util-linux"];
/// Programs for `scripts/bench apps ... --tests`, by their path in the guest.
const TESTS: [(&str, &str); 2] = [
    (
        "bench/postgres",
        include_str!("../../../../bench/postgres.sh"),
    ),
    ("bench/node", include_str!("../../../../bench/node.js")),
];
/// Size of the disk of the Linux guests.
const DISK: &str = "1G";

/// Adds them to the folder from which every system has its programs, and makes the
/// Linux guests' disk anew.
pub(super) fn prepare(out: &Path) -> Result<()> {
    let root = out.join("root");
    ensure!(
        root.exists(),
        "the benchmark's programs are not in {}: run build.sh of the harness first",
        out.display()
    );
    let packages = Packages::pack("bench", PACKAGES)?;
    for folder in ["usr", "etc"] {
        // The harness's own files stay as they are.
        let mut copy = Command::new("cp");
        copy.args(["-a", "--no-clobber", "--no-preserve=ownership"]);
        copy.arg(packages.files().join(folder).join("."));
        output(copy.arg(root.join(folder)))?;
    }
    for (path, text) in TESTS {
        let path = root.join(path);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    let disk = out.join("apps.ext4");
    if disk.exists() {
        fs::remove_file(&disk)?;
    }
    let mut format = Command::new("/sbin/mke2fs");
    format.args(["-q", "-t", "ext4", "-E", "root_owner=0:0", "-d"]);
    output(format.arg(&root).arg(&disk).arg(DISK))?;
    Ok(())
}
