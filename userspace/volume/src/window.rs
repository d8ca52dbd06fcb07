//! A window onto a slow medium: small reads near each other become one.

use crate::{Error, ReadAt};
use alloc::vec::Vec;
use core::cell::RefCell;

/// Bytes that are read at a time.
const BYTES: u64 = 4096;

/// A medium of which the piece read last is kept. Tables of clusters are read two
/// bytes at a time, folders 32.
pub struct Window<M> {
    medium: M,
    last: RefCell<Last>,
}

struct Last {
    /// Where the piece begins; beyond every medium: there is none.
    start: u64,
    bytes: Vec<u8>,
}

impl<M: ReadAt> Window<M> {
    /// A window onto `medium`.
    pub const fn new(medium: M) -> Self {
        Self {
            medium,
            last: RefCell::new(Last {
                start: u64::MAX,
                bytes: Vec::new(),
            }),
        }
    }

    /// Copies out of the piece that begins at `start`, reading it if it is not there.
    fn copy(&self, start: u64, skip: usize, buffer: &mut [u8]) -> Result<(), Error> {
        let mut last = self.last.borrow_mut();
        if last.start != start {
            let len = BYTES.min(self.medium.len().saturating_sub(start));
            let len = usize::try_from(len).map_err(|_| Error::Read)?;
            last.start = u64::MAX;
            last.bytes.clear();
            last.bytes
                .try_reserve_exact(len)
                .map_err(|_| Error::NoMemory)?;
            last.bytes.resize(len, 0);
            self.medium.read_at(start, &mut last.bytes)?;
            last.start = start;
        }
        let end = skip.checked_add(buffer.len()).ok_or(Error::Read)?;
        buffer.copy_from_slice(last.bytes.get(skip..end).ok_or(Error::Read)?);
        Ok(())
    }
}

impl<M: ReadAt> ReadAt for Window<M> {
    fn len(&self) -> u64 {
        self.medium.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let (mut offset, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let skip = offset % BYTES;
            let start = offset.saturating_sub(skip);
            let here = BYTES.saturating_sub(skip).min(rest.len() as u64);
            // Both are at most `BYTES`.
            let (skip, here) = (skip as usize, here as usize);
            let (piece, after) = rest.split_at_mut_checked(here).ok_or(Error::Read)?;
            self.copy(start, skip, piece)?;
            offset = offset.checked_add(here as u64).ok_or(Error::Read)?;
            rest = after;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Window;
    use crate::{Error, ReadAt};
    use std::cell::Cell;
    use std::vec::Vec;

    /// A medium that counts how often it is read.
    struct Slow(Vec<u8>, Cell<usize>);

    impl ReadAt for Slow {
        fn len(&self) -> u64 {
            self.0.len() as u64
        }
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
            self.1.set(self.1.get() + 1);
            self.0.as_slice().read_at(offset, buffer)
        }
    }

    #[test]
    fn reads_near_each_other_are_one() {
        let bytes: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
        let window = Window::new(Slow(bytes.clone(), Cell::new(0)));
        let mut two = [0; 2];
        for at in 0..4000 {
            window.read_at(at, &mut two).unwrap();
            assert_eq!(two, bytes[at as usize..][..2]);
        }
        assert_eq!(window.medium.1.get(), 1);
        let mut all = std::vec![0; 10_000];
        window.read_at(0, &mut all).unwrap();
        assert_eq!(all, bytes);
        assert_eq!(window.read_at(9_999, &mut two), Err(Error::Read));
        assert_eq!(window.read_at(u64::MAX, &mut two), Err(Error::Read));
    }
}
