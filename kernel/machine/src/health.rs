//! Whether every CPU still runs threads, and the timers' thread its timers.
//!
//! A thread on each CPU, and a timer, count a step every few seconds: that needs the
//! CPU's clock event, its interrupts, its scheduler and a kernel that gives way. Who
//! watches looks whether all have counted since the last look. Looks are counted and not time, so
//! that a machine that was stopped as a whole and goes on is not taken for sick.

use crate::cpu::{self, CPUS_MAX};
use crate::error::AllocError;
use crate::sync::Once;
use crate::thread::{self, Builder};
use crate::time::Instant;
use crate::timer::Timer;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use core::time::Duration;

/// Time between two steps of each part.
pub const STEP: Duration = Duration::from_secs(4);

/// Who counts steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The CPU of this number.
    Cpu(usize),
    /// The thread that runs timers.
    Timers,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Cpu(n) => write!(f, "CPU {n}"),
            Part::Timers => f.write_str("the timers' thread"),
        }
    }
}

/// The steps of all parts: CPUs by number, the timers last.
struct Steps {
    cpus: [AtomicU64; CPUS_MAX],
    timers: AtomicU64,
    timer: Once<Timer>,
}

static STEPS: Steps = Steps {
    cpus: [const { AtomicU64::new(0) }; CPUS_MAX],
    timers: AtomicU64::new(0),
    timer: Once::new(),
};

/// What was seen of each part.
#[derive(Clone, Copy, Debug)]
struct Seen {
    part: Part,
    steps: u64,
    /// Looks in a row without a step.
    missed: u32,
}

/// One who looks.
#[derive(Clone, Debug)]
pub struct Pulse {
    parts: Vec<Seen>,
}

impl Pulse {
    /// Lets the CPUs there are and the timers count. To be called once.
    ///
    /// # Errors
    /// No memory for the threads.
    pub fn start() -> Result<Pulse, AllocError> {
        let count = cpu::count().min(CPUS_MAX);
        for cpu in 0..count {
            Builder::new("pulse")
                .affinity(1 << cpu)
                .spawn(move || count_for_ever(cpu))?;
        }
        STEPS.timer.call_once(|| Timer::new(count_and_go_on));
        count_and_go_on();
        let parts = (0..count).map(Part::Cpu).chain([Part::Timers]);
        Pulse::of(parts)
    }

    fn of(parts: impl Iterator<Item = Part>) -> Result<Pulse, AllocError> {
        let mut seen = Vec::new();
        seen.try_reserve_exact(CPUS_MAX + 1)
            .map_err(|_| AllocError::OutOfMemory)?;
        seen.extend(parts.map(|part| Seen {
            part,
            steps: 0,
            missed: 0,
        }));
        Ok(Pulse { parts: seen })
    }

    /// Looks. The part that has missed the most looks in a row, and how many these
    /// are: 0 while all is well. Looks should be a little more than [`STEP`] apart.
    pub fn look(&mut self) -> (Part, u32) {
        self.look_at(|part| match part {
            Part::Cpu(n) => STEPS.cpus.get(n).map_or(0, |c| c.load(Relaxed)),
            Part::Timers => STEPS.timers.load(Relaxed),
        })
    }

    fn look_at(&mut self, steps: impl Fn(Part) -> u64) -> (Part, u32) {
        for seen in &mut self.parts {
            let now = steps(seen.part);
            seen.missed = if now == seen.steps {
                seen.missed.saturating_add(1)
            } else {
                0
            };
            seen.steps = now;
        }
        let worst = self.parts.iter().max_by_key(|s| s.missed);
        worst.map_or((Part::Timers, 0), |s| (s.part, s.missed))
    }
}

fn count_for_ever(cpu: usize) {
    loop {
        if let Some(steps) = STEPS.cpus.get(cpu) {
            steps.fetch_add(1, Relaxed);
        }
        // A sleep without interruption ends at its time only.
        let _ = thread::sleep_until(Instant::now().after(STEP), false);
    }
}

fn count_and_go_on() {
    STEPS.timers.fetch_add(1, Relaxed);
    if let Some(timer) = STEPS.timer.get() {
        timer.set_next(Instant::now().after(STEP));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn who_stands_still_is_named() {
        let parts = [Part::Cpu(0), Part::Cpu(1), Part::Timers];
        let mut pulse = Pulse::of(parts.into_iter()).unwrap();
        let clock = Cell::new(1);
        let still = Cell::new(None);
        let steps = |part| match still.get() {
            Some(s) if s == part => 5,
            _ => clock.get() + 10,
        };
        for _ in 0..3 {
            clock.set(clock.get() + 1);
            assert_eq!(pulse.look_at(steps).1, 0);
        }
        for part in parts {
            still.set(Some(part));
            pulse.look_at(steps);
            for missed in 1..5 {
                clock.set(clock.get() + 1);
                assert_eq!(pulse.look_at(steps), (part, missed));
            }
            still.set(None);
            clock.set(clock.get() + 1);
            assert_eq!(pulse.look_at(steps).1, 0);
        }
    }

    #[test]
    fn the_running_machine_counts() {
        crate::timer::start().unwrap();
        let mut pulse = Pulse::start().unwrap();
        std::thread::sleep(STEP / 4);
        assert_eq!(pulse.look().1, 0);
        std::thread::sleep(STEP + STEP / 4);
        assert_eq!(pulse.look().1, 0);
    }
}
