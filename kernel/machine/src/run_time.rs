//! The CPU time of threads.

use crate::arch;
use crate::sync::SpinLock;
use crate::thread::Thread;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use core::time::Duration;

/// How often a thread was met in user mode and in the kernel, and what was told of it last.
#[derive(Default)]
pub(crate) struct Ticks {
    user: AtomicU64,
    kernel: AtomicU64,
    told: SpinLock<Split>,
}

/// Nanoseconds in user mode and in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Split {
    user: u64,
    kernel: u64,
}

impl Split {
    /// Divides `all` as the ticks are, neither part shorter than before. Who was never met in the
    /// kernel has not been there.
    fn of(all: u64, user: u64, kernel: u64, before: Split) -> Split {
        let all = all.max(before.user + before.kernel);
        let ticks = (u128::from(user) + u128::from(kernel)).max(1);
        let share = u128::from(all) * u128::from(kernel) / ticks;
        let kernel = (share as u64).clamp(before.kernel, all - before.user);
        Split {
            user: all - kernel,
            kernel,
        }
    }
}

impl Thread {
    /// CPU time it has used, and the part of that in the kernel.
    #[must_use]
    pub fn run_time(&self) -> (Duration, Duration) {
        let mut told = self.ticks.told.lock();
        let (user, kernel) = (
            self.ticks.user.load(Relaxed),
            self.ticks.kernel.load(Relaxed),
        );
        *told = Split::of(arch::run_ns(self), user, kernel, *told);
        let all = Duration::from_nanos(told.user + told.kernel);
        (all, Duration::from_nanos(told.kernel))
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

    /// The scheduler has met it, in the kernel or not.
    #[cfg_attr(
        not(target_os = "none"),
        expect(dead_code, reason = "the host samples nothing")
    )]
    pub(crate) fn met(&self, in_kernel: bool) {
        let ticks = match in_kernel {
            true => &self.ticks.kernel,
            false => &self.ticks.user,
        };
        ticks.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_part_of_the_time_goes_back(
            steps in prop::collection::vec((0..u64::MAX >> 20, 0..3u64, 0..3u64), 1..60)
        ) {
            let (mut all, mut user, mut kernel) = (0, 0, 0);
            let mut told = Split::default();
            for (more, u, k) in steps {
                (all, user, kernel) = (all + more, user + u, kernel + k);
                let now = Split::of(all, user, kernel, told);
                prop_assert!(now.user >= told.user && now.kernel >= told.kernel);
                prop_assert_eq!(now.user + now.kernel, all);
                told = now;
            }
        }
    }

    #[test]
    fn time_is_divided_as_it_was_met() {
        let told = |all, user, kernel| Split::of(all, user, kernel, Split::default());
        assert_eq!(
            told(700, 0, 0),
            Split {
                user: 700,
                kernel: 0
            }
        );
        assert_eq!(
            told(700, 9, 0),
            Split {
                user: 700,
                kernel: 0
            }
        );
        assert_eq!(
            told(700, 0, 1),
            Split {
                user: 0,
                kernel: 700
            }
        );
        assert_eq!(
            told(700, 3, 4),
            Split {
                user: 300,
                kernel: 400
            }
        );
        let most = told(u64::MAX, u64::MAX, u64::MAX);
        assert_eq!(most.user, most.kernel + 1);
        // One in the kernel after much in user mode takes nothing from what was told.
        let before = Split {
            user: 700,
            kernel: 0,
        };
        assert_eq!(
            Split::of(710, 0, 1, before),
            Split {
                user: 700,
                kernel: 10
            }
        );
    }
}
