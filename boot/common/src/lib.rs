//! What our loaders share: how a release is found, checked and chosen, whatever firmware
//! reads it.
//!
//! A loader brings a [`Machine`], and [`disk::Blocks`] to read a disk by; all `unsafe` code
//! is there. Nothing here trusts a byte that was read.
#![no_std]

extern crate alloc;

pub mod disk;
mod key;
pub mod release;
pub mod start;

use core::fmt;
use skep_api::boot::ReleaseError;
use skep_api::{Hash, PublicKey};

pub use key::release_key;

/// What a loader's firmware does for what is shared.
pub trait Machine {
    /// Prints a line for whoever stands before the machine.
    fn say(line: fmt::Arguments<'_>);

    /// Whole pages of memory that are never given back, `len` bytes of them.
    ///
    /// # Errors
    /// [`Failure::NoMemory`].
    fn pages(len: usize) -> Result<&'static mut [u8], Failure>;

    /// The processor's time-stamp counter.
    fn counter() -> u64;

    /// Tells the TPM of the release with this head and of the key that signed it; whether
    /// it knows of both.
    fn measure(head: &Hash, key: &PublicKey) -> bool;

    /// Starts the kernel. Both lie in whole pages of their own that live for ever.
    fn enter(kernel: &'static [u8], ramdisk: &'static [u8]) -> !;
}

/// Why nothing is started, or not this slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The firmware names no disk that the loader came from.
    NotFromDisk,
    /// The network that the loader came from has no release.
    NotFetched,
    /// The disk has no partition table that is whole.
    NoSlots,
    /// Nobody has put a release key into the loader.
    NoKey,
    /// The partition table has no such slot.
    NoSlot,
    /// The release says that it is longer than its slot.
    BeyondSlot,
    /// The firmware could not read the disk.
    Read,
    /// The firmware could not write to the disk.
    Write,
    /// The release does not fit into memory.
    NoMemory,
    /// The machine lacks something.
    Machine(&'static str),
    /// It is not one that may be started.
    Refused(ReleaseError),
    /// Neither slot was started.
    NothingLeft,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFromDisk => f.write_str("this loader was not started from a disk"),
            Self::NotFetched => f.write_str("its release cannot be fetched from the boot server"),
            Self::NoSlots => f.write_str("the disk has no readable partition table"),
            Self::NoKey => f.write_str("this loader has no release key; write the disk anew"),
            Self::NoSlot => f.write_str("the disk has no such slot"),
            Self::BeyondSlot => f.write_str("its release is larger than the slot"),
            Self::Read => f.write_str("the disk cannot be read"),
            Self::Write => f.write_str("the disk cannot be written"),
            Self::NoMemory => f.write_str("there is not enough memory for its release"),
            Self::Machine(why) => f.write_str(why),
            Self::Refused(why) => why.fmt(f),
            Self::NothingLeft => f.write_str("no slot holds a release that can be started"),
        }
    }
}
