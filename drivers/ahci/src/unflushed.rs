//! What a disk may have lost with its power.
//!
//! A disk that is pulled, or whose plug is loose, comes back with an empty cache, as the
//! same disk and without a word. A flush after that must not vouch for what was written
//! before: the first one fails.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use machine::block::BlockError;

/// The writes of a disk that no flush has made durable.
#[derive(Default)]
pub(crate) struct Unflushed {
    /// Writes that were given to the disk.
    writes: AtomicU64,
    /// How many of them a flush has vouched for.
    flushed: AtomicU64,
    /// Others may be lost, and nobody was told so yet.
    is_lost: AtomicBool,
}

impl Unflushed {
    /// A write was given to the disk.
    pub(crate) fn add(&self) {
        self.writes.fetch_add(1, SeqCst);
    }

    /// The link went down without the driver's doing: the disk may have been without power.
    pub(crate) fn doubt(&self) {
        if self.writes.load(SeqCst) != self.flushed.load(SeqCst) {
            self.is_lost.store(true, SeqCst);
        }
    }

    /// Before a flush: the writes that it is to make durable.
    pub(crate) fn begin(&self) -> u64 {
        self.writes.load(SeqCst)
    }

    /// After a flush of these writes that the disk says went well.
    pub(crate) fn end(&self, writes: u64) -> Result<(), BlockError> {
        self.flushed.fetch_max(writes, SeqCst);
        if self.is_lost.swap(false, SeqCst) {
            return Err(BlockError::Failed);
        }
        Ok(())
    }
}
