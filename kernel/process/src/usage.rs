//! What processes have used: CPU time and page faults (getrusage(2)), and what they have
//! read and written.

use crate::transfers::Transfers;
use crate::{Process, Thread};
use core::time::Duration;

/// CPU time in user mode and in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// In user mode.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
}

impl core::ops::AddAssign for Times {
    fn add_assign(&mut self, other: Times) {
        self.user = self.user.saturating_add(other.user);
        self.system = self.system.saturating_add(other.system);
    }
}

impl Times {
    /// Both together.
    #[must_use]
    pub fn total(self) -> Duration {
        self.user.saturating_add(self.system)
    }
}

/// What was used, as far as it is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// CPU time.
    pub times: Times,
    /// Page faults.
    pub faults: u64,
    /// Most resident pages at one time (of the largest, for children).
    pub peak_pages: u64,
    /// What was read and written.
    pub transfers: Transfers,
}

impl Counted {
    fn add(&mut self, other: Counted) {
        self.times += other.times;
        self.faults += other.faults;
        self.peak_pages = self.peak_pages.max(other.peak_pages);
        self.transfers += other.transfers;
    }
}

/// The account of a process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// By threads that have ended.
    pub(crate) ended: Counted,
    /// By children that were waited for, and theirs.
    pub(crate) children: Counted,
}

impl Thread {
    /// CPU time it has used.
    #[must_use]
    pub fn times(&self) -> Times {
        let Some(machine) = self.machine() else {
            return Times::default();
        };
        let (all, system) = machine.run_time();
        Times {
            user: all.saturating_sub(system),
            system,
        }
    }

    /// What it has used.
    #[must_use]
    pub fn counted(&self) -> Counted {
        Counted {
            times: self.times(),
            faults: self.faults(),
            peak_pages: 0,
            transfers: Transfers {
                read: self.reads.sum(),
                written: self.writes.sum(),
            },
        }
    }
}

impl Process {
    /// CPU time its threads have used, ended ones included.
    #[must_use]
    pub fn times(&self) -> Times {
        self.counted().times
    }

    /// What its threads have used, ended ones included.
    #[must_use]
    pub fn counted(&self) -> Counted {
        let mut sum = self.usage.lock().ended;
        for t in &self.inner.lock().threads {
            sum.add(t.counted());
        }
        sum
    }

    /// What children that were waited for have used.
    #[must_use]
    pub fn children_counted(&self) -> Counted {
        self.usage.lock().children
    }

    /// A thread has ended.
    pub(crate) fn add_ended(&self, thread: &Thread) {
        let used = thread.counted();
        self.usage.lock().ended.add(used);
    }

    /// `child` was waited for.
    pub(crate) fn add_child(&self, child: &Process) {
        let mut sum = child.counted();
        sum.add(child.children_counted());
        self.usage.lock().children.add(sum);
    }
}
