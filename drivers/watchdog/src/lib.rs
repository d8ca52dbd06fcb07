//! Drivers of hardware watchdogs: the TCO timer of Intel's chipsets, and the 6300ESB's.
//!
//! Both count twice: the first end is a warning that nobody here uses, the second
//! resets the machine. The times of the drivers are those to the second end.
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

pub mod i6300esb;
pub mod itco;

use alloc::boxed::Box;
use machine::pci;
use machine::watchdog::Watchdog;

/// The machine's watchdog, stopped. A card or device put in for the purpose comes
/// before the chipset's own.
#[must_use]
pub fn find() -> Option<Box<dyn Watchdog>> {
    for device in pci::devices().iter().filter(|d| i6300esb::is(d)) {
        match i6300esb::open(device) {
            Ok(dog) => return Some(dog),
            Err(e) => log::error!("device {}: {e}", device.address),
        }
    }
    machine::chipset::tco().map(itco::open)
}
