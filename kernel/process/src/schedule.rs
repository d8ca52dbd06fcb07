//! How a thread is scheduled: its policy and its nice value (sched(7)).

use crate::thread::Thread;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use machine::thread::Share;

/// A policy without priorities. Those with priorities are for nobody: a capsule shares the
/// machine with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// `SCHED_NORMAL`.
    Normal,
    /// `SCHED_BATCH`: as the first, from a program that says it computes.
    Batch,
    /// `SCHED_IDLE`: next to nothing as long as others compute.
    Idle,
}

impl Policy {
    /// Its number (`SCHED_*`).
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Policy::Normal => 0,
            Policy::Batch => 3,
            Policy::Idle => 5,
        }
    }

    /// The policy of that number, if it is one of these.
    #[must_use]
    pub fn of_number(number: u32) -> Option<Policy> {
        let all = [Policy::Normal, Policy::Batch, Policy::Idle];
        all.into_iter().find(|policy| policy.number() == number)
    }
}

/// What a thread has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Its policy.
    pub policy: Policy,
    /// Nice value, -20 to 19.
    pub nice: i32,
    /// Its children do not inherit a nice value below 0 (`SCHED_RESET_ON_FORK`).
    pub resets: bool,
}

impl Schedule {
    /// That of a first thread.
    pub(crate) const FIRST: Schedule = Schedule {
        policy: Policy::Normal,
        nice: 0,
        resets: false,
    };

    /// What a new thread or process of this one starts with.
    #[must_use]
    pub(crate) fn inherited(self) -> Schedule {
        Schedule {
            nice: if self.resets {
                self.nice.max(0)
            } else {
                self.nice
            },
            resets: false,
            ..self
        }
    }

    /// Its part of what its capsule gets.
    pub(crate) fn share(self) -> Share {
        match self.policy {
            Policy::Normal | Policy::Batch => Share::Nice(self.nice),
            Policy::Idle => Share::Idle,
        }
    }
}

/// A thread's, which others may change.
pub(crate) struct Kept(AtomicU32);

const BATCH: u32 = 1 << 8;
const IDLE: u32 = 1 << 9;
const RESETS: u32 = 1 << 10;

impl Kept {
    pub(crate) fn new(schedule: Schedule) -> Kept {
        Kept(AtomicU32::new(Self::packed(schedule)))
    }

    fn packed(schedule: Schedule) -> u32 {
        let policy = match schedule.policy {
            Policy::Normal => 0,
            Policy::Batch => BATCH,
            Policy::Idle => IDLE,
        };
        let nice = (schedule.nice.clamp(-20, 19) + 20) as u32;
        nice | policy | if schedule.resets { RESETS } else { 0 }
    }

    fn get(&self) -> Schedule {
        let packed = self.0.load(SeqCst);
        let policy = match packed & (BATCH | IDLE) {
            BATCH => Policy::Batch,
            IDLE => Policy::Idle,
            _ => Policy::Normal,
        };
        Schedule {
            policy,
            nice: (packed & 0xff) as i32 - 20,
            resets: packed & RESETS != 0,
        }
    }
}

impl Thread {
    /// How it is scheduled.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        self.schedule.get()
    }

    /// Has it scheduled so from its next return to user mode on.
    pub fn set_schedule(&self, schedule: Schedule) {
        // First: who makes a thread looks at it again when the machine's thread can be found.
        self.schedule.0.store(Kept::packed(schedule), SeqCst);
        if let Some(machine) = self.machine() {
            // Not `schedule`: another thread may have come after it.
            machine.set_share(self.schedule().share());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back() {
        for policy in [Policy::Normal, Policy::Batch, Policy::Idle] {
            for (nice, resets) in [(-20, false), (0, true), (19, true)] {
                let said = Schedule {
                    policy,
                    nice,
                    resets,
                };
                assert_eq!(Kept::new(said).get(), said);
            }
        }
    }

    #[test]
    fn children_inherit_what_is_no_privilege() {
        let parent = Schedule {
            policy: Policy::Batch,
            nice: -5,
            resets: true,
        };
        let child = parent.inherited();
        assert_eq!(
            (child.policy, child.nice, child.resets),
            (Policy::Batch, 0, false)
        );
        let kinder = Schedule { nice: 7, ..parent };
        assert_eq!(kinder.inherited().nice, 7);
        let plain = Schedule {
            resets: false,
            ..parent
        };
        assert_eq!(plain.inherited(), plain);
    }
}
