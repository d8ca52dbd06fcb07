//! Signal-driven I/O (`O_ASYNC`): a description whose readiness is announced to a
//! process by a signal (fcntl(2), `F_SETOWN`; fcntl(2), "Managing signals").

use crate::error::{Error, Result};
use crate::event::{Events, Observer, Watch};
use crate::file::{OpenFile, OpenFlags};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicI32, Ordering::Relaxed};

/// Who gets the signal: a process, minus a group, or 0 for nobody. The description
/// and the observer in its hub share it, so that neither keeps the other alive.
#[derive(Debug, Default)]
pub struct Recipient(AtomicI32);

impl Recipient {
    /// Its number.
    #[must_use]
    pub fn get(&self) -> i32 {
        self.0.load(Relaxed)
    }
}

/// What a description with `O_ASYNC` keeps.
pub(crate) struct Async {
    watch: Watch,
    recipient: Arc<Recipient>,
}

impl OpenFile {
    /// Has the observer that `make` gives told of all readiness: sets `O_ASYNC`.
    ///
    /// # Errors
    /// [`Error::NotTerminal`] for what is always ready; [`Error::NoMemory`].
    pub fn start_async(
        &self,
        make: impl FnOnce(Arc<Recipient>) -> Arc<dyn Observer>,
    ) -> Result<()> {
        let hub = self.ops().hub().ok_or(Error::NotTerminal)?;
        if self.flags().contains(OpenFlags::ASYNC) {
            return Ok(());
        }
        let recipient = Arc::new(Recipient::default());
        recipient.0.store(self.owner(), Relaxed);
        let observer = make(recipient.clone());
        let watch = hub.watch(observer, Events::READABLE | Events::WRITABLE, false)?;
        let new = Async { watch, recipient };
        let old = self.signals.lock().replace(new);
        self.set_async_flag(true);
        // Somebody else may have started it at the same time.
        if let Some(old) = old {
            hub.unwatch(old.watch);
        }
        Ok(())
    }

    /// Clears `O_ASYNC`.
    pub fn stop_async(&self) {
        if !self.flags().contains(OpenFlags::ASYNC) {
            return;
        }
        self.set_async_flag(false);
        let old = self.signals.lock().take();
        if let (Some(old), Some(hub)) = (old, self.ops().hub()) {
            hub.unwatch(old.watch);
        }
    }

    /// Tells the observer of a new owner.
    pub(crate) fn note_owner(&self, owner: i32) {
        if let Some(a) = &*self.signals.lock() {
            a.recipient.0.store(owner, Relaxed);
        }
    }
}
