//! What the boot path left for the kernel.

use crate::addr::PAGE_SIZE;
use crate::frame::{self, Frame};
use crate::x86::boot::state;
use core::sync::atomic::{AtomicBool, Ordering};

/// The ramdisk: read-only memory that stays for ever.
#[derive(Clone, Copy, Debug)]
pub struct Ramdisk {
    bytes: &'static [u8],
    phys: usize,
}

/// What was loaded with the kernel: the ramdisk, or what one can be made of.
#[derive(Debug)]
pub struct Loaded {
    phys: usize,
    len: usize,
}

/// What was loaded with the kernel, if anything was; for the first who asks.
#[must_use]
pub fn take_loaded() -> Option<Loaded> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let (phys, len) = state().ramdisk?;
    (!TAKEN.swap(true, Ordering::Relaxed)).then_some(Loaded { phys, len })
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

impl Loaded {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the loader put them there; the frames are fixed and nobody writes them as
        // long as this is there.
        unsafe { core::slice::from_raw_parts(crate::x86::phys_ptr(self.phys), self.len) }
    }

    /// Its first `len` bytes are the ramdisk, where they lie.
    #[must_use]
    pub fn keep(self, len: usize) -> Ramdisk {
        let len = len.min(self.len);
        // SAFETY: as in `bytes`, and for ever: nobody else can give the frames back.
        let bytes = unsafe { core::slice::from_raw_parts(crate::x86::phys_ptr(self.phys), len) };
        Ramdisk {
            bytes,
            phys: self.phys,
        }
    }

    /// Has a ramdisk of `len` bytes made of it by `fill`, which overwrites all of them, and
    /// gives its memory back; `None` if there is no room for both at once. When `fill` fails,
    /// all is as it was.
    pub fn replace<R, E>(
        self,
        len: usize,
        fill: impl FnOnce(&[u8], &mut [u8]) -> Result<R, E>,
    ) -> Option<Result<(Ramdisk, R), E>> {
        let run = frame::alloc_run(len.div_ceil(PAGE_SIZE))?;
        let whole = run.numbers().len() * PAGE_SIZE;
        // SAFETY: the run is ours alone, mapped, and what was left in it are bytes like any.
        let room = unsafe { core::slice::from_raw_parts_mut(run.ptr(), whole) };
        let (room, rest) = room.split_at_mut(len);
        rest.fill(0);
        let told = match fill(self.bytes(), room) {
            Ok(told) => told,
            Err(e) => return Some(Err(e)),
        };
        let numbers = run.leak();
        let phys = numbers.start * PAGE_SIZE;
        // SAFETY: memory that was just given away for ever; `room` is not used again.
        unsafe { frame::fix_range(numbers) };
        crate::x86::boot::free_loaded(self);
        // SAFETY: fixed frames stay, and nobody writes them.
        let bytes = unsafe { core::slice::from_raw_parts(crate::x86::phys_ptr(phys), len) };
        Some(Ok((Ramdisk { bytes, phys }, told)))
    }

    /// Physical address and length.
    pub(crate) fn place(&self) -> (usize, usize) {
        (self.phys, self.len)
    }
}

impl Ramdisk {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &'static [u8] {
        self.bytes
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
