//! Registers of devices in memory.

use crate::arch;
use core::ptr::NonNull;

/// A mapped range of device registers. Accesses outside of it are not made:
/// reads give all ones, as a bus without an answer does.
#[derive(Clone, Debug)]
pub struct Mmio {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the registers are mapped for ever and reached by volatile accesses
// only, which are fine from any CPU.
unsafe impl Send for Mmio {}
// SAFETY: as above.
unsafe impl Sync for Mmio {}

macro_rules! access {
    ($read:ident, $write:ident, $t:ty) => {
        /// Reads a register; all ones if it is outside or not aligned.
        #[inline]
        #[must_use]
        pub fn $read(&self, offset: usize) -> $t {
            match self.at(offset, size_of::<$t>()) {
                // SAFETY: inside the mapping and aligned, as `at` checked.
                Some(p) => unsafe { p.cast::<$t>().as_ptr().read_volatile() },
                None => <$t>::MAX,
            }
        }

        /// Writes a register, unless it is outside or not aligned.
        #[inline]
        pub fn $write(&self, offset: usize, value: $t) {
            if let Some(p) = self.at(offset, size_of::<$t>()) {
                // SAFETY: inside the mapping and aligned, as `at` checked.
                unsafe { p.cast::<$t>().as_ptr().write_volatile(value) };
            }
        }
    };
}

impl Mmio {
    /// Maps `len` bytes of device memory at `phys`, uncached.
    pub(crate) fn map(phys: u64, len: usize) -> Option<Mmio> {
        let base = arch::map_mmio(usize::try_from(phys).ok()?, len)?;
        Some(Mmio { base, len })
    }

    /// Memory that stands in for registers.
    ///
    /// # Safety
    /// `len` bytes at `base` live for ever and are only reached by volatile or
    /// atomic accesses.
    #[cfg(test)]
    pub(crate) unsafe fn over(base: NonNull<u8>, len: usize) -> Mmio {
        Mmio { base, len }
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no registers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A part of it, if it lies wholly inside.
    #[must_use]
    pub fn part(&self, offset: usize, len: usize) -> Option<Mmio> {
        let end = offset.checked_add(len)?;
        (end <= self.len).then(|| Mmio {
            // SAFETY: inside the mapping.
            base: unsafe { self.base.add(offset) },
            len,
        })
    }

    #[inline]
    fn at(&self, offset: usize, size: usize) -> Option<NonNull<u8>> {
        if offset.checked_add(size)? > self.len {
            return None;
        }
        // SAFETY: inside the mapping.
        let p = unsafe { self.base.add(offset) };
        (p.as_ptr() as usize).is_multiple_of(size).then_some(p)
    }

    access!(read_u8, write_u8, u8);
    access!(read_u16, write_u16, u16);
    access!(read_u32, write_u32, u32);
    access!(read_u64, write_u64, u64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::boxed::Box;

    #[test]
    fn nothing_outside_is_touched() {
        let memory = Box::leak(Box::new([0u64; 4]));
        let base = NonNull::from(memory).cast();
        // SAFETY: leaked, and reached through this alone.
        let m = unsafe { Mmio::over(base, 16) };
        m.write_u32(12, 0x1234_5678);
        m.write_u32(16, 1);
        m.write_u32(14, 1);
        m.write_u64(usize::MAX, 1);
        assert_eq!(m.read_u16(14), 0x1234);
        assert_eq!((m.read_u32(16), m.read_u32(2)), (u32::MAX, u32::MAX));
        assert_eq!(m.part(8, 8).unwrap().read_u32(4), 0x1234_5678);
        assert!(m.part(8, 9).is_none() && m.part(usize::MAX, 2).is_none());
    }
}
