//! Drivers of Intel's gigabit network controllers: e1000, e1000e and igb.
//!
//! Three families of chips share rings of descriptors, most registers and all of the
//! driver's life; [`family`] says how they differ. The order of the files is that of a
//! frame: [`nic`] has the threads and queues, `ring` and `offload` the descriptors, `chip`, `nvm`
//! and `phy` the registers, `regs` their names. All of it is generic over [`machine::bus::Bus`],
//! so that tests run it against a device that breaks the rules.
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

mod chip;
pub mod family;
pub mod nic;
mod nvm;
mod offload;
mod phy;
mod regs;
mod ring;
#[cfg(test)]
mod tests;
mod transmit;

#[cfg(test)]
extern crate std;

pub use chip::NicError;

use alloc::sync::Arc;
use family::{Model, MsiX};
use machine::bus::PciBus;
use machine::pci;
use nic::{Nic, Receiver};

/// Takes the network device `pci` of `model` into use, for IP packets of up to `mtu`
/// bytes.
///
/// # Errors
/// [`NicError`].
pub fn open(
    pci: &pci::Device,
    model: Model,
    mtu: usize,
) -> Result<(Arc<Nic<PciBus>>, Receiver<PciBus>), NicError> {
    let interrupts = if model.family.msix == MsiX::None {
        1
    } else {
        2
    };
    let bus = PciBus::open(pci, 0, model.family.name, interrupts)?;
    Nic::open(bus, model, mtu)
}
