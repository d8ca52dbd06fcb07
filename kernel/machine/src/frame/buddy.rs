//! The buddy allocator: blocks of 2^order frames, split and merged in pairs.
//!
//! A free block of several frames keeps its list links in the counts of its first
//! two entries of the frame table, so that memory nobody uses is never touched (a
//! host that gives it out by large pages would back it all). A single frame has no
//! second entry and keeps them in its own first bytes.

use super::{FREE_HEAD, Meta};
use crate::addr::PAGE_SIZE;
use crate::arch;
use crate::sync::IrqLock;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The largest block has 2^`ORDER_MAX` frames (4 MiB).
pub(crate) const ORDER_MAX: usize = 10;
const NONE: u32 = u32::MAX;

struct Buddy {
    heads: [u32; ORDER_MAX + 1],
    free: usize,
    total: usize,
}

static BUDDY: IrqLock<Buddy> = IrqLock::new(Buddy {
    heads: [NONE; ORDER_MAX + 1],
    free: 0,
    total: 0,
});

/// [`Buddy::free`] for who wants to know without the lock.
static FREE: AtomicUsize = AtomicUsize::new(0);

/// Frames in free blocks, a moment ago.
#[cfg(target_os = "none")]
pub(super) fn free_about() -> usize {
    FREE.load(Relaxed)
}

#[repr(C)]
struct Links {
    next: u32,
    prev: u32,
}

/// The links of the free block at `number`.
fn links(number: u32, order: usize) -> Links {
    if order == 0 {
        // SAFETY: a free frame, so its bytes belong to its list.
        return unsafe { page(number).read() };
    }
    let at = |n: u32| meta(n).map_or(NONE, |m| m.refs.load(Relaxed).wrapping_sub(1));
    Links {
        next: at(number),
        prev: at(number + 1),
    }
}

fn set_links(number: u32, order: usize, links: Links) {
    if order == 0 {
        // SAFETY: as above.
        return unsafe { page(number).write(links) };
    }
    // No link is the number 0, which is what counts of allocated frames start at.
    for (n, link) in [(number, links.next), (number + 1, links.prev)] {
        if let Some(m) = meta(n) {
            m.refs.store(link.wrapping_add(1), Relaxed);
        }
    }
}

fn page(number: u32) -> *mut Links {
    arch::phys_ptr(number as usize * PAGE_SIZE).cast()
}

fn meta(number: u32) -> Option<&'static Meta> {
    arch::frame_table().get(number as usize)
}

impl Buddy {
    fn push(&mut self, number: u32, order: usize) {
        let head = self.heads[order];
        set_links(
            number,
            order,
            Links {
                next: head,
                prev: NONE,
            },
        );
        if head != NONE {
            let old = links(head, order);
            set_links(
                head,
                order,
                Links {
                    prev: number,
                    ..old
                },
            );
        }
        self.heads[order] = number;
        if let Some(m) = meta(number) {
            m.flags.store(FREE_HEAD | order as u16, Relaxed);
        }
    }

    fn unlink(&mut self, number: u32, order: usize) {
        let Links { next, prev } = links(number, order);
        match prev {
            NONE => self.heads[order] = next,
            _ => set_links(
                prev,
                order,
                Links {
                    next,
                    ..links(prev, order)
                },
            ),
        }
        if next != NONE {
            set_links(
                next,
                order,
                Links {
                    prev,
                    ..links(next, order)
                },
            );
        }
        set_links(
            number,
            order,
            Links {
                next: NONE,
                prev: NONE,
            },
        );
        if let Some(m) = meta(number) {
            m.flags.store(0, Relaxed);
        }
    }

    fn take(&mut self, order: usize) -> Option<u32> {
        let from = (order..=ORDER_MAX).find(|o| self.heads[*o] != NONE)?;
        let number = self.heads[from];
        self.unlink(number, from);
        for o in (order..from).rev() {
            self.push(number + (1 << o), o);
        }
        self.free -= 1 << order;
        FREE.store(self.free, Relaxed);
        Some(number)
    }

    fn give(&mut self, mut number: u32, mut order: usize) {
        self.free += 1 << order;
        FREE.store(self.free, Relaxed);
        while order < ORDER_MAX {
            let buddy = number ^ (1 << order);
            let is_free =
                meta(buddy).is_some_and(|m| m.flags.load(Relaxed) == FREE_HEAD | order as u16);
            if !is_free {
                break;
            }
            self.unlink(buddy, order);
            number &= buddy;
            order += 1;
        }
        self.push(number, order);
    }

