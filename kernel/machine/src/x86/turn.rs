//! When a thread's turn on a CPU began, so that its CPU time can be told while it runs.

use core::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};

/// No turn: the thread does not run.
const NONE: u64 = u64::MAX;

/// The turn of a thread. Its CPU begins and ends it; everybody may read it.
pub(super) struct Turn {
    since: AtomicU64,
    /// Odd while the turn is being added to what the thread has used.
    version: AtomicU32,
}

impl Default for Turn {
    fn default() -> Turn {
        Turn {
            since: AtomicU64::new(NONE),
            version: AtomicU32::new(0),
        }
    }
}

impl Turn {
    /// It runs from `now` on.
    pub(super) fn begin(&self, now: u64) {
        self.since.store(now, Relaxed);
    }

    /// When it began; later than any time if the thread does not run.
    pub(super) fn since(&self) -> u64 {
        self.since.load(Relaxed)
    }

    /// Ends the turn: has `charge` add its length, and returns that.
    pub(super) fn end(&self, now: u64, charge: impl FnOnce(u64)) -> u64 {
        let version = self.version.load(Relaxed);
        self.version.store(version.wrapping_add(1), Relaxed);
        fence(Release);
        let ran = now.saturating_sub(self.since());
        charge(ran);
        self.since.store(NONE, Relaxed);
        self.version.store(version.wrapping_add(2), Release);
        ran
    }

    /// What `charged` gives, and the time since the turn began.
    pub(super) fn total(&self, now: impl Fn() -> u64, charged: impl Fn() -> u64) -> u64 {
        loop {
            let version = self.version.load(Acquire);
            let (charged, since) = (charged(), self.since());
            let now = now();
            fence(Acquire);
            if version & 1 == 0 && self.version.load(Relaxed) == version {
                return charged + now.saturating_sub(since);
            }
            core::hint::spin_loop();
        }
    }
}
