//! One area of an address space: a range of pages with the same rights over one
//! object (Linux calls it a VMA).

use crate::Backing;
use alloc::sync::Arc;
use bitflags::bitflags;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use machine::addr::{PAGE_SHIFT, PAGE_SIZE};
use machine::paging::Access;

/// Free space kept below an area that grows down (`stack_guard_gap`).
pub(crate) const GUARD: usize = 256 * PAGE_SIZE;

bitflags! {
    /// How an area behaves; names as in mmap(2) and madvise(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct AreaFlags: u16 {
        /// Writes are seen by everybody who maps the object (`MAP_SHARED`).
        const SHARED = 1;
        /// Grows down on a fault below it (`MAP_GROWSDOWN`).
        const GROWS_DOWN = 1 << 1;
        /// No memory is promised for it (`MAP_NORESERVE`).
        const NO_RESERVE = 1 << 2;
        /// Locked in memory (`mlock`).
        const LOCKED = 1 << 3;
        /// Locked as its pages are touched (`MLOCK_ONFAULT`); only with `LOCKED`.
        const LOCK_ON_FAULT = 1 << 4;
        /// Absent from children (`MADV_DONTFORK`).
        const DONT_FORK = 1 << 5;
        /// Zero in children (`MADV_WIPEONFORK`).
        const WIPE_ON_FORK = 1 << 6;
        /// Left out of core dumps (`MADV_DONTDUMP`).
        const DONT_DUMP = 1 << 7;
        /// In huge pages where they fit (`MADV_HUGEPAGE`).
        const HUGE = 1 << 9;
        /// Of the kernel's making: cannot be resized or advised (`[vdso]`).
        const SPECIAL = 1 << 8;
    }
}

/// A range of pages with the same rights over one object.
pub(crate) struct Area {
    /// First address.
    pub(crate) start: usize,
    /// First address behind it.
    pub(crate) end: usize,
    /// The object behind it; none for private anonymous memory.
    pub(crate) backing: Option<Arc<dyn Backing>>,
    /// Index of its first page in the object; 0 for anonymous memory.
    pub(crate) index: u64,
    /// What the program asked for.
    pub(crate) access: Access,
    /// What `mprotect` may give.
    pub(crate) max_access: Access,
    pub(crate) flags: AreaFlags,
    /// Pages of its own may exist, which a fork has to share.
    pub(crate) owned: AtomicBool,
}

impl Clone for Area {
    fn clone(&self) -> Area {
        Area {
            backing: self.backing.clone(),
            owned: AtomicBool::new(self.owned.load(Relaxed)),
            ..*self
        }
    }
}

/// What the hardware has to allow for a program to have `access`: x86 cannot
/// write or execute without reading.
pub(crate) fn hardware(access: Access) -> Access {
    if access.is_empty() {
        access
    } else {
        access | Access::READ
    }
}

impl Area {
    pub(crate) fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    pub(crate) fn pages(&self) -> usize {
        (self.end - self.start) >> PAGE_SHIFT
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.flags.contains(AreaFlags::SHARED)
    }

    /// Counts towards `RLIMIT_DATA`: private, writable, no stack.
    pub(crate) fn is_data(&self) -> bool {
        self.access.contains(Access::WRITE)
            && !self
                .flags
                .intersects(AreaFlags::SHARED | AreaFlags::GROWS_DOWN)
    }

    pub(crate) fn is_locked(&self) -> bool {
        self.flags.contains(AreaFlags::LOCKED)
    }

    /// Rights for a page that may be written at once.
    pub(crate) fn hardware(&self) -> Access {
        hardware(self.access)
    }

    /// Index of the page of `va` in the object.
    pub(crate) fn index_of(&self, va: usize) -> u64 {
        self.index
            .saturating_add(((va - self.start) >> PAGE_SHIFT) as u64)
    }

    /// The lowest address it needs to itself: its guard gap included.
    pub(crate) fn floor(&self) -> usize {
        if self.flags.contains(AreaFlags::GROWS_DOWN) {
            self.start.saturating_sub(GUARD)
        } else {
            self.start
        }
    }

    /// Notes that a page of its own was mapped.
    pub(crate) fn note_owned(&self) {
        // The load keeps the cache line shared in the usual case.
        if !self.owned.load(Relaxed) {
            self.owned.store(true, Relaxed);
        }
    }

    /// Cuts it in two at `at`, which lies inside; `self` keeps the lower part.
    pub(crate) fn split_off(&mut self, at: usize) -> Area {
        let mut upper = self.clone();
        upper.start = at;
        if self.backing.is_some() {
            upper.index = self.index_of(at);
        }
        self.end = at;
        upper
    }

    /// Lets it start at `at`, which lies inside.
    pub(crate) fn cut_head(&mut self, at: usize) {
        if self.backing.is_some() {
            self.index = self.index_of(at);
        }
        self.start = at;
    }

    /// Whether `upper`, which starts where this ends, could be part of it.
    pub(crate) fn continues_with(&self, upper: &Area) -> bool {
        let same_object = match (&self.backing, &upper.backing) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) && self.index_of(upper.start) == upper.index,
            _ => false,
        };
        same_object
            && self.end == upper.start
            && self.access == upper.access
            && self.max_access == upper.max_access
            && self.flags == upper.flags
            // Areas that grow or are the kernel's keep their limits.
            && !self.flags.intersects(AreaFlags::GROWS_DOWN | AreaFlags::SPECIAL)
    }
}