    /// Gives frames in the largest blocks that they make up.
    fn give_range(&mut self, numbers: Range<usize>) {
        let (mut n, end) = (numbers.start, numbers.end);
        while n < end {
            let fits = (end - n).ilog2() as usize;
            let order = (n.trailing_zeros() as usize).min(fits).min(ORDER_MAX);
            self.give(n as u32, order);
            n += 1 << order;
        }
    }

    /// The first `frames` frames, one behind the other, in free blocks; the first of them
    /// begins a block.
    #[cfg(any(target_os = "none", test))]
    fn find(&self, frames: usize) -> Option<Range<usize>> {
        let end = arch::frame_table().len();
        let (mut start, mut n) = (0, 0);
        while n < end {
            match free_order(n) {
                Some(order) => n += 1 << order,
                None => {
                    n += 1;
                    start = n;
                }
            }
            if n - start >= frames {
                return Some(start..start + frames);
            }
        }
        None
    }
}

/// Hands over `numbers`; see [`super::add_range`].
///
/// # Safety
/// As there.
pub(super) unsafe fn add_range(numbers: Range<usize>) {
    let mut buddy = BUDDY.lock();
    buddy.total += numbers.len();
    buddy.give_range(numbers);
}

pub(super) fn stats() -> super::Stats {
    arch::ensure_memory();
    // One lock after the other: a stack holds its own while it asks here.
    let held = super::cache::held();
    let b = BUDDY.lock();
    super::Stats {
        total: b.total,
        free: b.free + held,
    }
}

/// Frames ever handed over.
pub(super) fn total() -> usize {
    BUDDY.lock().total
}

/// Takes single frames into `out`, leaving at least `spare` frames free; how
/// many.
pub(super) fn take_many(out: &mut [u32], spare: usize) -> usize {
    arch::ensure_memory();
    let mut b = BUDDY.lock();
    let mut n = 0;
    while n < out.len() && b.free > spare {
        let Some(f) = b.take(0) else { break };
        out[n] = f;
        n += 1;
    }
    n
}

/// Gives single frames back.
pub(super) fn give_many(frames: &[u32]) {
    let mut b = BUDDY.lock();
    for f in frames {
        b.give(*f, 0);
    }
}

/// A run of 2^order frames for the kernel itself: heap, stacks, device rings.
/// Freed when dropped.
#[derive(Debug)]
pub(crate) struct Block {
    number: u32,
    order: usize,
}

impl Block {
    /// Allocates; the bytes are whatever they were.
    pub(crate) fn alloc(order: usize) -> Option<Block> {
        if order > ORDER_MAX {
            return None;
        }
        arch::ensure_memory();
        let number = BUDDY.lock().take(order)?;
        Some(Block { number, order })
    }

    /// Allocates for what is written in parts: full of zeros.
    ///
    /// Not only that nothing of former users shows. Code that ran before the kernel may have been
    /// there, and an emulator that has translated it looks at every write to its page until the
    /// last of that code is overwritten: a kernel stack in a page of the boot loader's makes a
    /// node under QEMU many times slower.
    pub(crate) fn zeroed(order: usize) -> Option<Block> {
        let block = Block::alloc(order)?;
        // SAFETY: the block was free, so nothing else refers to its pages.
        unsafe { block.ptr().write_bytes(0, block.len()) };
        Some(block)
    }

    /// The smallest order whose block holds `bytes`.
    pub(crate) fn order_for(bytes: usize) -> usize {
        bytes
            .div_ceil(PAGE_SIZE)
            .next_power_of_two()
            .trailing_zeros() as usize
    }

    pub(crate) fn phys(&self) -> usize {
        self.number as usize * PAGE_SIZE
    }

    pub(crate) fn ptr(&self) -> *mut u8 {
        arch::phys_ptr(self.phys())
    }

    pub(crate) fn len(&self) -> usize {
        PAGE_SIZE << self.order
    }

    /// Gives the block away for ever or until [`Block::from_phys`].
    pub(crate) fn leak(self) -> usize {
        core::mem::ManuallyDrop::new(self).phys()
    }

