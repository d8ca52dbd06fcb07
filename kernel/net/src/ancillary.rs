//! Control data that travels with bytes between local sockets: open files and
//! the sender's identity (unix(7)).

use crate::error::{Error, Result};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};
use smallvec::SmallVec;
use vfs::OpenFile;

/// Most files in one message (`SCM_MAX_FD`).
pub const FILES_MAX: usize = 253;
/// Most files that may be in flight in one network stack.
pub const IN_FLIGHT_MAX: usize = 4096;

/// Who sent a message, or who connected (`struct ucred`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Identity {
    /// Process id in the capsule.
    pub pid: u32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// Files on their way. Counted, so that a capsule cannot hide any number of them
/// in sockets.
pub struct Files {
    list: SmallVec<[Arc<OpenFile>; 4]>,
    count: Arc<AtomicUsize>,
}

impl Files {
    /// Puts `list` into flight; `count` is the stack's number of files in flight.
    ///
    /// # Errors
    /// [`Error::TooManyReferences`] past [`IN_FLIGHT_MAX`], and [`Error::INVALID`]
    /// past [`FILES_MAX`].
    pub(crate) fn new(
        list: SmallVec<[Arc<OpenFile>; 4]>,
        count: &Arc<AtomicUsize>,
    ) -> Result<Files> {
        if list.len() > FILES_MAX {
            return Err(Error::INVALID);
        }
        let before = count.fetch_add(list.len(), Ordering::Relaxed);
        let files = Files {
            list,
            count: count.clone(),
        };
        if before.saturating_add(files.list.len()) > IN_FLIGHT_MAX {
            return Err(Error::TooManyReferences);
        }
        Ok(files)
    }

    /// The files, still in flight.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<OpenFile>> {
        self.list.iter()
    }

    /// The files, landed.
    pub(crate) fn take(mut self) -> SmallVec<[Arc<OpenFile>; 4]> {
        self.count.fetch_sub(self.list.len(), Ordering::Relaxed);
        core::mem::take(&mut self.list)
    }

    /// The same files once more, for a reader that only looks (`MSG_PEEK`).
    pub(crate) fn again(&self) -> Files {
        self.count.fetch_add(self.list.len(), Ordering::Relaxed);
        Files {
            list: self.list.clone(),
            count: self.count.clone(),
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.count.fetch_sub(self.list.len(), Ordering::Relaxed);
    }
}

/// Control data of one message.
#[derive(Default)]
pub struct Ancillary {
    /// Files (`SCM_RIGHTS`).
    pub files: Option<Files>,
    /// The sender (`SCM_CREDENTIALS`).
    pub sender: Option<Identity>,
}

impl Ancillary {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_none() && self.sender.is_none()
    }

    /// A copy for a reader that only looks.
    pub(crate) fn again(&self) -> Ancillary {
        Ancillary {
            files: self.files.as_ref().map(Files::again),
            sender: self.sender,
        }
    }
}
