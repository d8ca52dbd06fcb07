//! Files of a tmpfs as programs map them.

use super::{PAGE, TmpFile};
use crate::error::{Error, Result};
use crate::file::FileOps;
use crate::mount::Path;
use alloc::string::String;
use alloc::sync::Arc;
use core::ops::Range;
use machine::Frame;
use mm::{Backing, BackingError, Description, MappingList};

/// A file as it is mapped: the inode, and the path for `/proc/PID/maps`.
pub(super) struct FileMapping {
    file: Arc<TmpFile>,
    path: Option<Path>,
    /// Among those that may write, which hold off seals.
    counted: bool,
}

impl FileMapping {
    /// # Errors
    /// [`Error::NotPermitted`] if it is to write and that is sealed.
    pub(super) fn new(file: Arc<TmpFile>, path: Option<Path>, to_write: bool) -> Result<Self> {
        let seals = file.seals().filter(|_| to_write);
        if let Some(seals) = seals {
            seals.begin_writer()?;
        }
        let counted = seals.is_some();
        Ok(FileMapping {
            file,
            path,
            counted,
        })
    }
}

impl Drop for FileMapping {
    fn drop(&mut self) {
        if self.counted
            && let Some(seals) = self.file.seals()
        {
            seals.end_writer();
        }
    }
}

impl Backing for FileMapping {
    fn page(&self, index: u64, write: bool) -> core::result::Result<Frame, BackingError> {
        let file = &self.file;
        if index >= file.len().div_ceil(PAGE) {
            return Err(BackingError::PastEnd);
        }
        let page = if write {
            file.page_to_write(index)
        } else {
            // A hole gets its page at the first touch: later writes must reach
            // those who have it mapped.
            match file.page_to_read(index) {
                Ok(Some(f)) => Ok(f),
                Ok(None) => file.page_to_write(index),
                Err(e) => Err(e),
            }
        };
        if write && page.is_ok() {
            file.node.attr.touch_modified();
        }
        page.map_err(|e| match e {
            Error::NoMemory => BackingError::OutOfMemory,
            _ => BackingError::Io,
        })
    }

    fn cached(&self, first: u64, out: &mut [Option<Frame>]) {
        let end = self.file.len().div_ceil(PAGE);
        let n = usize::try_from(end.saturating_sub(first)).unwrap_or(usize::MAX);
        let (out, _) = out.split_at_mut(n.min(out.len()));
        self.file.pages.get_run(first, out);
    }

    fn identity(&self) -> u64 {
        Arc::as_ptr(&self.file).addr() as u64
    }

    fn describe(&self) -> Description {
        let attr = &self.file.node.attr;
        let mut path = String::new();
        match &self.path {
            // What is nested too deep for a path shows none.
            Some(p) => {
                let text = p.display_from_top().unwrap_or_default();
                path.push_str(&String::from_utf8_lossy(&text));
            }
            None => FileOps::name(&*self.file, &mut path),
        }
        Description {
            path,
            inode: attr.ino,
            major: 0,
            minor: (attr.dev & 0xff | attr.dev >> 12 & 0xfff_ff00) as u32,
        }
    }

    fn mappings(&self) -> Option<&MappingList> {
        Some(&self.file.mappings)
    }

    fn tracks_writes(&self) -> bool {
        // The first write to a lower page has to copy it up.
        self.file.lower.is_some()
    }

    fn punch(&self, range: Range<u64>) -> core::result::Result<(), BackingError> {
        let _io = self.file.io.lock();
        let end = range.end.saturating_mul(PAGE).min(self.file.len());
        let start = range.start.saturating_mul(PAGE).min(end);
        let cleared = self.file.clear(start..end);
        cleared.map_err(|_| BackingError::OutOfMemory)
    }
}
