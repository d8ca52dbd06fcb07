//! Clocks.
//!
//! [`Instant`] counts nanoseconds since boot and never goes back
//! (`CLOCK_MONOTONIC`); [`wall`] is UTC (`CLOCK_REALTIME`), which can be set.

use crate::arch;
use core::sync::atomic::{AtomicI64, Ordering::Relaxed};
use core::time::Duration;

/// Nanoseconds since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// Now.
    #[must_use]
    pub fn now() -> Instant {
        Instant(arch::monotonic_ns())
    }

    /// This instant plus `d`, at the latest the end of time.
    #[must_use]
    pub fn after(self, d: Duration) -> Instant {
        Instant(
            self.0
                .saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// Time from `earlier` to here, zero if it is later.
    #[must_use]
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// UTC at boot in nanoseconds since 1970.
static WALL_OFFSET: AtomicI64 = AtomicI64::new(0);

/// UTC as nanoseconds since 1970-01-01.
#[must_use]
pub fn wall() -> i64 {
    WALL_OFFSET
        .load(Relaxed)
        .saturating_add_unsigned(Instant::now().0)
}

/// What [`wall`] is more than [`Instant::now`], in nanoseconds.
#[must_use]
pub fn wall_offset() -> i64 {
    WALL_OFFSET.load(Relaxed)
}

/// Sets UTC.
pub fn set_wall(ns: i64) {
    WALL_OFFSET.store(ns.saturating_sub_unsigned(Instant::now().0), Relaxed);
    crate::vdso::publish();
}
