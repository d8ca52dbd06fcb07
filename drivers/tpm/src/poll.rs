//! Waiting for a device that is asked again and again, asleep in between.

use core::time::Duration;
use machine::thread;
use machine::time::Instant;

/// Pauses between looks: the first, and the longest of those that follow, each twice as
/// long as the one before.
const PAUSE_FIRST: Duration = Duration::from_micros(100);
const PAUSE_LONGEST: Duration = Duration::from_millis(10);

/// The time, in the hands of tests where need be.
pub(crate) trait Clock: Send + Sync {
    fn now(&self) -> Instant;
    fn pause(&self, time: Duration);
}

/// The machine's own.
pub(crate) struct KernelClock;

impl Clock for KernelClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn pause(&self, time: Duration) {
        // A sleep without interruption ends at its time only.
        let _ = thread::sleep_until(Instant::now().after(time), false);
    }
}

/// Looks until there is something, `within` that time: at once, and once more at the end
/// of it, however late the thread comes to run. `None`: it never came.
pub(crate) fn until<T>(
    clock: &impl Clock,
    within: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> Option<T> {
    let end = clock.now().after(within);
    let mut pause = PAUSE_FIRST;
    loop {
        let is_last = clock.now() >= end;
        let seen = look();
        if seen.is_some() || is_last {
            return seen;
        }
        clock.pause(pause);
        pause = (pause * 2).min(PAUSE_LONGEST);
    }
}
