//! When a CPU looks whether it runs a program or the kernel.
//!
//! A tick comes every [`TICK_NS`] while the CPU has work, and not while it rests: nobody is
//! woken for it. Only a CPU whose rests are all short keeps its tick over them, because to take
//! it back and to set it again would cost more than a tick that finds nothing.

/// Time between two ticks (Linux: 4 or 10 ms).
const TICK_NS: u64 = 10_000_000;

/// The tick of one CPU, which rests at first.
#[derive(Debug)]
pub(crate) struct Tick {
    at: u64,
    /// When it last began to rest; `None` while it has work.
    rests_since: Option<u64>,
    /// Its last rest was shorter than a tick.
    rests_shortly: bool,
}

impl Tick {
    pub(crate) const fn new() -> Tick {
        Tick {
            at: 0,
            rests_since: Some(0),
            rests_shortly: false,
        }
    }

    /// The CPU has work from `now` on, or none any more.
    pub(crate) fn change(&mut self, has_work: bool, now: u64) {
        match (self.rests_since, has_work) {
            (None, false) => self.rests_since = Some(now),
            (Some(since), true) => {
                self.rests_shortly = now.saturating_sub(since) < TICK_NS;
                self.rests_since = None;
            }
            _ => {}
        }
    }

    /// When it comes, if the CPU has work then.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Whether the clock tells of it while the CPU rests.
    pub(crate) fn stays(&self) -> bool {
        self.rests_shortly
    }

    /// It is `now`; whether that is a tick of a CPU that has work.
    pub(crate) fn passes(&mut self, now: u64) -> bool {
        if now < self.at {
            return false;
        }
        self.at = next(now);
        if self.rests_since.is_some() {
            // This rest is no short one.
            self.rests_shortly = false;
        }
        self.rests_since.is_none()
    }

    /// What has passed by `now` came while the CPU rested.
    pub(crate) fn skip(&mut self, now: u64) {
        if self.at <= now {
            self.at = next(now);
        }
    }
}

/// The first tick after `now`. Ticks keep their places in time, so that who begins to run by a
/// timer of its own is not always between two.
fn next(now: u64) -> u64 {
    (now / TICK_NS + 1).saturating_mul(TICK_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_cpu_with_work_ticks_and_one_that_rests_does_not() {
        let mut tick = Tick::new();
        assert!(!tick.stays());
        tick.change(true, 103 * MS);
        tick.skip(103 * MS);
        assert_eq!(tick.at(), 110 * MS);
        assert!(!tick.passes(109 * MS));
        assert!(tick.passes(111 * MS));
        assert_eq!(tick.at(), 120 * MS);
        tick.change(false, 116 * MS);
        assert!(!tick.stays());
        assert!(!tick.passes(125 * MS));
        tick.change(true, 1003 * MS);
        tick.skip(1003 * MS);
        assert_eq!((tick.at(), tick.stays()), (1010 * MS, false));
    }

    #[test]
    fn short_rests_keep_the_tick_and_a_long_one_ends_that() {
        let mut tick = Tick::new();
        for now in [1001, 1003, 1005] {
            tick.change(true, now * MS);
            tick.skip(now * MS);
            tick.change(false, (now + 1) * MS);
        }
        assert_eq!((tick.at(), tick.stays()), (1010 * MS, true));
        assert!(!tick.passes(1010 * MS));
        assert!(!tick.stays());
        tick.change(true, 1017 * MS);
        tick.change(false, 1018 * MS);
        assert!(!tick.stays());
    }
}
