//! `skep-dev bench prepare-linux`: Linux as machines with firmware boot it, beside the
//! guests that the harness builds.
//!
//! The work is a list of commands, so it is a script: `qemu/bench/linux.sh`.

use anyhow::{Result, ensure};
use skep_qemu::{Artifacts, command::run};
use std::{path::Path, process::Command};

/// What the script makes last.
const LAST: &str = "linux-prepared";

/// Fetches Debian's full kernel and makes the media of both kernels.
pub(super) fn prepare(out: &Path) -> Result<()> {
    let script = Artifacts::new().root().join("qemu/bench/linux.sh");
    run(Command::new("bash").arg(script).env("BENCH_OUT", out))
}

/// Says what to do when that has not been done, or before the harness built its programs
/// anew.
pub(super) fn ensure_prepared(out: &Path) -> Result<()> {
    let made = |name: &str| out.join(name).metadata().and_then(|file| file.modified());
    let is_newer = match (made(LAST), made("init")) {
        (Ok(last), Ok(init)) => last >= init,
        _ => false,
    };
    ensure!(
        is_newer,
        "Linux is not prepared for this: run scripts/bench prepare-linux first"
    );
    Ok(())
}
