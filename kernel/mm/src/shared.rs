//! Shared memory without a file: `MAP_SHARED | MAP_ANONYMOUS` and System V
//! segments.

use crate::{Backing, BackingError, Description, MappingList, PageCache};
use alloc::string::String;
use alloc::sync::Arc;
use core::ops::Range;
use machine::{Account, Frame};

/// Pages that all who map the object share; zero until written.
pub struct SharedMemory {
    pages: PageCache,
    /// Its length in pages.
    len: u64,
    account: Arc<Account>,
    mappings: MappingList,
    name: String,
    inode: u64,
}

impl SharedMemory {
    /// An object of `pages` pages, which `account` pays for as they are touched.
    /// `name` and `inode` are what `/proc/PID/maps` shows.
    #[must_use]
    pub fn new(account: Arc<Account>, pages: u64, name: String, inode: u64) -> SharedMemory {
        SharedMemory {
            pages: PageCache::new(account.clone()),
            len: pages,
            account,
            mappings: MappingList::new(),
            name,
            inode,
        }
    }

    /// Its length in pages.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no page at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Pages that hold memory now.
    #[must_use]
    pub fn resident(&self) -> usize {
        self.pages.len()
    }
}

impl Backing for SharedMemory {
    fn page(&self, index: u64, _write: bool) -> Result<Frame, BackingError> {
        if index >= self.len {
            return Err(BackingError::PastEnd);
        }
        let make = || Frame::zeroed(&self.account).map_err(crate::Error::from);
        self.pages
            .get_or_try_insert_with(index, make)
            .map_err(|_| BackingError::OutOfMemory)
    }

    fn cached(&self, first: u64, out: &mut [Option<Frame>]) {
        self.pages.get_run(first, out);
    }

    fn identity(&self) -> u64 {
        core::ptr::from_ref(self).addr() as u64
    }

    fn describe(&self) -> Description {
        Description {
            path: self.name.clone(),
            inode: self.inode,
            major: 0,
            minor: 1,
        }
    }

    fn mappings(&self) -> Option<&MappingList> {
        Some(&self.mappings)
    }

    fn punch(&self, range: Range<u64>) -> Result<(), BackingError> {
        self.pages.remove(range.start..range.end.min(self.len));
        self.mappings.unmap(range);
        Ok(())
    }
}
