//! Rings, tables and queues.

use super::{DmaBuffer, Reach};
use crate::arch;
use crate::error::AllocError;
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::{
    AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Release,
};

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
    /// `len` bytes (at most 4 MiB) for the device of `reach`, from the start of a page on.
    ///
    /// # Errors
    /// No memory.
    pub fn new(reach: Reach, len: usize) -> Result<DmaRing, AllocError> {
        DmaBuffer::whole(reach, len).map(DmaRing)
    }

    /// `count` of them of `len` bytes each, packed: each starts at a multiple of 64
    /// and, if `len` is a power of two, of `len` (up to a page).
    ///
    /// # Errors
    /// No memory.
    pub fn many(reach: Reach, count: usize, len: usize) -> Result<Vec<DmaRing>, AllocError> {
        let buffers = DmaBuffer::many(reach, count, len)?;
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

    /// Writes what the CPUs' caches hold of a part to memory, for hardware that does not
    /// look there.
    pub(crate) fn write_back(&self, offset: usize, len: usize) {
        if offset.checked_add(len).is_some_and(|end| end <= self.len())
            && let Some(start) = self.at(offset, 1)
        {
            arch::write_back(start, len);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_reached_inside_only() {
        let ring = DmaRing::new(Reach::ALL, 64).unwrap();
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
        let all = DmaRing::many(Reach::ALL, 100, 1024).unwrap();
        assert!(all.iter().all(|r| r.phys().is_multiple_of(1024)));
    }
}
