//! What the scheduler keeps of a group of threads: what it wants to run, and its quota.

use super::clock;
use crate::thread::CpuGroup;
use crate::time::Instant;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// The period over which a group's quota is counted.
const PERIOD_NS: u64 = 100_000_000;

/// What the scheduler keeps of a group.
#[derive(Debug)]
pub(crate) struct GroupState {
    /// Weights of the threads that run or want to.
    pub(super) runnable: AtomicUsize,
    period: AtomicU64,
    period_used: AtomicU64,
}

impl GroupState {
    pub(crate) fn new() -> GroupState {
        GroupState {
            runnable: AtomicUsize::new(0),
            period: AtomicU64::new(0),
            period_used: AtomicU64::new(0),
        }
    }

    /// A thread that runs counts otherwise from now on.
    pub(crate) fn reweigh(&self, old: u32, new: u32) {
        // Added first: the sum never comes to less than what runs.
        self.runnable.fetch_add(new as usize, Relaxed);
        self.runnable.fetch_sub(old as usize, Relaxed);
    }
}

/// What a group may use in a period.
fn allowed(quota_per_mille: u64) -> u64 {
    quota_per_mille.saturating_mul(PERIOD_NS / 1000).max(1)
}

/// Counts `ran` against the quota. What was used beyond it is paid off in the
/// periods that follow.
pub(super) fn use_quota(group: &CpuGroup, quota: u64, now: u64, ran: u64) {
    let period = now / PERIOD_NS;
    let passed = period.saturating_sub(group.arch.period.swap(period, Relaxed));
    if passed > 0 {
        let paid = allowed(quota).saturating_mul(passed);
        let used = group.arch.period_used.load(Relaxed);
        group
            .arch
            .period_used
            .store(used.saturating_sub(paid), Relaxed);
    }
    group.arch.period_used.fetch_add(ran, Relaxed);
}

/// When a thread of a group that has used up its quota may run again.
pub(super) fn throttled_until(group: &CpuGroup) -> Option<Instant> {
    let allowed = allowed(group.quota_per_mille()?);
    let now = clock::monotonic_ns();
    let period = group.arch.period.load(Relaxed);
    // The first period in which less than all is used up.
    let first = period + group.arch.period_used.load(Relaxed) / allowed;
    (first > now / PERIOD_NS).then(|| Instant(first * PERIOD_NS))
}
