//! Pages for stream buffers, used again while they are warm.
//!
//! A fresh frame must be zeroed; one that held this capsule's bytes a moment ago
//! need not be, because a ring never shows what was not written. A pool belongs
//! to one network stack, so no byte crosses from one capsule to another.

use crate::spares::Spares;
use alloc::sync::Arc;
use machine::{Account, AllocError, Frame};

/// Most pages a pool keeps while nobody needs them.
const SPARE_MAX: usize = 64;

/// Where the rings of a stack get their pages.
pub struct PagePool {
    account: Arc<Account>,
    spare: Spares<Frame>,
}

impl PagePool {
    /// A pool whose pages `account` pays for.
    #[must_use]
    pub fn new(account: Arc<Account>) -> PagePool {
        PagePool {
            account,
            spare: Spares::new(),
        }
    }

    /// Who pays.
    #[must_use]
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// A page with bytes that nobody may be shown.
    ///
    /// # Errors
    /// As [`Frame::zeroed`].
    pub(crate) fn take(&self) -> Result<Frame, AllocError> {
        match self.spare.take(|_| true) {
            Some(f) => Ok(f),
            None => Frame::zeroed(&self.account),
        }
    }

    /// Takes a page back. Pages that somebody else still refers to (file pages
    /// that `sendfile` put into a ring) are let go.
    pub(crate) fn give(&self, frame: Frame) {
        if frame.references() == 1 && !frame.is_fixed() {
            self.spare.keep(frame, |kept| kept.len() < SPARE_MAX);
        }
    }

    /// The capsule has ended: lets all spare pages go, and keeps none from now on.
    pub(crate) fn close(&self) {
        self.spare.close();
    }
}
