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

    /// The CPU has work from `now` on, or none.
    pub(crate) fn turn(&mut self, has_work: bool, now: u64) {
        match (self.rests_since, has_work) {
            (None, false) => self.rests_since = Some(now),
            (Some(since), true) => {
                self.rests_shortly = now.saturating_sub(since) < TICK_NS;
                self.rests_since = None;
            }
            _ => {}
        }
        if self.at <= now {
            self.at = next(now);
        }
    }

    /// When the clock has to tell of the next tick; `u64::MAX` for never.
    pub(crate) fn due(&self) -> u64 {
        match self.rests_since.is_some() && !self.rests_shortly {
            true => u64::MAX,
            false => self.at,
        }
    }

    /// The clock says that it is `now`; whether that is a tick of a CPU that has work.
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
        assert_eq!(tick.due(), u64::MAX);
        tick.turn(true, 103 * MS);
        assert_eq!(tick.due(), 110 * MS);
        assert!(!tick.passes(109 * MS));
        assert!(tick.passes(111 * MS));
        assert_eq!(tick.due(), 120 * MS);
        // Another thread's turn changes nothing.
        tick.turn(true, 115 * MS);
        assert_eq!(tick.due(), 120 * MS);
        tick.turn(false, 116 * MS);
        assert_eq!(tick.due(), u64::MAX);
        assert!(!tick.passes(125 * MS));
        tick.turn(true, 1003 * MS);
        assert_eq!(tick.due(), 1010 * MS);
    }

    #[test]
    fn short_rests_keep_the_tick_and_a_long_one_ends_that() {
        let mut tick = Tick::new();
        for now in [1001, 1003, 1005] {
            tick.turn(true, now * MS);
            tick.turn(false, (now + 1) * MS);
        }
        assert_eq!(tick.due(), 1010 * MS);
        assert!(!tick.passes(1010 * MS));
        assert_eq!(tick.due(), u64::MAX);
        tick.turn(true, 1017 * MS);
        tick.turn(false, 1018 * MS);
        assert_eq!(tick.due(), u64::MAX);
    }
}
