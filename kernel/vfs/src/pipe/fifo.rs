//! Opening a named pipe, which waits for the other side (fifo(7)).

use super::{Pipe, PipeEnd};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::file::{FileOps, OpenFlags};
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use machine::Account;
use machine::sync::SpinLock;
use machine::wait::Until;

/// The pipe behind a name, while somebody has it open.
pub struct FifoSlot {
    account: Arc<Account>,
    pipe: SpinLock<Weak<Pipe>>,
}

impl FifoSlot {
    /// A name nobody has open. `account` pays for the pipe.
    #[must_use]
    pub fn new(account: Arc<Account>) -> FifoSlot {
        FifoSlot {
            account,
            pipe: SpinLock::new(Weak::new()),
        }
    }

    /// Opens the pipe, waiting for the other side unless `flags` say not to.
    ///
    /// # Errors
    /// [`Error::NoDevice`] for a writer that may not wait while nobody reads;
    /// [`Error::Interrupted`].
    pub fn open(&self, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        let (reads, writes) = (flags.reads(), flags.writes());
        let wait = !flags.contains(OpenFlags::NONBLOCK);
        let pipe = self.pipe();
        if writes && !reads && !wait && pipe.readers.load(Relaxed) == 0 {
            return Err(Error::NoDevice);
        }
        let readers = pipe.readers_seen.load(Relaxed);
        let writers = pipe.writers_seen.load(Relaxed);
        let end = PipeEnd::new(&pipe, reads, writes);
        // Those who wait for this side sit in the hub's queues.
        pipe.hub.notify(Events::READABLE | Events::WRITABLE);
        if wait && reads && !writes {
            wait_for(&pipe, &pipe.writers, &pipe.writers_seen, writers)?;
        }
        if wait && writes && !reads {
            wait_for(&pipe, &pipe.readers, &pipe.readers_seen, readers)?;
        }
        Ok(Arc::new(end))
    }

    fn pipe(&self) -> Arc<Pipe> {
        let mut slot = self.pipe.lock();
        if let Some(p) = slot.upgrade() {
            return p;
        }
        let new = Pipe::new(self.account.clone());
        *slot = Arc::downgrade(&new);
        new
    }
}

/// Waits until the other side is there, or was there since `before`.
fn wait_for(pipe: &Pipe, now: &AtomicUsize, seen: &AtomicU64, before: u64) -> Result<()> {
    let come = || now.load(Relaxed) > 0 || seen.load(Relaxed) != before;
    pipe.hub
        .wait_readable(Until::INTERRUPTED, || come().then_some(()))
}
