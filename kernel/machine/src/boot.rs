//! What the boot path left for the kernel.

use crate::addr::PAGE_SIZE;
use crate::frame::Frame;
use crate::x86::boot::state;

/// The ramdisk: read-only memory that stays for ever.
#[derive(Clone, Copy, Debug)]
pub struct Ramdisk {
    bytes: &'static [u8],
    phys: usize,
}

/// The ramdisk that was loaded with the kernel, if there is one.
#[must_use]
pub fn ramdisk() -> Option<Ramdisk> {
    let (phys, len) = state().ramdisk?;
    // SAFETY: the loader put it there; its frames are fixed, nobody writes them.
    let bytes = unsafe { core::slice::from_raw_parts(crate::x86::phys_ptr(phys), len) };
    Some(Ramdisk { bytes, phys })
}

/// What a VMM that starts the kernel directly says to it; empty if it says nothing.
#[must_use]
pub fn command_line() -> &'static [u8] {
    crate::x86::boot::command_line()
}

/// What the time-stamp counter showed when the loader entered the kernel.
#[must_use]
pub fn entered() -> u64 {
    crate::x86::boot::entered()
}

/// When the time-stamp counter showed `counter`, in nanoseconds of [`crate::time::Instant`]: less
/// than nothing before the kernel had a clock. Wrong where the counter changes its pace.
#[must_use]
pub fn ns_of_counter(counter: u64) -> i64 {
    crate::x86::clock::ns_of(counter)
}

impl Ramdisk {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &'static [u8] {
        self.bytes
    }

    /// Its first `len` bytes.
    #[must_use]
    pub fn first(self, len: usize) -> Ramdisk {
        Ramdisk {
            bytes: self.bytes.get(..len).unwrap_or(self.bytes),
            phys: self.phys,
        }
    }

    /// The frame that holds the page at `offset`, to be mapped without a copy;
    /// `None` if `offset` is not the start of a page inside it.
    #[must_use]
    pub fn frame(&self, offset: usize) -> Option<Frame> {
        if offset >= self.bytes.len() || !(self.phys + offset).is_multiple_of(PAGE_SIZE) {
            return None;
        }
        // SAFETY: a fixed frame has a reference that is never given back.
        Some(unsafe { Frame::another((self.phys + offset) / PAGE_SIZE) })
    }
}
