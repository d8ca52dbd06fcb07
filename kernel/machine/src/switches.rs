//! What is due when a thread that was switched out goes on in user mode, for the few that
//! want to know.

#[cfg(target_os = "none")]
use crate::arch;
use crate::thread::{SWITCHED, Thread};
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

/// Its break points were taken out of the processor. (The highest bit: a look at the sign
/// of the byte tells.)
const UNLOADED: u8 = 0x80;

impl Thread {
    /// Has [`crate::thread::Hooks::switched`] called before user mode goes on after each time the
    /// thread was switched out, and the next time in any case; or not any more. A thread that
    /// gave the CPU up in a system call and goes on on the same one is not told of.
    pub fn watch_switches(&self, on: bool) {
        self.watch(SWITCHED, on);
        if on {
            self.mark_switched();
        }
    }

    /// Has its break points loaded whenever it goes on in user mode after it was switched
    /// out, and taken away when it is; or not any more.
    pub(crate) fn watch_for_breakpoints(&self, on: bool) {
        self.watch(UNLOADED, on);
    }

    fn watch(&self, what: u8, on: bool) {
        match on {
            true => self.watches_switches.fetch_or(what, Relaxed),
            false => self.watches_switches.fetch_and(!what, Relaxed),
        };
    }

    /// Acts as if it had been switched out, if it watches for that.
    #[inline]
    pub fn mark_switched(&self) {
        if self.watches_switches.load(Relaxed) & SWITCHED != 0 {
            self.due.fetch_or(SWITCHED, SeqCst);
        }
    }

    /// It is being switched out, by the CPU that does it, and `in_call` says whether it is in a
    /// system call: what it watches for is due.
    #[cfg(target_os = "none")]
    #[inline]
    pub(crate) fn note_switch(&self, in_call: impl FnOnce() -> bool) {
        let watches = self.watches_switches.load(Relaxed);
        if watches.cast_signed() < 0 {
            arch::unload_breakpoints();
        }
        let due = match watches & SWITCHED != 0 && in_call() {
            true => watches & !SWITCHED,
            false => watches,
        };
        if due != 0 {
            self.due.fetch_or(due, SeqCst);
        }
    }

    /// Whether it was switched out since the last call.
    #[cfg(target_os = "none")]
    pub(crate) fn take_switched(&self) -> bool {
        self.due.fetch_and(!SWITCHED, SeqCst) & SWITCHED != 0
    }

    /// Whether its break points were taken away since the last call.
    #[cfg(target_os = "none")]
    pub(crate) fn take_unloaded(&self) -> bool {
        self.due.fetch_and(!UNLOADED, SeqCst) & UNLOADED != 0
    }
}
