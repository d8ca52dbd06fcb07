//! Pieces of memory for one request.

use super::{DmaBuffer, Reach};
use crate::addr::PAGE_SIZE;
use crate::error::AllocError;
use crate::frame::Frame;
use crate::iommu::{StillReached, pages};
use core::ops::Range;
use core::ptr::NonNull;

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
    /// The device it is lent to now; [`Reach::ALL`] for none that would notice.
    lent: Reach,
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
            lent: Reach::ALL,
        };
        s.set_part(part);
        s
    }

    /// Lends all of `segments` to the device of `reach`, or none of them. What is smaller
    /// than a page takes the rest of its page along.
    ///
    /// # Errors
    /// No memory for page tables.
    #[inline]
    pub fn lend(segments: &mut [Segment], reach: Reach) -> Result<(), AllocError> {
        if !reach.is_bounded() {
            return Ok(());
        }
        Segment::take_back(segments);
        let lend = |s: &mut Segment| {
            reach.lend(s.pages_of(), Some(s.direction))?;
            s.lent = reach;
            Ok(())
        };
        let lent = segments.iter_mut().try_for_each(lend);
        if lent.is_err() {
            Segment::take_back(segments);
        }
        lent
    }

    /// Takes all of `segments` back: the device does not reach them any more. One that is
    /// dropped is taken back too.
    #[inline]
    pub fn take_back(segments: &mut [Segment]) {
        while let Some(first) = segments.iter().find(|s| s.lent.is_bounded()) {
            let reach = first.lent;
            let here = |s: &&Segment| s.lent.is(reach);
            let all = segments.iter().filter(here).flat_map(Segment::pages_of);
            let taken = reach.take_back(all);
            for segment in segments.iter_mut().filter(|s| s.lent.is(reach)) {
                segment.lent = Reach::ALL;
                if taken == Err(StillReached) {
                    segment.memory.lose();
                }
            }
        }
    }

    fn pages_of(&self) -> impl Iterator<Item = u64> + Clone + use<> {
        pages(self.phys(), self.len)
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
        match &self.memory {
            // The segment itself goes, and takes its memory back.
            Memory::Buffer(b) => Some(b.same()),
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
        Segment::take_back(core::slice::from_mut(self));
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

impl Drop for Segment {
    #[inline]
    fn drop(&mut self) {
        if self.lent.is_bounded() {
            Segment::take_back(core::slice::from_mut(self));
        }
    }
}

impl Memory {
    /// Keeps the memory from ever being free: a device may still reach it.
    fn lose(&self) {
        match self {
            Memory::Buffer(b) => core::mem::forget(b.block.clone()),
            Memory::Frame(f) => core::mem::forget(f.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::phys_of;
    use super::*;
    use crate::account::Account;
    use alloc::vec::Vec;

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
}
