//! What a mapping asks of the object behind it.

use crate::{BackingError, MappingList};
use alloc::string::String;
use core::ops::Range;
use machine::Frame;

/// The object behind a mapping that is not private anonymous memory: a file, a
/// shared-memory object, the vDSO.
///
/// # Locks
/// [`Backing::page`] and [`Backing::cached`] are called with the lock over the
/// space's areas held for reading, and may sleep. They must not need a lock that
/// their object holds while it copies from or to user memory: the copy may fault
/// on a mapping of the same object.
///
/// An object whose pages can go away (truncation, hole punching) removes them
/// from its own cache first and calls [`MappingList::unmap`] then.
pub trait Backing: Send + Sync {
    /// The frame that holds page `index`. Bytes past the end of the object in its
    /// last page are zero. With `write` the caller is about to write to it through
    /// a shared mapping: the page must be allocated, is dirty from now on, and the
    /// frame must not be a fixed one.
    ///
    /// # Errors
    /// [`BackingError`].
    fn page(&self, index: u64, write: bool) -> Result<Frame, BackingError>;

    /// Puts those pages of `first..first + out.len()` into `out` that are at hand
    /// without waiting, so that one fault maps neighbours too.
    fn cached(&self, first: u64, out: &mut [Option<Frame>]) {
        let _ = (first, out);
    }

    /// A number that all backings of the same bytes share and no others do while
    /// one of them lives (the address of the inode): key of shared futexes.
    fn identity(&self) -> u64;

    /// What `/proc/PID/maps` says about it.
    fn describe(&self) -> Description;

    /// The list of spaces that map the object, if its pages can ever go away.
    fn mappings(&self) -> Option<&MappingList> {
        None
    }

    /// Whether the first write to a clean page must be announced by
    /// [`Backing::page`] even when the page was read before.
    fn tracks_writes(&self) -> bool {
        false
    }

    /// Writes dirty pages of `range` back and waits for them (`msync`).
    ///
    /// # Errors
    /// [`BackingError`].
    fn sync(&self, range: Range<u64>) -> Result<(), BackingError> {
        let _ = range;
        Ok(())
    }

    /// Frees the pages of `range`, which read as zeros then (`MADV_REMOVE`).
    ///
    /// # Errors
    /// [`BackingError::Unsupported`] unless the object can have holes.
    fn punch(&self, range: Range<u64>) -> Result<(), BackingError> {
        let _ = range;
        Err(BackingError::Unsupported)
    }
}

/// How a mapping appears in `/proc/PID/maps`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Path, or a name in brackets.
    pub path: String,
    /// Inode number; 0 for none.
    pub inode: u64,
    /// Major device number.
    pub major: u32,
    /// Minor device number.
    pub minor: u32,
}
