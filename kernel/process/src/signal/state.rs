//! The signal state of a thread.

use super::number::{SigSet, UNSTOPPABLE};
use super::queue::Queue;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use machine::sync::SpinLock;

/// The alternate signal stack (sigaltstack(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AltStack {
    /// Lowest address.
    pub base: usize,
    /// Bytes; 0 if there is none.
    pub size: usize,
    /// Disabled while a handler runs on it (`SS_AUTODISARM`).
    pub autodisarm: bool,
}

impl AltStack {
    /// Whether a program with the stack pointer `sp` runs on it.
    #[must_use]
    pub fn holds(&self, sp: usize) -> bool {
        !self.autodisarm && self.covers(sp)
    }

    /// Whether `sp` lies in it (a stack grows down, so its end counts).
    pub(crate) fn covers(&self, sp: usize) -> bool {
        sp > self.base && sp - self.base <= self.size
    }
}

/// An interrupted call that `restart_syscall` goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// A sleep until a time of a clock.
    Sleep {
        /// `CLOCK_*`.
        clock: i32,
        /// Nanoseconds of that clock.
        deadline: i64,
        /// Where the time left goes, or 0.
        remaining: usize,
    },
    /// `FUTEX_WAIT` until a time since boot.
    Futex {
        /// The word.
        addr: usize,
        /// What it has to be.
        expected: u32,
        /// Which wakes count.
        bitset: u32,
        /// Whether other processes may wake it.
        shared: bool,
        /// Nanoseconds since boot; `u64::MAX` for none.
        deadline: u64,
    },
}

/// What the processor said about the last fault, for `sigcontext`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trap {
    pub(crate) number: u64,
    pub(crate) error: u64,
    pub(crate) addr: u64,
}

/// Mask, pending signals and what belongs to handlers.
#[derive(Default)]
pub struct ThreadSignals {
    /// Changed by the thread itself alone.
    blocked: AtomicU64,
    /// Blocked, but waited for by `rt_sigtimedwait`: such a signal is kept even
    /// if it would be ignored otherwise.
    awaited: AtomicU64,
    pub(crate) pending: SpinLock<Queue>,
    /// A copy of the queue's set, to look at without the lock.
    pub(crate) pending_set: AtomicU64,
    /// The mask to come back to after a call that changed it for its own time.
    saved: AtomicU64,
    has_saved: AtomicBool,
    pub(crate) alt_stack: SpinLock<AltStack>,
    pub(crate) restart: SpinLock<Option<Restart>>,
    pub(crate) trap: SpinLock<Trap>,
    /// This thread has stopped, for the group stop in force.
    pub(crate) stopped: AtomicBool,
}

impl ThreadSignals {
    pub(crate) fn new(blocked: SigSet) -> ThreadSignals {
        let s = ThreadSignals::default();
        s.blocked.store(blocked.0, Relaxed);
        s
    }

    /// Signals it blocks.
    #[inline]
    #[must_use]
    pub fn blocked(&self) -> SigSet {
        SigSet(self.blocked.load(Relaxed))
    }

    /// Signals it blocks or waits for: such a signal becomes pending even where
    /// its disposition is to be ignored.
    pub(crate) fn keeps(&self) -> SigSet {
        self.blocked().or(SigSet(self.awaited.load(Relaxed)))
    }

    pub(crate) fn store_blocked(&self, mask: SigSet) {
        // Ordered with the sender's look at it, which follows its push.
        self.blocked.store(mask.without(UNSTOPPABLE).0, SeqCst);
    }

    pub(crate) fn set_awaited(&self, set: SigSet) {
        self.awaited.store(set.0, SeqCst);
    }

    /// Signals pending for this thread alone.
    pub(crate) fn pending_set(&self) -> SigSet {
        SigSet(self.pending_set.load(SeqCst))
    }

    /// Remembers the mask to come back to.
    pub(crate) fn save_mask(&self, mask: SigSet) {
        self.saved.store(mask.0, Relaxed);
        self.has_saved.store(true, Relaxed);
    }

    /// Takes the mask to come back to out, if there is one.
    pub(crate) fn take_saved(&self) -> Option<SigSet> {
        // Only the thread itself comes here.
        if !self.has_saved.load(Relaxed) {
            return None;
        }
        self.has_saved.store(false, Relaxed);
        Some(SigSet(self.saved.load(Relaxed)))
    }

    /// The alternate stack.
    #[must_use]
    pub fn alt_stack(&self) -> AltStack {
        *self.alt_stack.lock()
    }

    /// Sets the alternate stack.
    pub fn set_alt_stack(&self, stack: AltStack) {
        *self.alt_stack.lock() = stack;
    }

    /// Says how `restart_syscall` goes on with the call that was interrupted.
    pub fn set_restart(&self, restart: Restart) {
        *self.restart.lock() = Some(restart);
    }

    /// Takes out what [`ThreadSignals::set_restart`] said.
    pub fn take_restart(&self) -> Option<Restart> {
        self.restart.lock().take()
    }
}
