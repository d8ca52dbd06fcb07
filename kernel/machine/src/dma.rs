//! Memory that devices read and write.
//!
//! There is no IOMMU: a device is told physical addresses and trusted to stay
//! within them. What Rust can keep is that nobody else touches a buffer while a
//! device has it: a queue owns what it was given until the device is done.

use crate::arch;
use crate::error::AllocError;
use crate::frame::{Block, Frame};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::ptr::NonNull;

/// Physically contiguous memory for a device, zeroed at first.
#[derive(Debug)]
pub struct DmaBuffer {
    /// Shared only with the other buffers cut from the same block.
    block: Arc<Block>,
    offset: usize,
    len: usize,
}

/// The start of each buffer that is cut from a block: a cache line.
const ALIGN: usize = 64;

impl DmaBuffer {
    /// One buffer of `len` bytes (at most 4 MiB), which starts at a page.
    ///
    /// # Errors
    /// No memory.
    pub fn new(len: usize) -> Result<DmaBuffer, AllocError> {
        let block = zeroed(len)?;
        Ok(DmaBuffer {
            block: Arc::new(block),
            offset: 0,
            len,
        })
    }

    /// `count` buffers of `len` bytes, packed.
    ///
    /// # Errors
    /// No memory.
    pub fn many(count: usize, len: usize) -> Result<Vec<DmaBuffer>, AllocError> {
        const BLOCK_MAX: usize = 256 << 10;
        let stride = len.next_multiple_of(ALIGN).max(ALIGN);
        let per_block = (BLOCK_MAX / stride).max(1);
        let mut all = Vec::new();
        all.try_reserve_exact(count)
            .map_err(|_| AllocError::OutOfMemory)?;
        while all.len() < count {
            let n = per_block.min(count - all.len());
            let block = Arc::new(zeroed(n * stride)?);
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
        (self.block.phys() + self.offset) as u64
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

    fn ptr(&self) -> NonNull<u8> {
        // SAFETY: a block's pages are mapped, not at zero, and `offset` is inside.
        unsafe { NonNull::new_unchecked(self.block.ptr().add(self.offset)) }
    }
}

fn zeroed(len: usize) -> Result<Block, AllocError> {
    let block = Block::alloc(Block::order_for(len.max(1))).ok_or(AllocError::OutOfMemory)?;
    // SAFETY: the block was free, so nothing else refers to its pages.
    unsafe { block.ptr().write_bytes(0, block.len()) };
    Ok(block)
}

/// Which way the bytes of a [`Segment`] go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The device reads them.
    ToDevice,
    /// The device writes them.
    FromDevice,
}

/// A piece of memory given to a device.
#[derive(Debug)]
pub struct Segment {
    memory: Memory,
    offset: usize,
    len: usize,
    direction: Direction,
}

#[derive(Debug)]
enum Memory {
    Buffer(DmaBuffer),
    Frame(Frame),
}

impl Segment {
    /// A part of a buffer, cut to it.
    #[must_use]
    pub fn buffer(buffer: DmaBuffer, part: Range<usize>, direction: Direction) -> Segment {
        Segment::new(Memory::Buffer(buffer), part, direction)
    }

    /// A part of a frame, cut to its page. A device never writes a fixed frame:
    /// then the part is empty.
    #[must_use]
    pub fn frame(frame: Frame, part: Range<usize>, direction: Direction) -> Segment {
        Segment::new(Memory::Frame(frame), part, direction)
    }

    fn new(memory: Memory, part: Range<usize>, direction: Direction) -> Segment {
        let mut s = Segment {
            memory,
            offset: 0,
            len: 0,
            direction,
        };
        s.set_part(part);
        s
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Which way its bytes go.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The buffer it was made of; `None` if it was a frame.
    #[must_use]
    pub fn into_buffer(self) -> Option<DmaBuffer> {
        match self.memory {
            Memory::Buffer(b) => Some(b),
            Memory::Frame(_) => None,
        }
    }

    /// The buffer it was made of, still part of it.
    #[must_use]
    pub fn as_buffer(&self) -> Option<&DmaBuffer> {
        match &self.memory {
            Memory::Buffer(b) => Some(b),
            Memory::Frame(_) => None,
        }
    }

    /// As [`Segment::as_buffer`], to change. Nobody has a segment to change while
    /// a device has it.
    pub fn as_buffer_mut(&mut self) -> Option<&mut DmaBuffer> {
        match &mut self.memory {
            Memory::Buffer(b) => Some(b),
            Memory::Frame(_) => None,
        }
    }

    /// Makes another part of the same memory the segment, cut to it.
    pub fn set_part(&mut self, part: Range<usize>) {
        let room = match &self.memory {
            Memory::Buffer(b) => b.len(),
            Memory::Frame(f) if f.is_fixed() && self.direction == Direction::FromDevice => 0,
            Memory::Frame(_) => crate::addr::PAGE_SIZE,
        };
        let end = part.end.min(room);
        self.offset = part.start.min(end);
        self.len = end - self.offset;
    }

    /// Where it lies in the direct map.
    pub(crate) fn ptr(&self) -> NonNull<u8> {
        let start = match &self.memory {
            Memory::Buffer(b) => b.ptr(),
            // SAFETY: a frame's page is mapped, and not at zero.
            Memory::Frame(f) => unsafe { NonNull::new_unchecked(f.ptr()) },
        };
        // SAFETY: the constructors keep `offset` inside.
        unsafe { start.add(self.offset) }
    }
}

/// The physical address behind a pointer into the direct map, where frames,
/// blocks and the kernel's heap are; `None` for any other address.
pub(crate) fn phys_of(ptr: NonNull<u8>) -> Option<u64> {
    let base = arch::phys_ptr(0) as usize;
    let phys = (ptr.as_ptr() as usize).checked_sub(base)?;
    (phys / crate::addr::PAGE_SIZE < arch::frame_table().len()).then_some(phys as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Account;

    #[test]
    fn buffers_do_not_overlap() {
        let mut all = DmaBuffer::many(300, 1526).unwrap();
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
    fn segments_are_cut() {
        let b = DmaBuffer::new(100).unwrap();
        let s = Segment::buffer(b, 40..200, Direction::ToDevice);
        assert_eq!(s.len(), 60);
        let f = Frame::zeroed(Account::kernel()).unwrap();
        let s = Segment::frame(f, 5000..6000, Direction::FromDevice);
        assert!(s.is_empty() && s.into_buffer().is_none());
    }

    #[test]
    fn other_memory_has_no_known_address() {
        let on_the_stack = 0u8;
        assert_eq!(phys_of(NonNull::from(&on_the_stack)), None);
    }
}
