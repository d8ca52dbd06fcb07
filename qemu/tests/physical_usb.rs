//! USB: sticks to boot from.

use anyhow::{Result, ensure};
use skep_qemu::{Bus, Firmware, Machine, seconds};

const NGINX: u16 = 8081;

/// Boots from a stick, and finds it as a disk.
fn boots(firmware: Firmware) -> Result<()> {
    let name = format!("physical-boot-usb-{firmware:?}").to_lowercase();
    let machine = Machine::new(&name).firmware(firmware).boot_bus(Bus::Usb);
    let mut node = machine.cpus(2).start()?;
    node.wait_http(NGINX, "/", seconds(180))?;
    println!("first page after {:.3} s", node.uptime().as_secs_f64());
    ensure!(node.serial().contains("disk sda: "), "no sda was found");
    node.shut_down(seconds(60))
}

#[test]
fn boot_bios() -> Result<()> {
    boots(Firmware::Bios)
}

#[test]
fn boot_uefi() -> Result<()> {
    boots(Firmware::Uefi)
}
