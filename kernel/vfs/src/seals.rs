//! Seals of a memfd (fcntl(2), "File Sealing").

use crate::error::{Error, Result};
use bitflags::bitflags;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

bitflags! {
    /// What a sealed file no longer allows.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Seal: u32 {
        /// Further seals.
        const SEAL = 1;
        /// Getting smaller.
        const SHRINK = 2;
        /// Getting larger.
        const GROW = 4;
        /// Any write.
        const WRITE = 8;
        /// New ways to write; existing shared mappings go on.
        const FUTURE_WRITE = 16;
        /// Changes of the execute bits.
        const EXEC = 32;
    }
}

/// The seals of one file.
pub struct Seals(AtomicU32);

impl Seals {
    /// No seals; none can be added unless `open`.
    #[must_use]
    pub fn new(open: bool) -> Seals {
        let first = if open { Seal::empty() } else { Seal::SEAL };
        Seals(AtomicU32::new(first.bits()))
    }

    /// The seals now.
    #[must_use]
    pub fn get(&self) -> Seal {
        Seal::from_bits_truncate(self.0.load(Relaxed))
    }

    /// Adds `more`.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] once it is sealed against that.
    pub fn add(&self, more: Seal) -> Result<()> {
        if self.get().contains(Seal::SEAL) {
            return Err(Error::NotPermitted);
        }
        self.0.fetch_or(more.bits(), Relaxed);
        Ok(())
    }

    /// Fails if a resize from `old` to `new` bytes is sealed.
    ///
    /// # Errors
    /// [`Error::NotPermitted`].
    pub fn check_resize(&self, old: u64, new: u64) -> Result<()> {
        let seals = self.get();
        let shrinks = new < old && seals.contains(Seal::SHRINK);
        let grows = new > old && seals.contains(Seal::GROW);
        if shrinks || grows {
            return Err(Error::NotPermitted);
        }
        Ok(())
    }

    /// Fails if a write that ends at `end` is sealed in a file of `size` bytes.
    ///
    /// # Errors
    /// [`Error::NotPermitted`].
    pub fn check_write(&self, size: u64, end: u64) -> Result<()> {
        if self.get().intersects(Seal::WRITE | Seal::FUTURE_WRITE) {
            return Err(Error::NotPermitted);
        }
        self.check_resize(size, end.max(size))
    }
}
