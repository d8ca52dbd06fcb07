//! Boots: every firmware, several numbers of CPUs, little and much memory.

use anyhow::Result;
use skep_qemu::{Machine, seconds};

#[test]
fn without_a_ramdisk_says_so() -> Result<()> {
    let mut node = Machine::new("boot-no-ramdisk").no_ramdisk().start()?;
    node.wait_serial("ramdisk", seconds(30))?;
    Ok(())
}
