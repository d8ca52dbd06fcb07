//! Memory that devices read and write.
//!
//! What Rust can keep is that nobody else touches a buffer while a device has it: a queue
//! owns what it was given until the device is done. That the device touches nothing else
//! is kept by the IOMMU, where there is one: what is here for a device is made or lent
//! with its [`Reach`], and is out of the device's reach before it is used for anything
//! else. Without an IOMMU a device is trusted to stay within what it was told.

mod loan;
mod ring;
mod segment;

pub use crate::iommu::Reach;
pub use loan::Loan;
pub use ring::DmaRing;
pub use segment::{Direction, Segment};

use crate::addr::PAGE_SIZE;
use crate::arch;
use crate::error::AllocError;
use crate::frame::Block;
use crate::iommu::pages;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;

/// Physically contiguous memory for a device, zeroed at first.
#[derive(Debug)]
pub struct DmaBuffer {
    /// Shared only with the other buffers cut from the same block.
    block: Arc<Reached>,
    offset: usize,
    len: usize,
}

/// A block that a device reaches as long as it lives; nobody does with [`Reach::ALL`],
/// who does not reach all anyway.
#[derive(Debug)]
struct Reached {
    reach: Reach,
    block: ManuallyDrop<Block>,
}

impl Reached {
    fn new(len: usize, reach: Reach) -> Result<Arc<Reached>, AllocError> {
        let block = zeroed(len)?;
        reach.lend(pages(block.phys() as u64, block.len()), None)?;
        Ok(Arc::new(Reached {
            reach,
            block: ManuallyDrop::new(block),
        }))
    }
}

impl Drop for Reached {
    fn drop(&mut self) {
        let all = pages(self.block.phys() as u64, self.block.len());
        if self.reach.take_back(all).is_ok() {
            // SAFETY: dropped here only, and not used afterwards. Otherwise it is lost:
            // the device may still reach it.
            unsafe { ManuallyDrop::drop(&mut self.block) };
        }
    }
}

/// The start of each buffer that is cut from a block: a cache line.
const ALIGN: usize = 64;

impl DmaBuffer {
    /// One buffer of `len` bytes (at most 4 MiB), which starts at a page. It can be lent as
    /// a [`Segment`].
    ///
    /// # Errors
    /// No memory.
    pub fn new(len: usize) -> Result<DmaBuffer, AllocError> {
        DmaBuffer::whole(Reach::ALL, len)
    }

    fn whole(reach: Reach, len: usize) -> Result<DmaBuffer, AllocError> {
        Ok(DmaBuffer {
            block: Reached::new(len, reach)?,
            offset: 0,
            len,
        })
    }

    /// `count` buffers of `len` bytes, packed, which the device of `reach` reaches as long
    /// as any of them lives.
    ///
    /// # Errors
    /// No memory.
    pub fn many(reach: Reach, count: usize, len: usize) -> Result<Vec<DmaBuffer>, AllocError> {
        const BLOCK_MAX: usize = 256 << 10;
        let stride = len.next_multiple_of(ALIGN).max(ALIGN);
        let per_block = (BLOCK_MAX / stride).max(1);
        let mut all = Vec::new();
        all.try_reserve_exact(count)
            .map_err(|_| AllocError::OutOfMemory)?;
        while all.len() < count {
            let n = per_block.min(count - all.len());
            let block = Reached::new(n * stride, reach)?;
            all.extend((0..n).map(|i| DmaBuffer {
                block: block.clone(),
                offset: i * stride,
                len,
            }));
        }
        Ok(all)
    }

    /// Its length.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its physical address, as devices see it.
    #[must_use]
    pub fn phys(&self) -> u64 {
        (self.block.block.phys() + self.offset) as u64
    }

    /// Its bytes.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: this part of the block belongs to this buffer alone; while a
        // device writes it, the buffer is owned by the device's queue.
        unsafe { core::slice::from_raw_parts(self.ptr().as_ptr(), self.len) }
    }

    /// Its bytes, to change.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `self` is borrowed alone.
        unsafe { core::slice::from_raw_parts_mut(self.ptr().as_ptr(), self.len) }
    }

    /// The same buffer, for one who gives the other up at once.
    fn same(&self) -> DmaBuffer {
        DmaBuffer {
            block: self.block.clone(),
            offset: self.offset,
            len: self.len,
        }
    }

    fn ptr(&self) -> NonNull<u8> {
        // SAFETY: a block's pages are mapped, not at zero, and `offset` is inside.
        unsafe { NonNull::new_unchecked(self.block.block.ptr().add(self.offset)) }
    }
}

fn zeroed(len: usize) -> Result<Block, AllocError> {
    Block::zeroed(Block::order_for(len.max(1))).ok_or(AllocError::OutOfMemory)
}

/// The physical address behind a pointer into the direct map, where frames,
/// blocks and the kernel's heap are; `None` for any other address.
pub(crate) fn phys_of(ptr: NonNull<u8>) -> Option<u64> {
    let base = arch::phys_ptr(0) as usize;
    let phys = (ptr.as_ptr() as usize).checked_sub(base)?;
    (phys / PAGE_SIZE < arch::frame_table().len()).then_some(phys as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_do_not_overlap() {
        let mut all = DmaBuffer::many(Reach::ALL, 300, 1526).unwrap();
        for (i, b) in all.iter_mut().enumerate() {
            assert_eq!(b.bytes(), [0; 1526]);
            b.bytes_mut().fill(i as u8);
        }
        for (i, b) in all.iter().enumerate() {
            assert!(b.bytes().iter().all(|x| *x == i as u8));
            assert_eq!(phys_of(b.ptr()), Some(b.phys()));
            assert_eq!(b.phys() % ALIGN as u64, 0);
        }
    }

    #[test]
    fn other_memory_has_no_known_address() {
        let on_the_stack = 0u8;
        assert_eq!(phys_of(NonNull::from(&on_the_stack)), None);
    }
}
