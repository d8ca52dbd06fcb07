//! SATA disks behind AHCI host adapters (Serial ATA AHCI 1.3.1; ATA Command Set 3).
//!
//! Each port with a disk has up to 32 commands under way where disk and adapter queue
//! them (NCQ), else one. As in the NVMe driver, one of the threads that wait for a port
//! leads ([`machine::block::Lead`]). A thread of the driver repairs ports: after an
//! error it finds which command failed and gives the others once more, it resets the
//! link of a disk that hangs, and it sees disks pulled and put back.
//!
//! Memory that the adapter was told of belongs to the command's slot until the command
//! has ended or its port has been stopped.
#![no_std]
// Nothing a program, a packet, a disk or an image contains may stop the kernel.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing
    )
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod command;
mod disk;
#[cfg(test)]
mod fake;
mod hba;
mod health;
mod identify;
mod port;
mod registers;
mod repair;
mod slots;
#[cfg(test)]
mod tests;
mod unflushed;

pub use disk::Disk;
pub use hba::{AhciError, Counters, Hba};

use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::bus::PciBus;
use machine::pci;

/// Class, sub-class and interface of an AHCI adapter (PCI Code and ID Assignment).
const CLASS: (u8, u8, u8) = (0x01, 0x06, 0x01);
/// The BAR of the registers (AHCI 2.1.11).
const BAR: u8 = 5;

/// Whether `device` is an AHCI adapter.
#[must_use]
pub fn is_ahci(device: &pci::Device) -> bool {
    (device.class, device.subclass, device.interface) == CLASS
}

/// Takes an adapter into use; its disks, in the order of their ports.
///
/// # Errors
/// [`AhciError`].
pub fn start(device: &pci::Device) -> Result<Vec<Arc<Disk<PciBus>>>, AhciError> {
    let bus = PciBus::open(device, BAR, "ahci", 1).map_err(AhciError::Pci)?;
    Hba::start(bus)
}
