//! What this machine's QEMU can do: Debian's releases have different ones.

use anyhow::{Context as _, Result};
use std::{
    io::Write as _,
    process::{Command, Stdio},
};

/// Whether this QEMU has a device.
pub fn has_device(model: &str) -> Result<bool> {
    let help = Command::new("qemu-system-x86_64")
        .args(["-device", &format!("{model},help")])
        .output()
        .context("cannot run qemu-system-x86_64")?;
    // It ends with status 0 in either case.
    Ok(String::from_utf8_lossy(&help.stdout).contains(&format!("{model} options:")))
}

/// Whether QEMU's translator has this feature of processors, such as `x2apic`.
pub fn has_cpu_feature(name: &str) -> Result<bool> {
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-machine", "q35", "-accel", "tcg", "-S"])
        // What cannot be enforced ends QEMU at once.
        .args(["-cpu", &format!("max,+{name},enforce")])
        .args(["-monitor", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run qemu-system-x86_64")?;
    if let Some(mut monitor) = qemu.stdin.take() {
        // It fails when QEMU has ended already, which its status tells.
        let _ = monitor.write_all(b"quit\n");
    }
    Ok(qemu.wait()?.success())
}

#[cfg(test)]
mod tests {
    use super::{has_cpu_feature, has_device};

    #[test]
    fn what_every_qemu_has_and_none() {
        assert!(has_device("e1000e").unwrap());
        assert!(!has_device("e1000z").unwrap());
        assert!(has_cpu_feature("sse2").unwrap());
        assert!(!has_cpu_feature("no-such").unwrap());
    }
}
