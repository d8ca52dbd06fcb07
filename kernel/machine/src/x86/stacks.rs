//! Kernel stacks, each with an unmapped guard below it.
//!
//! A thread that ends gives its stack back; some are kept with their memory for the
//! next threads. The others lose their memory in batches, because every CPU has to
//! forget their addresses before anything else may be put there.

use super::entry::{GLOBAL, NO_EXEC, PRESENT, WRITABLE};
use super::kmap::{self, STACKS};
use super::tlb;
use crate::addr::PAGE_SIZE;
use crate::frame::{self, Block};
use crate::sync::SpinLock;
use crate::thread::STACK_PAGES;
use alloc::vec::Vec;

/// Bytes of a kernel stack.
pub(super) const STACK_SIZE: usize = STACK_PAGES * PAGE_SIZE;
const ORDER: usize = 3;
/// Distance of stacks; what of it is not stack is the guard.
const STRIDE: usize = 64 << 10;
/// Stacks there can be: threads of the whole node.
const STACKS_MAX: usize = 16 << 10;
/// Free stacks that keep their memory.
const KEPT: usize = 32;
/// Stacks that lose their memory at one go.
const BATCH: usize = 32;

struct Pool {
    /// Above the highest stack ever made.
    next: usize,
    /// Free, with memory.
    ready: Vec<usize>,
    /// Free, without.
    bare: Vec<usize>,
}

static POOL: SpinLock<Pool> = SpinLock::new(Pool {
    next: STACKS,
    ready: Vec::new(),
    bare: Vec::new(),
});

/// A kernel stack, named by the address above its highest byte.
#[derive(Debug)]
pub(super) struct KernelStack {
    top: usize,
}

impl KernelStack {
    /// A stack: a free one if there is, else a new one.
    pub(super) fn new() -> Option<KernelStack> {
        let mut pool = POOL.lock();
        if let Some(top) = pool.ready.pop() {
            return Some(KernelStack { top });
        }
        let top = match pool.bare.pop() {
            Some(top) => top,
            None => pool.extend()?,
        };
        if back(top).is_none() {
            pool.bare.push(top);
            return None;
        }
        Some(KernelStack { top })
    }

    /// The address above its highest byte.
    pub(super) fn top(&self) -> usize {
        self.top
    }

    /// Gives it back.
    pub(super) fn recycle(self) {
        let mut pool = POOL.lock();
        pool.ready.push(self.top);
        if pool.ready.len() < KEPT + BATCH {
            return;
        }
        let mut tops = [0; BATCH];
        for top in &mut tops {
            *top = pool.ready.pop().unwrap_or(0);
        }
        drop(pool);
        strip(&tops);
        POOL.lock().bare.extend_from_slice(&tops);
    }
}

impl Pool {
    /// The top of one more stack, with room for it in both lists: giving a stack
    /// back must not need memory.
    fn extend(&mut self) -> Option<usize> {
        let made = (self.next - STACKS) / STRIDE + 1;
        if made > STACKS_MAX {
            return None;
        }
        for list in [&mut self.ready, &mut self.bare] {
            list.try_reserve(made - list.len().min(made)).ok()?;
        }
        self.next += STRIDE;
        Some(self.next)
    }
}

fn pages(top: usize) -> impl Iterator<Item = usize> {
    (top - STACK_SIZE..top).step_by(PAGE_SIZE)
}

/// Puts memory behind the stack below `top`.
fn back(top: usize) -> Option<()> {
    if frame::is_short() {
        return None;
    }
    let block = Block::zeroed(ORDER)?;
    for (i, va) in pages(top).enumerate() {
        let page = (block.phys() + i * PAGE_SIZE) as u64;
        kmap::map_page(va, page | PRESENT | WRITABLE | GLOBAL | NO_EXEC)?;
    }
    block.leak();
    Some(())
}

/// Takes the memory of free stacks.
fn strip(tops: &[usize; BATCH]) {
    let mut blocks = [0; BATCH];
    for (top, phys) in tops.iter().zip(&mut blocks) {
        *phys = kmap::translate(top - STACK_SIZE).unwrap_or(0);
        for va in pages(*top) {
            // The tables exist, so this needs no memory and cannot fail.
            let _ = kmap::map_page(va, 0);
        }
    }
    tlb::forget_kernel();
    for phys in blocks.into_iter().filter(|p| *p != 0) {
        // SAFETY: put there by `back`, and no CPU can reach it any more.
        drop(unsafe { Block::from_phys(phys, ORDER) });
    }
}

const _: () = assert!(STACK_SIZE == PAGE_SIZE << ORDER);
