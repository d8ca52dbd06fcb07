//! Memory that devices read and write.
//!
//! There is no IOMMU: a device is told physical addresses and trusted to stay
//! within them. What Rust can keep is that nobody else touches a buffer while a
//! device has it: a queue owns what it was given until the device is done.

use crate::addr::PAGE_SIZE;
use crate::arch;
use crate::error::AllocError;
use crate::frame::{Block, Frame};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{
    AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Release,
};

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

/// Memory that a device and its driver both reach at any time: rings, tables, queues.
/// Physically contiguous, zeroed at first, and accessed word by word: what is read
/// is never assumed to stay, a read is not done after later ones, and a write not
/// before earlier ones. Accesses outside of it are not made: reads give all ones.
#[derive(Debug)]
pub struct DmaRing(DmaBuffer);

macro_rules! word {
    ($read:ident, $write:ident, $t:ty, $atomic:ty) => {
        /// Reads a word (little-endian); all ones if it is outside or not aligned.
        #[inline]
        #[must_use]
        pub fn $read(&self, offset: usize) -> $t {
            match self.at(offset, size_of::<$t>()) {
                // SAFETY: inside the buffer and aligned, as `at` checked; every access
                // to this memory is atomic.
                Some(p) => unsafe { <$atomic>::from_ptr(p.cast().as_ptr()) }.load(Acquire),
                None => <$t>::MAX,
            }
        }

        /// Writes a word (little-endian), unless it is outside or not aligned.
        #[inline]
        pub fn $write(&self, offset: usize, value: $t) {
            if let Some(p) = self.at(offset, size_of::<$t>()) {
                // SAFETY: as for reading.
                unsafe { <$atomic>::from_ptr(p.cast().as_ptr()) }.store(value, Release);
            }
        }
    };
}

impl DmaRing {
    /// `len` bytes (at most 4 MiB), from the start of a page on.
    ///
    /// # Errors
    /// No memory.
    pub fn new(len: usize) -> Result<DmaRing, AllocError> {
        DmaBuffer::new(len).map(DmaRing)
    }

    /// `count` of them of `len` bytes each, packed: each starts at a multiple of 64
    /// and, if `len` is a power of two, of `len` (up to a page).
    ///
    /// # Errors
    /// No memory.
    pub fn many(count: usize, len: usize) -> Result<Vec<DmaRing>, AllocError> {
        let buffers = DmaBuffer::many(count, len)?;
        Ok(buffers.into_iter().map(DmaRing).collect())
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its physical address, as devices see it.
    #[must_use]
    pub fn phys(&self) -> u64 {
        self.0.phys()
    }

    word!(read_u8, write_u8, u8, AtomicU8);
    word!(read_u16, write_u16, u16, AtomicU16);
    word!(read_u32, write_u32, u32, AtomicU32);
    word!(read_u64, write_u64, u64, AtomicU64);

    /// Copies bytes from `offset` on, as many as there are.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        for (at, byte) in (offset..self.len()).zip(out) {
            *byte = self.read_u8(at);
        }
    }

    /// Copies bytes to `offset` on, as many as there is room for.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        for (at, byte) in (offset..self.len()).zip(bytes) {
            self.write_u8(at, *byte);
        }
    }

    #[inline]
    fn at(&self, offset: usize, size: usize) -> Option<NonNull<u8>> {
        if offset.checked_add(size)? > self.0.len || !offset.is_multiple_of(size) {
            return None;
        }
        // SAFETY: inside the buffer.
        Some(unsafe { self.0.ptr().add(offset) })
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

    /// The `len` bytes that begin with the first of `frames`, page by page. A page of
    /// the boot image that a device would write is empty.
    pub fn pages(
        frames: &[Frame],
        len: usize,
        direction: Direction,
    ) -> impl Iterator<Item = Segment> {
        let starts = (0..len).step_by(PAGE_SIZE);
        starts.zip(frames).map(move |(at, frame)| {
            let bytes = PAGE_SIZE.min(len - at);
            Segment::frame(frame.clone(), 0..bytes, direction)
        })
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
            Memory::Frame(_) => PAGE_SIZE,
        };
        let end = part.end.min(room);
        self.offset = part.start.min(end);
        self.len = end - self.offset;
    }

    /// The physical address of its first byte, as devices see it; the others follow.
    #[must_use]
    pub fn phys(&self) -> u64 {
        let start = match &self.memory {
            Memory::Buffer(b) => b.phys(),
            Memory::Frame(f) => f.phys(),
        };
        start + self.offset as u64
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
    (phys / PAGE_SIZE < arch::frame_table().len()).then_some(phys as u64)
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
    fn a_ring_is_reached_inside_only() {
        let ring = DmaRing::new(64).unwrap();
        ring.write_u32(60, 0x1234_5678);
        ring.write_u32(64, 1);
        ring.write_u32(58, 1);
        ring.write_u64(usize::MAX - 7, 1);
        assert_eq!(
            (ring.read_u16(62), ring.read_u32(60)),
            (0x1234, 0x1234_5678)
        );
        assert_eq!((ring.read_u32(64), ring.read_u64(60)), (u32::MAX, u64::MAX));
        ring.write(62, &[1, 2, 3]);
        let mut bytes = [9; 4];
        ring.read(62, &mut bytes);
        assert_eq!(bytes, [1, 2, 9, 9]);
        let all = DmaRing::many(100, 1024).unwrap();
        assert!(all.iter().all(|r| r.phys().is_multiple_of(1024)));
    }

    #[test]
    fn segments_are_cut() {
        let b = DmaBuffer::new(100).unwrap();
        let s = Segment::buffer(b, 40..200, Direction::ToDevice);
        assert_eq!(s.len(), 60);
        let f = Frame::zeroed(Account::kernel()).unwrap();
        let s = Segment::frame(f, 5000..6000, Direction::FromDevice);
        assert!(s.is_empty() && s.into_buffer().is_none());
        let f = Frame::zeroed(Account::kernel()).unwrap();
        let s = Segment::frame(f, 100..200, Direction::FromDevice);
        assert_eq!((s.len(), Some(s.phys())), (100, phys_of(s.ptr())));
    }

    #[test]
    fn pages_are_used_to_their_end_but_for_the_last() {
        let frames = [(); 3].map(|()| Frame::zeroed(Account::kernel()).unwrap());
        let lens = |len| {
            let all = Segment::pages(&frames, len, Direction::FromDevice);
            all.map(|s| s.len()).collect::<Vec<_>>()
        };
        assert_eq!(lens(PAGE_SIZE + 512), [PAGE_SIZE, 512]);
        assert_eq!(lens(2 * PAGE_SIZE), [PAGE_SIZE; 2]);
        assert_eq!(lens(0), [0; 0]);
        assert_eq!(
            lens(9 * PAGE_SIZE),
            [PAGE_SIZE; 3],
            "no more than there are"
        );
    }

    #[test]
    fn other_memory_has_no_known_address() {
        let on_the_stack = 0u8;
        assert_eq!(phys_of(NonNull::from(&on_the_stack)), None);
    }
}
