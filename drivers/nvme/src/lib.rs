//! NVMe controllers and their namespaces (NVM Express Base Specification 1.4 and 2.0,
//! NVM Command Set Specification 1.0).
//!
//! Each CPU has a pair of queues with an interrupt of its own, as far as the
//! controller has them. Of the threads that wait for requests of a pair one *leads*:
//! it sleeps on the interrupt, takes back what is finished and wakes the others; when
//! its own request has ended another leads. So a lone request costs one wake-up, and
//! many cost one each. A thread of the driver does the rest: it resets a controller
//! that hangs, breaks the rules or says that it is broken, gives it once more what was
//! under way, and tells of trouble.
//!
//! Memory that the controller was told of belongs to the request's slot until the
//! controller has answered, is disabled, or is kept from reaching memory.
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
mod controller;
#[cfg(test)]
mod fake;
mod health;
mod identify;
mod namespace;
mod queue;
mod registers;
mod serve;
#[cfg(test)]
mod tests;

pub use controller::{Counters, Nvme, NvmeError};
pub use namespace::Namespace;

use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::bus::PciBus;
use machine::pci;

/// Class, sub-class and interface of an NVMe controller (PCI Code and ID Assignment).
const CLASS: (u8, u8, u8) = (0x01, 0x08, 0x02);

/// Whether `device` is an NVMe controller.
#[must_use]
pub fn is_nvme(device: &pci::Device) -> bool {
    (device.class, device.subclass, device.interface) == CLASS
}

/// Takes a controller into use; its namespaces, each a disk.
///
/// # Errors
/// [`NvmeError`].
pub fn start(device: &pci::Device) -> Result<Vec<Arc<Namespace<PciBus>>>, NvmeError> {
    let wanted = machine::cpu::count() + 1;
    let bus = PciBus::open(device, 0, "nvme", wanted).map_err(NvmeError::Pci)?;
    Nvme::start(bus)
}
