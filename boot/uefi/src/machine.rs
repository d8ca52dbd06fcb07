//! What the firmware does for the part that loaders share.

use crate::{console, enter, measure};
use core::fmt;
use skep_api::{Hash, PublicKey};
use skep_boot::{Failure, Machine};
use uefi::{
    boot::{self, AllocateType},
    mem::memory_map::MemoryType,
};

/// A machine with UEFI firmware.
pub(crate) struct Uefi;

impl Machine for Uefi {
    fn say(line: fmt::Arguments<'_>) {
        console::say(line);
    }

    fn pages(len: usize) -> Result<&'static mut [u8], Failure> {
        const PAGE: usize = 4096;
        let count = len.div_ceil(PAGE).max(1);
        let memory = boot::allocate_pages(AllocateType::AnyPages, MemoryType::LOADER_DATA, count)
            .map_err(|_| Failure::NoMemory)?;
        // SAFETY: the firmware gave these pages to us alone, mapped one to one, and they are
        // never given back; what it left in them are bytes like any.
        Ok(unsafe { core::slice::from_raw_parts_mut(memory.as_ptr(), len) })
    }

    fn counter() -> u64 {
        // SAFETY: every x86-64 processor has it, and reading it changes nothing.
        unsafe { core::arch::x86_64::_rdtsc() }
    }

    fn measure(head: &Hash, key: &PublicKey) -> bool {
        measure::measure(head, key)
    }

    fn enter(kernel: &'static [u8], ramdisk: &'static [u8]) -> ! {
        enter::enter(kernel, ramdisk)
    }
}
