//! Pages for stream buffers, used again while they are warm.
//!
//! A fresh frame must be zeroed; one that held this capsule's bytes a moment ago
//! need not be, because a ring never shows what was not written. A pool belongs
//! to one network stack, so no byte crosses from one capsule to another.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use machine::sync::SpinLock;
use machine::{Account, AllocError, Frame};

/// Most pages a pool keeps while nobody needs them.
const SPARE_MAX: usize = 64;

/// Where the rings of a stack get their pages.
pub struct PagePool {
    account: Arc<Account>,
    spare: SpinLock<Vec<Frame>>,
    /// The capsule has ended: nothing is kept any more.
    closed: AtomicBool,
}

impl PagePool {
    /// A pool whose pages `account` pays for.
    #[must_use]
    pub fn new(account: Arc<Account>) -> PagePool {
        PagePool {
            account,
            spare: SpinLock::new(Vec::new()),
            closed: AtomicBool::new(false),
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
        let spare = self.spare.lock().pop();
        match spare {
            Some(f) => Ok(f),
            None => Frame::zeroed(&self.account),
        }
    }

    /// Takes a page back. Pages that somebody else still refers to (file pages
    /// that `sendfile` put into a ring) are let go.
    pub(crate) fn give(&self, frame: Frame) {
        if self.closed.load(Ordering::Relaxed) || frame.references() != 1 || frame.is_fixed() {
            return;
        }
        let mut spare = self.spare.lock();
        if spare.len() < SPARE_MAX && spare.try_reserve(1).is_ok() {
            spare.push(frame);
        }
    }

    /// Lets all spare pages go, and keeps none from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let all = core::mem::take(&mut *self.spare.lock());
        drop(all);
    }
}
