//! Memory that arguments point to: where structures lie, and where they do not fit.

use crate::{objects::PAGE, random::Random};
use std::ptr;

/// Pages for reading and writing; then comes one for reading only, and one that may
/// not be touched.
const PAGES: usize = 8;

/// The memory of one thread.
#[derive(Clone, Copy)]
pub(crate) struct Scratch {
    base: *mut u8,
    /// How much of it has been given out since [`Self::reset`].
    used: usize,
}

impl Scratch {
    /// Takes the memory.
    pub(crate) fn new() -> Result<Self, String> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let bytes = (PAGES + 2) * PAGE;
        // SAFETY: a new mapping, which harms none there is; then two pages of it, to
        // which nothing points.
        let found = unsafe {
            let found = libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0);
            if found != libc::MAP_FAILED {
                let last = found.cast::<u8>().add(PAGES * PAGE);
                libc::mprotect(last.cast(), PAGE, libc::PROT_READ);
                libc::mprotect(last.add(PAGE).cast(), PAGE, libc::PROT_NONE);
            }
            found
        };
        if found == libc::MAP_FAILED {
            return Err(format!("mmap: {}", std::io::Error::last_os_error()));
        }
        Ok(Self {
            base: found.cast(),
            used: 0,
        })
    }

    /// Forgets what was given out.
    pub(crate) fn reset(&mut self) {
        self.used = 0;
    }

    /// The first address that cannot be written to.
    fn end(&self) -> u64 {
        self.base as u64 + (PAGES * PAGE) as u64
    }

    /// Room for so many bytes, usually.
    pub(crate) fn room(&mut self, bytes: usize, random: &mut Random) -> u64 {
        match random.below(40) {
            // It ends where the memory does, or beyond that.
            0..3 => self.end() - bytes as u64,
            3 => self.end() - random.below(bytes + 1) as u64,
            4 => self.end(),
            5 => self.end() + PAGE as u64,
            // What another argument points to.
            6 => self.base as u64 + random.below(PAGE) as u64,
            _ => {
                let at = self.used.next_multiple_of(8);
                let fits = at + bytes <= PAGES * PAGE;
                self.used = if fits { at + bytes } else { bytes };
                self.base as u64 + if fits { at as u64 } else { 0 }
            }
        }
    }

    /// Places these bytes, as far as they can be.
    pub(crate) fn put(&mut self, bytes: &[u8], random: &mut Random) -> u64 {
        let address = self.room(bytes.len(), random);
        let fits = self.end().saturating_sub(address).min(bytes.len() as u64);
        // SAFETY: within the writable pages, which only calls point to. A call may
        // have taken them away; then this process dies of it, which is its business.
        unsafe { ptr::copy(bytes.as_ptr(), address as *mut u8, fits as usize) };
        address
    }

    /// What lies at an address that [`Self::room`] gave, if it is within the memory.
    pub(crate) fn read<T: Copy + Default>(&self, address: u64) -> T {
        let inside = address >= self.base as u64 && address + size_of::<T>() as u64 <= self.end();
        if !inside {
            return T::default();
        }
        // SAFETY: as in `put`; the callers' types have no invalid values.
        unsafe { ptr::read_unaligned(address as *const T) }
    }
}

#[cfg(test)]
mod tests {
    use super::Scratch;
    use crate::random::Random;

    #[test]
    fn what_fits_is_there_and_what_does_not_is_cut() {
        let mut scratch = Scratch::new().unwrap();
        let mut random = Random::new(1);
        let (mut whole, mut cut) = (0, 0);
        for number in 1..=1000u64 {
            let address = scratch.put(&number.to_ne_bytes(), &mut random);
            match scratch.read::<u64>(address) {
                found if found == number => whole += 1,
                _ => cut += 1,
            }
        }
        assert!(whole > 800 && cut > 10, "{whole} {cut}");
    }
}
