//! Nice values: how a group's CPU time is divided between its threads (sched(7)).
//!
//! A thread counts in its group by its weight. The weight changes only while the
//! thread runs, by itself and on its way to user mode: so whoever counts it in or out
//! always uses the same one, and threads that are as nice as all others pay nothing.

use crate::arch;
use crate::thread::Thread;
use core::sync::atomic::Ordering::Relaxed;

/// `log2` of the weight of a thread with nice value 0.
pub(crate) const WEIGHT_SHIFT: u32 = 10;
/// The weight of a thread with nice value 0.
pub(crate) const WEIGHT_0: u32 = 1 << WEIGHT_SHIFT;

/// Weights of the nice values -20 to 19, those of Linux (`sched_prio_to_weight`): one
/// step is a tenth of the CPU time that two threads have between them.
const WEIGHTS: [u32; 40] = [
    88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916, 9548, 7620, 6100, 4904,
    3906, 3121, 2501, 1991, 1586, 1277, 1024, 820, 655, 526, 423, 335, 272, 215, 172, 137, 110, 87,
    70, 56, 45, 36, 29, 23, 18, 15,
];

/// The weight of a thread that is to run when nobody else does (`WEIGHT_IDLEPRIO`).
const WEIGHT_IDLE: u32 = 3;

/// A thread's part of what its group gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// By a nice value, -20 to 19; others are cut to these.
    Nice(i32),
    /// A fifth of the least by a nice value.
    Idle,
}

impl Default for Share {
    fn default() -> Share {
        Share::Nice(0)
    }
}

impl Share {
    fn weight(self) -> u32 {
        match self {
            Share::Nice(nice) => weight(nice),
            Share::Idle => WEIGHT_IDLE,
        }
    }
}

fn weight(nice: i32) -> u32 {
    let at = usize::try_from(nice.saturating_add(20)).unwrap_or(0);
    WEIGHTS.get(at).copied().unwrap_or(15)
}

impl Thread {
    /// Gives it that share from its next return to user mode on.
    pub fn set_share(&self, share: Share) {
        self.wanted_weight.store(share.weight(), Relaxed);
        self.mark_reweighed();
        arch::kick(self);
    }

    /// The same for one that has not started.
    pub(crate) fn born_with(&self, share: Share) {
        self.wanted_weight.store(share.weight(), Relaxed);
        self.weight.store(share.weight(), Relaxed);
    }

    /// Its weight as it counts now.
    #[cfg(target_os = "none")]
    #[inline]
    pub(crate) fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// Has the weight that was asked for count, for the running thread; interrupts are
    /// off.
    #[cfg(target_os = "none")]
    pub(crate) fn settle_weight(&self) {
        if !self.take_reweighed() {
            return;
        }
        let new = self.wanted_weight.load(Relaxed);
        let old = self.weight.swap(new, Relaxed);
        self.group().arch.reweigh(old, new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_tenth_of_the_time() {
        assert_eq!(weight(0), WEIGHT_0);
        assert_eq!((weight(-20), weight(19)), (88761, 15));
        assert_eq!((weight(-100), weight(100)), (88761, 15));
        for nice in -20..19 {
            let (more, less) = (f64::from(weight(nice)), f64::from(weight(nice + 1)));
            let share = more / (more + less);
            assert!((0.54..0.57).contains(&share), "{nice}: {share}");
        }
    }
}
