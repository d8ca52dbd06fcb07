//! Signal-driven I/O (`O_ASYNC`): a description whose readiness is announced to a
//! process by a signal (fcntl(2), `F_SETOWN`; fcntl(2), "Managing signals").

use crate::error::{Error, Result};
use crate::event::{Events, Observer, Watch};
use crate::file::{OpenFile, OpenFlags};
use alloc::sync::Arc;
use machine::sync::SpinLock;

/// Who gets the signals (`F_SETOWN_EX`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// Nobody does.
    #[default]
    Nobody,
    /// The thread of that number.
    Thread(u32),
    /// The process of that number.
    Process(u32),
    /// The process group of that number.
    Group(u32),
}

/// What is sent to whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// To whom.
    pub owner: Owner,
    /// The number of the signal, or 0 for `SIGIO` without any details (`F_SETSIG`).
    pub signal: u8,
}

/// Who gets the signal. The description and the observer in its hub share it, so that
/// neither keeps the other alive.
#[derive(Default)]
pub struct Recipient(SpinLock<Target>);

impl Recipient {
    /// What to send to whom.
    #[must_use]
    pub fn get(&self) -> Target {
        *self.0.lock()
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
        let recipient = Arc::new(Recipient(SpinLock::new(self.signal_target())));
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

    /// What is sent to whom when it becomes ready.
    #[must_use]
    pub fn signal_target(&self) -> Target {
        *self.target.lock()
    }

    /// Changes that (`F_SETOWN`, `F_SETSIG`), also for signals that are on already.
    pub fn change_signal_target(&self, change: impl FnOnce(&mut Target)) {
        let mut target = self.target.lock();
        change(&mut target);
        let new = *target;
        drop(target);
        if let Some(a) = &*self.signals.lock() {
            *a.recipient.0.lock() = new;
        }
    }
}
