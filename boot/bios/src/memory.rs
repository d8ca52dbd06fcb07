//! Memory: what the BIOS says there is (ACPI 6.5, section 15.1), a heap for the little that
//! checking a release takes, and pages for the release itself.

use crate::firmware::{Registers, SHARED_SEGMENT, call, get, low};
use core::{
    alloc::{GlobalAlloc, Layout},
    cell::RefCell,
    ptr,
    sync::atomic::{AtomicUsize, Ordering},
};
use skep_boot::Failure;
use skep_pvh::{E820_RAM, Kept, Kind, MemoryMap, PAGE, REGIONS_MAX};

/// What `SMAP` is as a number, by which caller and BIOS know each other.
const SMAP: u32 = 0x534d_4150;
/// Where an entry is in the shared page, and its bytes.
const ENTRY_AT: u16 = 0x180;
const ENTRY_BYTES: u32 = 20;
/// Address of the word with the KiB of memory from 0 on, and how many we need: all that
/// `firmware.rs` lays out.
const LOW_MEMORY_AT: usize = 0x413;
const LOW_MEMORY_KIB: u16 = 512;
/// Pages are taken above this and below 4 GiB, which are mapped.
const FIRST: u64 = 1 << 20;
const END: u64 = 4 << 30;
/// Pieces that are taken: stack and heap; the head, kernel and ramdisk of two slots.
const PIECES_MAX: usize = 8;

/// What is known of the machine's memory.
struct Memory {
    entries: [(u64, u64, u32); REGIONS_MAX],
    count: usize,
    kept: [Kept; PIECES_MAX],
    kept_count: usize,
    /// Below what was taken last.
    below: u64,
}

/// What only the one CPU that runs ever sees.
struct OneCpu<T>(T);

// SAFETY: one CPU runs, and nothing interrupts it.
unsafe impl<T> Sync for OneCpu<T> {}

const NOTHING: Kept = Kept {
    address: 0,
    len: 0,
    kind: Kind::Held,
};

static MEMORY: OneCpu<RefCell<Memory>> = OneCpu(RefCell::new(Memory {
    entries: [(0, 0, 0); REGIONS_MAX],
    count: 0,
    kept: [NOTHING; PIECES_MAX],
    kept_count: 0,
    below: END,
}));

/// Asks the BIOS what memory there is.
pub(crate) fn ask() -> Result<(), Failure> {
    if u16::from_le_bytes(low(LOW_MEMORY_AT)) < LOW_MEMORY_KIB {
        return Err(Failure::Machine("it has less than 512 KiB of low memory"));
    }
    let mut memory = MEMORY.0.borrow_mut();
    let mut next = 0;
    // As often as there may be entries, and some that are empty.
    for _ in 0..2 * REGIONS_MAX {
        let answer = call(
            0x15,
            Registers {
                eax: 0xe820,
                ebx: next,
                ecx: ENTRY_BYTES,
                edx: SMAP,
                edi: u32::from(ENTRY_AT),
                es: SHARED_SEGMENT,
                ..Registers::default()
            },
        );
        // After the last entry some BIOSes fail, others say 0.
        if answer.failed() || answer.eax != SMAP {
            break;
        }
        let at = memory.count;
        let start = u64::from_le_bytes(get(ENTRY_AT));
        let len = u64::from_le_bytes(get(ENTRY_AT + 8));
        let kind = u32::from_le_bytes(get(ENTRY_AT + 16));
        if let Some(entry) = memory.entries.get_mut(at).filter(|_| len > 0) {
            *entry = (start, len, kind);
            memory.count += 1;
        }
        next = answer.ebx;
        if next == 0 {
            break;
        }
    }
    if memory.count == 0 {
        return Err(Failure::Machine("its BIOS does not tell of its memory"));
    }
    Ok(())
}

impl Memory {
    fn entries(&self) -> &[(u64, u64, u32)] {
        self.entries.get(..self.count).unwrap_or_default()
    }

    /// The highest place for `len` bytes, whole pages, below what was taken last: what the
    /// kernel's tables are made of is taken from the bottom.
    fn place(&self, len: u64) -> Option<u64> {
        let places = self.entries().iter().filter_map(|&(start, size, kind)| {
            let end = start.saturating_add(size).min(self.below) & !(PAGE - 1);
            let place = end.checked_sub(len)? & !(PAGE - 1);
            (kind == E820_RAM && place >= start.max(FIRST)).then_some(place)
        });
        places.filter(|&place| self.is_free(place, len)).max()
    }

    /// Whether no entry says that it is anything but memory: some BIOSes have entries that
    /// overlap.
    fn is_free(&self, place: u64, len: u64) -> bool {
        let others = self.entries().iter().filter(|entry| entry.2 != E820_RAM);
        let overlaps = |&(start, size, _): &(u64, u64, u32)| {
            start < place + len && place < start.saturating_add(size)
        };
        !others.clone().any(overlaps)
    }
}

/// Whole pages that are never given back, `len` bytes of them.
pub(crate) fn pages(len: usize) -> Result<&'static mut [u8], Failure> {
    let mut memory = MEMORY.0.borrow_mut();
    let whole = (len.max(1) as u64).next_multiple_of(PAGE);
    let place = memory.place(whole).ok_or(Failure::NoMemory)?;
    let at = memory.kept_count;
    let kept = memory.kept.get_mut(at).ok_or(Failure::NoMemory)?;
    *kept = Kept {
        address: place,
        len: whole,
        kind: Kind::Held,
    };
    memory.kept_count += 1;
    memory.below = place;
    // SAFETY: by the BIOS's map this is memory, mapped one to one; nobody else has it, for all
    // that was taken lies above it. What the BIOS left in it are bytes like any.
    Ok(unsafe { core::slice::from_raw_parts_mut(place as *mut u8, len) })
}

/// The map for the kernel, with what was taken and holds `used` set apart.
pub(crate) fn map(used: [&[u8]; 2]) -> MemoryMap {
    let memory = MEMORY.0.borrow();
    let kept = used.map(|bytes| Kept {
        address: bytes.as_ptr() as u64,
        len: bytes.len() as u64,
        kind: Kind::Held,
    });
    MemoryMap::new(memory.entries().iter().copied(), &kept)
}

/// Bytes of the heap: the partition table takes most.
pub(crate) const HEAP_BYTES: usize = 64 << 10;

/// A heap that gives nothing back.
struct Heap {
    /// The next byte that is free, and where the heap ends; 0 before it is used.
    next: AtomicUsize,
    end: AtomicUsize,
}

#[global_allocator]
static HEAP: Heap = Heap {
    next: AtomicUsize::new(0),
    end: AtomicUsize::new(0),
};

// SAFETY: what it gives is in pages that are nobody else's, aligned, and given once: one CPU
// runs, and nothing interrupts it.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.end.load(Ordering::Relaxed) == 0 {
            let Ok(bytes) = pages(HEAP_BYTES) else {
                return ptr::null_mut();
            };
            let first = bytes.as_mut_ptr() as usize;
            self.next.store(first, Ordering::Relaxed);
            self.end.store(first + HEAP_BYTES, Ordering::Relaxed);
        }
        let at = self.next.load(Ordering::Relaxed);
        let at = at.next_multiple_of(layout.align());
        let after = at.saturating_add(layout.size());
        if after > self.end.load(Ordering::Relaxed) {
            return ptr::null_mut();
        }
        self.next.store(after, Ordering::Relaxed);
        at as *mut u8
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}
