//! Seals of a memfd (fcntl(2), "File Sealing").

use crate::error::{Error, Result};
use bitflags::bitflags;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

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

/// The seals of one file, and how many mappings may write to it: a seal against writing is not
/// given while there is one, and none begins after it.
pub struct Seals(AtomicU64);

/// One mapping more that may write, above the seals.
const WRITER: u64 = 1 << 32;

impl Seals {
    /// No seals; none can be added unless `open`.
    #[must_use]
    pub fn new(open: bool) -> Seals {
        let first = if open { Seal::empty() } else { Seal::SEAL };
        Seals(AtomicU64::new(first.bits().into()))
    }

    /// The seals now.
    #[must_use]
    pub fn get(&self) -> Seal {
        seals(self.0.load(Relaxed))
    }

    /// Adds `more`.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] once it is sealed against that, [`Error::Busy`] for
    /// [`Seal::WRITE`] while a shared mapping may write.
    pub fn add(&self, more: Seal) -> Result<()> {
        let mut now = self.0.load(Relaxed);
        loop {
            if seals(now).contains(Seal::SEAL) {
                return Err(Error::NotPermitted);
            }
            if more.contains(Seal::WRITE) && now >= WRITER {
                return Err(Error::Busy);
            }
            let new = now | u64::from(more.bits());
            match self.0.compare_exchange_weak(now, new, Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => now = other,
            }
        }
    }

    /// Counts a mapping that may write, which [`Seals::end_writer`] takes back.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] if writing is sealed.
    pub(crate) fn begin_writer(&self) -> Result<()> {
        let open = |now| (!is_sealed(now)).then_some(now + WRITER);
        let counted = self.0.fetch_update(Relaxed, Relaxed, open);
        counted.map(drop).map_err(|_| Error::NotPermitted)
    }

    pub(crate) fn end_writer(&self) {
        self.0.fetch_sub(WRITER, Relaxed);
    }

    /// Whether nothing new may write.
    #[must_use]
    pub fn seal_writes(&self) -> bool {
        is_sealed(self.0.load(Relaxed))
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
        if self.seal_writes() {
            return Err(Error::NotPermitted);
        }
        self.check_resize(size, end.max(size))
    }
}

fn seals(now: u64) -> Seal {
    Seal::from_bits_truncate(now as u32)
}

fn is_sealed(now: u64) -> bool {
    seals(now).intersects(Seal::WRITE | Seal::FUTURE_WRITE)
}