    /// Takes a leaked block back.
    ///
    /// # Safety
    /// `phys` came from [`Block::leak`] of a block of `order`, once.
    pub(crate) unsafe fn from_phys(phys: usize, order: usize) -> Block {
        Block {
            number: (phys / PAGE_SIZE) as u32,
            order,
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        BUDDY.lock().give(self.number, self.order);
    }
}

/// A run of any number of frames, one behind the other, for what is larger than a block.
/// Freed when dropped.
#[cfg(any(target_os = "none", test))]
#[derive(Debug)]
pub(crate) struct Run {
    numbers: Range<usize>,
}

#[cfg(any(target_os = "none", test))]
impl Run {
    /// Looks for the first free one, as long as `spare` frames stay free; the bytes are
    /// whatever they were. It takes time in proportion to the memory: for once, at boot.
    pub(crate) fn alloc(frames: usize, spare: usize) -> Option<Run> {
        arch::ensure_memory();
        let mut b = BUDDY.lock();
        if frames == 0 || b.free < frames.checked_add(spare)? {
            return None;
        }
        let numbers = b.find(frames)?;
        let mut n = numbers.start;
        while n < numbers.end {
            let order = free_order(n)?;
            b.unlink(n as u32, order);
            b.free -= 1 << order;
            n += 1 << order;
        }
        // What the last block has beyond it.
        let end = core::mem::replace(&mut n, numbers.end);
        b.give_range(n..end);
        FREE.store(b.free, Relaxed);
        Some(Run { numbers })
    }

    /// Numbers of its frames.
    pub(crate) fn numbers(&self) -> Range<usize> {
        self.numbers.clone()
    }

    #[cfg(target_os = "none")]
    pub(crate) fn ptr(&self) -> *mut u8 {
        arch::phys_ptr(self.numbers.start * PAGE_SIZE)
    }

    /// Takes the frames away from the allocator for ever: it forgets that it had them.
    #[cfg(target_os = "none")]
    pub(crate) fn leak(self) -> Range<usize> {
        let run = core::mem::ManuallyDrop::new(self);
        BUDDY.lock().total -= run.numbers.len();
        run.numbers()
    }
}

#[cfg(any(target_os = "none", test))]
impl Drop for Run {
    fn drop(&mut self) {
        BUDDY.lock().give_range(self.numbers());
    }
}

/// The order of the free block that begins at frame `n`, if one does.
#[cfg(any(target_os = "none", test))]
fn free_order(n: usize) -> Option<usize> {
    let flags = arch::frame_table().get(n)?.flags.load(Relaxed);
    (flags & FREE_HEAD != 0).then_some(usize::from(flags & 0xff))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn blocks_do_not_overlap_and_come_back() {
        let mut held: Vec<Block> = (0..200).map(|i| Block::alloc(i % 6).unwrap()).collect();
        let mut spans: Vec<_> = held
            .iter()
            .map(|b| (b.phys(), b.phys() + b.len()))
            .collect();
        spans.sort_unstable();
        assert!(spans.windows(2).all(|w| w[0].1 <= w[1].0));
        for b in &held {
            assert_eq!(b.phys() % b.len(), 0);
        }
        held.reverse();
        drop(held);
        assert!(Block::alloc(ORDER_MAX).is_some());
    }

    #[test]
    fn runs_are_longer_than_blocks_and_come_back_whole() {
        let bytes = |run: &Run| run.numbers().start * PAGE_SIZE..run.numbers().end * PAGE_SIZE;
        for frames in [1, 3, (2 << ORDER_MAX) + 5] {
            let run = Run::alloc(frames, 0).unwrap();
            assert_eq!(run.numbers().len(), frames);
            // Nobody else is given any of it meanwhile.
            let others: Vec<Block> = (0..50).map(|_| Block::alloc(0).unwrap()).collect();
            let more = Run::alloc(frames, 0).unwrap();
            assert!(bytes(&more).end <= bytes(&run).start || bytes(&run).end <= bytes(&more).start);
            for other in &others {
                let at = other.phys();
                assert!(!bytes(&run).contains(&at) && !bytes(&more).contains(&at));
            }
        }
        // All of it: the rest of the last block too, or there would soon be no room.
        for more in 0..200 {
            assert!(Run::alloc((1 << ORDER_MAX) + more, 0).is_some());
        }
        assert!(Run::alloc(0, 0).is_none() && Run::alloc(usize::MAX, 1).is_none());
        assert!(Run::alloc(stats().total + 1, 0).is_none());
        assert!(Run::alloc(1, stats().total).is_none());
    }
}
