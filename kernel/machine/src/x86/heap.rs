//! The kernel's heap: size classes with per-CPU stacks in front, the linked-list
//! allocator for what is between, whole blocks of frames for what is large.
//!
//! | bytes | from | cost |
//! | --- | --- | --- |
//! | ≤ 2,048 | this CPU's stack of objects of the class | O(1), no lock |
//! | ≤ 16,384 | arenas of 256 KiB under [`linked_list_allocator`] | O(free blocks) |
//! | more | the buddy allocator | O(log n) |
//!
//! Kernel code is not preempted and interrupt handlers do not allocate, so a
//! CPU's own stacks need no lock.

use super::percpu;
use crate::cpu::CPUS_MAX;
use crate::frame::{self, Block, ORDER_MAX};
use crate::sync::SpinLock;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::{self, NonNull};

/// Sizes of the classes; all are multiples of 16.
const CLASSES: [usize; 14] = [
    16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048,
];
const CLASS_MAX: usize = 2048;
const ARENA_MAX: usize = 16 << 10;
const ARENA_ORDER: usize = 6;
const ARENAS: usize = 256;

/// Class of each size in steps of 16.
const CLASS_OF: [u8; CLASS_MAX / 16 + 1] = {
    let mut table = [0; CLASS_MAX / 16 + 1];
    let mut i = 0;
    let mut class = 0;
    while i < table.len() {
        if i * 16 > CLASSES[class] {
            class += 1;
        }
        table[i] = class as u8;
        i += 1;
    }
    table
};

/// A free object, linked to the next.
struct Object {
    next: *mut Object,
}

struct Stack {
    head: *mut Object,
    len: usize,
}

impl Stack {
    const EMPTY: Stack = Stack {
        head: ptr::null_mut(),
        len: 0,
    };

    fn push(&mut self, o: *mut Object) {
        // SAFETY: a free object of at least 16 bytes that this stack now owns.
        unsafe { (*o).next = self.head };
        self.head = o;
        self.len += 1;
    }

    fn pop(&mut self) -> *mut Object {
        let o = self.head;
        if !o.is_null() {
            // SAFETY: an object in the stack is free and was linked by `push`.
            self.head = unsafe { (*o).next };
            self.len -= 1;
        }
        o
    }
}

// SAFETY: the objects belong to the stack that holds them.
unsafe impl Send for Stack {}

struct Local(UnsafeCell<[Stack; CLASSES.len()]>);

// SAFETY: each CPU touches its own only, never from interrupt handlers.
unsafe impl Sync for Local {}

static LOCAL: [Local; CPUS_MAX] =
    [const { Local(UnsafeCell::new([Stack::EMPTY; CLASSES.len()])) }; CPUS_MAX];
static SHARED: [SpinLock<Stack>; CLASSES.len()] =
    [const { SpinLock::new(Stack::EMPTY) }; CLASSES.len()];
static ARENA: SpinLock<Arenas> = SpinLock::new(Arenas {
    heaps: [const { None }; ARENAS],
});

/// Objects a CPU keeps of each class before half of them go back: 16 KiB, or 64.
const KEEP: [usize; CLASSES.len()] = {
    let mut keep = [64; CLASSES.len()];
    let mut i = 0;
    while i < keep.len() {
        if (16 << 10) / CLASSES[i] < 64 {
            keep[i] = (16 << 10) / CLASSES[i];
        }
        i += 1;
    }
    keep
};

fn alloc_small(class: usize) -> *mut u8 {
    debug_assert!(
        !percpu::here().in_irq.get(),
        "allocation in an interrupt handler"
    );
    // SAFETY: this CPU's own, and nothing else runs on it meanwhile.
    let mine = unsafe { &mut (*LOCAL[percpu::cpu_current()].0.get())[class] };
    let o = mine.pop();
    if !o.is_null() {
        return o.cast();
    }
    refill(mine, class);
    mine.pop().cast()
}

