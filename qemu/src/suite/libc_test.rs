//! musl's libc-test: every program of it is a case.

use super::{Entry, Suite, by_exit_code, host::Parts, layer::Layer};
use crate::twin::Packages;
use anyhow::{Context as _, Result, ensure};
use std::{fs, path::PathBuf};

/// Packages beside the tests: the C library of those that are not static.
const PACKAGES: &[&str] = &["musl", "dash", "coreutils", "base-files", "netbase"];
/// Where the tests are in the capsule.
const PREFIX: &str = "/opt/libc-test";
/// How long a test may take by its own means, and by the runner's, in seconds.
const PATIENCE: u64 = 60;
const SECONDS: u64 = 90;

/// The suite as it is built on this machine.
pub fn suite() -> Result<Suite> {
    let built = std::env::var_os("SKEP_LIBC_TEST")
        .context("SKEP_LIBC_TEST does not say where musl's libc-test has been built")?;
    let source = PathBuf::from(built).join("src");
    let layer = Layer::empty("libc_test")?;
    let mut entries = Vec::new();
    for kind in ["functional", "regression", "math"] {
        let folder = source.join(kind);
        let listed = fs::read_dir(&folder).with_context(|| format!("no {}", folder.display()))?;
        for file in listed {
            let path = file?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !name.ends_with(".exe") && !name.ends_with(".so") {
                continue;
            }
            let inside = format!("{PREFIX}/src/{kind}/{name}");
            layer.add(&inside, 0o755, &fs::read(&path)?)?;
            if let Some(name) = name.strip_suffix(".exe") {
                entries.push(entry(kind, name));
            }
        }
    }
    ensure!(!entries.is_empty(), "{} has no tests", source.display());
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    let tool = fs::read(source.join("common/runtest.exe"))?;
    layer.add(&format!("{PREFIX}/runtest"), 0o755, &tool)?;
    Parts {
        name: "libc_test",
        packages: Packages::pack("suite-libc_test", PACKAGES)?,
        layer,
        environment: &[],
        memory_mib: 512,
        entries,
        judge: by_exit_code,
    }
    .suite()
}

fn entry(kind: &str, name: &str) -> Entry {
    Entry {
        name: format!("{kind}/{name}"),
        command: format!("cd {PREFIX}; exec ./runtest -t {PATIENCE} -w '' src/{kind}/{name}.exe"),
        seconds: SECONDS,
    }
}
