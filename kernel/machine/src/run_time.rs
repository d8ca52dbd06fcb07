//! The CPU time of threads.

use crate::arch;
use crate::thread::Thread;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;

impl Thread {
    /// CPU time it has used, and the part of that in the kernel.
    #[must_use]
    pub fn run_time(&self) -> (Duration, Duration) {
        let kernel = self.kernel_ns.load(Relaxed);
        let all = arch::run_ns(self);
        (Duration::from_nanos(all), Duration::from_nanos(kernel))
    }

    /// CPU time of the turns it has ended.
    pub(crate) fn charged_ns(&self) -> u64 {
        self.run_ns.load(Relaxed)
    }

    /// The scheduler's book-keeping.
    #[cfg(target_os = "none")]
    pub(crate) fn charge_run(&self, ns: u64) {
        self.run_ns.fetch_add(ns, Relaxed);
        self.group().run_ns.fetch_add(ns, Relaxed);
    }

    /// The scheduler's book-keeping of time seen in the kernel.
    #[cfg_attr(
        not(target_os = "none"),
        expect(dead_code, reason = "the host samples nothing")
    )]
    pub(crate) fn charge_kernel(&self, ns: u64) {
        self.kernel_ns.fetch_add(ns, Relaxed);
    }
}
