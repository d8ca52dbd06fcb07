//! What is due when a thread that was switched out goes on in user mode, for the few that
//! want to know.

#[cfg(target_os = "none")]
use crate::arch;
use crate::thread::{SWITCHED, Thread};
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

/// The hook wants to know: see [`Thread::watch_switches`].
const FOR_HOOK: u8 = 1;
/// It has break points, to be loaded anew: see `breakpoints`.
const FOR_BREAKPOINTS: u8 = 2;

impl Thread {
    /// Has [`crate::thread::Hooks::switched`] called before user mode goes on after each time the
    /// thread was switched out, and the next time in any case; or not any more.
    pub fn watch_switches(&self, on: bool) {
        self.watch(FOR_HOOK, on);
    }

    /// Has its break points loaded whenever it goes on in user mode after it was switched
    /// out, and taken away when it is; or not any more.
    pub(crate) fn watch_for_breakpoints(&self, on: bool) {
        self.watch(FOR_BREAKPOINTS, on);
    }

    fn watch(&self, what: u8, on: bool) {
        if on {
            self.watches_switches.fetch_or(what, Relaxed);
            self.mark_switched();
        } else {
            self.watches_switches.fetch_and(!what, Relaxed);
        }
    }

    /// Acts as if it had been switched out, if it watches for that.
    #[inline]
    pub fn mark_switched(&self) {
        if self.watches_switches.load(Relaxed) != 0 {
            self.due.fetch_or(SWITCHED, SeqCst);
        }
    }

    /// It is being switched out, by the CPU that does it. One look tells of all that is to
    /// be done for few threads only.
    #[cfg(target_os = "none")]
    #[inline]
    pub(crate) fn note_switch(&self) {
        let watches = self.watches_switches.load(Relaxed);
        if watches != 0 {
            self.due.fetch_or(SWITCHED, SeqCst);
            if watches & FOR_BREAKPOINTS != 0 {
                arch::unload_breakpoints();
            }
        }
    }

    /// Whether the hook watches for switches, and whether it has break points.
    #[cfg(target_os = "none")]
    pub(crate) fn watches(&self) -> (bool, bool) {
        let watches = self.watches_switches.load(Relaxed);
        (watches & FOR_HOOK != 0, watches & FOR_BREAKPOINTS != 0)
    }

    /// Whether it was switched out since the last call.
    #[cfg(target_os = "none")]
    pub(crate) fn take_switched(&self) -> bool {
        self.due.fetch_and(!SWITCHED, SeqCst) & SWITCHED != 0
    }
}
