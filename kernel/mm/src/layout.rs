//! Where things lie in a new address space.

use machine::addr::{PAGE_SHIFT, PAGE_SIZE, USER_END, page_floor};
use machine::random;

/// Random bits of the stack's top, in pages (16 GiB).
const STACK_RANDOM_BITS: u32 = 22;
/// Random bits of the mapping base and of program images, in pages (1 TiB).
const MAP_RANDOM_BITS: u32 = 28;
/// Random bits of the heap's distance from the image, in pages (32 MiB).
const HEAP_RANDOM_BITS: u32 = 13;
/// Least and most that is kept free for the stack to grow into.
const STACK_GAP_MIN: usize = 128 << 20;
const STACK_GAP_MAX: usize = USER_END / 6 * 5;

/// Where the kernel puts a program's image, stack and mappings. Random unless the
/// program's personality says `ADDR_NO_RANDOMIZE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// End of the stack.
    pub stack_top: usize,
    /// `mmap` looks for free space downwards from here.
    pub mmap_base: usize,
    /// Where a position-independent program goes.
    pub image_base: usize,
    /// Bytes between the end of the image and the start of the heap.
    pub heap_gap: usize,
}

/// Whether addresses are random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Randomize {
    /// As usual.
    Yes,
    /// `personality(ADDR_NO_RANDOMIZE)`.
    No,
}

impl Layout {
    /// A layout with room for a stack of `stack_limit` bytes (`RLIMIT_STACK`).
    #[must_use]
    pub fn new(randomize: Randomize, stack_limit: usize) -> Layout {
        let pages = |bits: u32| match randomize {
            Randomize::Yes => ((random::next_u64() >> (64 - bits)) as usize) << PAGE_SHIFT,
            Randomize::No => 0,
        };
        // The gap also holds the guard and whatever the stack's top lost to chance.
        let slack = crate::area::GUARD + (PAGE_SIZE << STACK_RANDOM_BITS);
        let gap = stack_limit
            .saturating_add(slack)
            .clamp(STACK_GAP_MIN, STACK_GAP_MAX);
        Layout {
            stack_top: USER_END - pages(STACK_RANDOM_BITS),
            mmap_base: page_floor(USER_END - gap).saturating_sub(pages(MAP_RANDOM_BITS)),
            image_base: page_floor(USER_END / 3 * 2) + pages(MAP_RANDOM_BITS),
            heap_gap: pages(HEAP_RANDOM_BITS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_randomness_layouts_agree() {
        let a = Layout::new(Randomize::No, 8 << 20);
        assert_eq!(a, Layout::new(Randomize::No, 8 << 20));
        assert_eq!((a.stack_top, a.heap_gap), (USER_END, 0));
    }

    #[test]
    fn random_layouts_differ_and_stay_in_bounds() {
        let a = Layout::new(Randomize::Yes, usize::MAX);
        let b = Layout::new(Randomize::Yes, 8 << 20);
        assert_ne!(a, b);
        for l in [a, b] {
            assert!(l.mmap_base < l.stack_top && l.stack_top <= USER_END);
            assert!(l.image_base > USER_END / 2 && l.image_base < USER_END);
            for addr in [l.stack_top, l.mmap_base, l.image_base, l.heap_gap] {
                assert_eq!(addr % PAGE_SIZE, 0);
            }
        }
    }
}
