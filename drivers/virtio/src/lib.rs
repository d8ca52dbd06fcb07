//! Drivers of virtio devices: network, block, entropy, console.
//!
//! All follow one pattern over [`machine::virtio`]: open the device, agree on
//! features, make the queues, start; a thread of the driver sleeps until the
//! device interrupts. A device that breaks the rules or falls silent is reset and
//! set up again; what it was doing is tried again or ends in an error.
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

pub mod blk;
pub mod console;
pub mod entropy;
pub mod net;
mod request;

#[cfg(test)]
extern crate std;