#[cold]
fn refill(mine: &mut Stack, class: usize) {
    let mut shared = SHARED[class].lock();
    if shared.len == 0 {
        let order = usize::from(CLASSES[class] > 512) * 2;
        let Some(block) = Block::zeroed(order) else {
            return;
        };
        let (base, len) = (block.ptr(), block.len());
        block.leak();
        for i in 0..len / CLASSES[class] {
            // SAFETY: inside the block just taken.
            shared.push(unsafe { base.add(i * CLASSES[class]) }.cast());
        }
    }
    for _ in 0..KEEP[class] / 2 {
        let o = shared.pop();
        if o.is_null() {
            return;
        }
        mine.push(o);
    }
}

fn free_small(o: *mut u8, class: usize) {
    // SAFETY: as in `alloc_small`.
    let mine = unsafe { &mut (*LOCAL[percpu::cpu_current()].0.get())[class] };
    mine.push(o.cast());
    if mine.len > KEEP[class] {
        let mut shared = SHARED[class].lock();
        while mine.len > KEEP[class] / 2 {
            shared.push(mine.pop());
        }
    }
}

struct Arenas {
    heaps: [Option<linked_list_allocator::Heap>; ARENAS],
}

impl Arenas {
    fn alloc(&mut self, layout: Layout) -> *mut u8 {
        for slot in &mut self.heaps {
            let heap = match slot {
                Some(h) => h,
                None => match Self::open() {
                    Some(h) => slot.insert(h),
                    None => return ptr::null_mut(),
                },
            };
            if let Ok(p) = heap.allocate_first_fit(layout) {
                return p.as_ptr();
            }
        }
        ptr::null_mut()
    }

    fn open() -> Option<linked_list_allocator::Heap> {
        let block = Block::zeroed(ARENA_ORDER)?;
        let (base, len) = (block.ptr(), block.len());
        block.leak();
        let mut heap = linked_list_allocator::Heap::empty();
        // SAFETY: the block is ours for ever.
        unsafe { heap.init(base, len) };
        Some(heap)
    }

    /// # Safety
    /// `p` came from [`Arenas::alloc`] with this layout.
    unsafe fn free(&mut self, p: *mut u8, layout: Layout) {
        for heap in self.heaps.iter_mut().flatten() {
            if (heap.bottom()..heap.top()).contains(&p)
                && let Some(p) = NonNull::new(p)
            {
                // SAFETY: it lies in this heap, so it came from it.
                return unsafe { heap.deallocate(p, layout) };
            }
        }
    }
}

struct KernelHeap;

#[global_allocator]
static HEAP: KernelHeap = KernelHeap;

/// The class for a layout, if one fits. A class whose size is a multiple of the
/// alignment is aligned to it, as objects start at multiples of their size.
#[inline]
fn class_of(layout: Layout) -> Option<usize> {
    let size = layout.size().max(layout.align());
    if size > CLASS_MAX {
        return None;
    }
    let class = usize::from(CLASS_OF[size.div_ceil(16)]);
    if layout.align() <= 16 || CLASSES[class].is_multiple_of(layout.align()) {
        return Some(class);
    }
    // The next power of two is a class, and aligned to itself.
    Some(usize::from(CLASS_OF[size.next_power_of_two().div_ceil(16)]))
}

// SAFETY: memory comes from classes, arenas or blocks that do not overlap, with
// the alignment asked for, and goes back where its layout says it came from.
unsafe impl GlobalAlloc for KernelHeap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(class) = class_of(layout) {
            return alloc_small(class);
        }
        if layout.size() <= ARENA_MAX && layout.align() <= crate::addr::PAGE_SIZE {
            return ARENA.lock().alloc(layout);
        }
        // Whoever asks for that much can live without it; small objects cannot.
        let order = Block::order_for(layout.size().max(layout.align()));
        if order > ORDER_MAX || frame::is_short() {
            return ptr::null_mut();
        }
        Block::alloc(order).map_or(ptr::null_mut(), |b| {
            let p = b.ptr();
            b.leak();
            p
        })
    }

    #[inline]
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        if let Some(class) = class_of(layout) {
            return free_small(p, class);
        }
        if layout.size() <= ARENA_MAX && layout.align() <= crate::addr::PAGE_SIZE {
            // SAFETY: the caller's.
            return unsafe { ARENA.lock().free(p, layout) };
        }
        let order = Block::order_for(layout.size().max(layout.align()));
        // SAFETY: it came from a leaked block of this order.
        drop(unsafe { Block::from_phys(p as usize - super::kmap::DIRECT, order) });
    }
}
