//! The kernel's half of every address space.
//!
//! | from | what |
//! | --- | --- |
//! | `0xffff_8000_0000_0000` | all memory, one to one ([`DIRECT`]) |
//! | `0xffff_9000_0000_0000` | the kernel's image, where the loader put it |
//! | `0xffff_a000_0000_0000` | devices ([`map_mmio`]) |
//! | `0xffff_a800_0000_0000` | kernel stacks (`stacks`) |
//!
//! The top-level entries of all of them exist from boot on and never change, so
//! user page tables copy them once.

use super::entry::{
    self, GLOBAL, HUGE, NO_CACHE, NO_EXEC, PRESENT, Table, WRITABLE, WRITE_THROUGH, index,
};
use crate::addr::PAGE_SIZE;
use crate::sync::{Once, SpinLock};
use core::ptr::NonNull;
use core::sync::atomic::Ordering::Relaxed;

/// Where all memory is mapped one to one.
pub(super) const DIRECT: usize = 0xffff_8000_0000_0000;
/// Where the loader is told to put the kernel.
pub(super) const IMAGE: usize = 0xffff_9000_0000_0000;
const MMIO: usize = 0xffff_a000_0000_0000;
/// Where kernel stacks are (see `stacks`).
pub(super) const STACKS: usize = 0xffff_a800_0000_0000;

static ROOT: Once<usize> = Once::new();

/// Physical address of the kernel's own top table.
pub(super) fn root() -> usize {
    *ROOT.get().unwrap_or(&0)
}

/// Builds tables before there is a frame allocator; `alloc` gives zeroed pages.
pub(super) struct Builder<'a> {
    pub(super) root: usize,
    pub(super) alloc: &'a mut dyn FnMut() -> usize,
}

impl Builder<'_> {
    fn table_at(&mut self, table: usize, va: usize, level: usize) -> usize {
        // SAFETY: `table` is one of the tables being built.
        let slot = unsafe { &entry::table(table as u64)[index(va, level)] };
        let e = slot.load(Relaxed);
        if e & PRESENT != 0 {
            return (e & entry::ADDRESS) as usize;
        }
        let new = (self.alloc)();
        slot.store(new as u64 | PRESENT | WRITABLE, Relaxed);
        new
    }

    /// Sets the entry of `va` at `level`.
    pub(super) fn set(&mut self, va: usize, level: usize, e: u64) {
        let mut t = self.root;
        for l in (level + 1..=3).rev() {
            t = self.table_at(t, va, l);
        }
        // SAFETY: one of the tables being built.
        unsafe { entry::table(t as u64)[index(va, level)].store(e, Relaxed) };
    }

    /// Maps physical memory `0..end` at [`DIRECT`].
    pub(super) fn direct_map(&mut self, end: usize) {
        let level = if super::control::features().gib_pages {
            2
        } else {
            1
        };
        let step = 1usize << (12 + 9 * level);
        for phys in (0..end).step_by(step) {
            let e = phys as u64 | PRESENT | WRITABLE | HUGE | GLOBAL | NO_EXEC;
            self.set(DIRECT + phys, level, e);
        }
    }

    /// Makes the second-level tables of the areas that grow later.
    pub(super) fn reserve_areas(&mut self) {
        for va in [DIRECT, IMAGE, MMIO, STACKS] {
            self.table_at(self.root, va, 3);
        }
        ROOT.call_once(|| self.root);
    }
}

/// Copies the kernel's top-level entries into a new top table.
pub(super) fn copy_kernel_half(table: usize) {
    // SAFETY: both are top tables; the kernel's never changes after boot.
    let (from, to): (&Table, &Table) =
        unsafe { (entry::table(root() as u64), entry::table(table as u64)) };
    for (f, t) in from[256..].iter().zip(&to[256..]) {
        let e = f.load(Relaxed);
        if e != 0 {
            t.store(e, Relaxed);
        }
    }
}

/// Where the next device is mapped.
static NEXT_MMIO: SpinLock<usize> = SpinLock::new(MMIO);

/// Sets the entry of a page of the kernel's half; its area's lock is held.
pub(super) fn map_page(va: usize, e: u64) -> Option<()> {
    let mut t = root();
    for level in (1..=3).rev() {
        // SAFETY: a kernel table; they are never freed.
        let slot = unsafe { &entry::table(t as u64)[index(va, level)] };
        let mut next = slot.load(Relaxed);
        if next & PRESENT == 0 {
            next = entry::new_table()? as u64 | PRESENT | WRITABLE;
            slot.store(next, Relaxed);
        }
        t = (next & entry::ADDRESS) as usize;
    }
    // SAFETY: as above.
    unsafe { entry::table(t as u64)[index(va, 0)].store(e, Relaxed) };
    Some(())
}

/// How a device's memory is cached.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cache {
    /// Not at all: registers.
    Uncached,
    /// Writes are combined: frame buffers.
    WriteCombining,
}

/// Maps device registers at `phys..phys + len`, uncached.
pub(crate) fn map_mmio(phys: usize, len: usize) -> Option<NonNull<u8>> {
    map_device(phys, len, Cache::Uncached)
}

/// Maps device memory at `phys..phys + len`.
pub(crate) fn map_device(phys: usize, len: usize, cache: Cache) -> Option<NonNull<u8>> {
    // PAT entry 4 (see `control`) is picked by the PAT bit, 7 in a leaf.
    let kind = match cache {
        Cache::Uncached => NO_CACHE | WRITE_THROUGH,
        Cache::WriteCombining => HUGE,
    };
    let first = phys & !(PAGE_SIZE - 1);
    let end = phys.checked_add(len)?.checked_next_multiple_of(PAGE_SIZE)?;
    let mut at = NEXT_MMIO.lock();
    let base = *at;
    // A page between two mappings catches what runs over.
    let next = base.checked_add(end - first)?.checked_add(PAGE_SIZE)?;
    if next > STACKS {
        return None;
    }
    for (i, page) in (first..end).step_by(PAGE_SIZE).enumerate() {
        map_page(
            base + i * PAGE_SIZE,
            page as u64 | PRESENT | WRITABLE | GLOBAL | NO_EXEC | kind,
        )?;
    }
    *at = next;
    NonNull::new((base + phys - first) as *mut u8)
}

/// Physical address behind a kernel address that is mapped by small pages or
/// directly; `None` if it is not mapped.
pub(crate) fn translate(va: usize) -> Option<usize> {
    if (DIRECT..IMAGE).contains(&va) {
        return Some(va - DIRECT);
    }
    let mut t = root();
    for level in (0..=3).rev() {
        // SAFETY: a kernel table; they are never freed.
        let e = unsafe { entry::load(entry::table(t as u64), va, level) };
        if e & PRESENT == 0 {
            return None;
        }
        let span = 1usize << (12 + 9 * level);
        if level == 0 || e & HUGE != 0 {
            return Some((e & entry::ADDRESS) as usize & !(span - 1) | va & (span - 1));
        }
        t = (e & entry::ADDRESS) as usize;
    }
    None
}

/// Address of physical memory in the direct map.
#[inline]
pub(super) fn direct(phys: usize) -> *mut u8 {
    (DIRECT + phys) as *mut u8
}
