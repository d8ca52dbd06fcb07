//! The capsule as a kernel object (design D3): what the owner signed, verified and
//! run, with nothing reachable outside it.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod blobs;
pub mod events;
pub mod image;
pub mod log_ring;
pub mod medium;
mod session;
#[cfg(test)]
mod testing;
pub mod verify;
