//! `RLIMIT_CPU` (setrlimit(2)): a process that has used the CPU time of its soft limit
//! gets `SIGXCPU`, and again for every further second; at the hard limit it is killed.

use crate::limits::{INFINITE, Limit, Resource};
use crate::signal::{Origin, SigInfo, Signal};
use crate::timers::Base;
use crate::{Process, World};
use alloc::sync::Arc;
use vfs::{Caps, Credentials};

const SECOND: u64 = 1_000_000_000;

/// A limit in seconds as CPU time; `None` without one.
fn time(seconds: u64) -> Option<u64> {
    (seconds != INFINITE).then(|| seconds.saturating_mul(SECOND))
}

impl Process {
    /// Sets the limit on the resource of that number.
    pub fn set_limit(self: &Arc<Process>, resource: usize, limit: Limit) {
        self.limits().set(resource, limit);
        if resource == Resource::Cpu as usize {
            self.watch_cpu_time();
        }
    }

    /// Sees to it that the limit on CPU time is held to: after it was set, or
    /// inherited.
    pub(crate) fn watch_cpu_time(self: &Arc<Process>) {
        self.set_cpu_alarm(self.next_alarm());
    }

    /// When to look again, by the process's CPU time.
    fn next_alarm(&self) -> Option<u64> {
        let limit = self.limits().get(Resource::Cpu as usize)?;
        // Without CPU time there is nothing to be told of.
        time(limit.soft.min(limit.hard)).map(|t| t.max(1))
    }

    /// The time of [`Process::next_alarm`] has come; when the next one is. As on
    /// Linux the soft limit rises with every signal, and programs can see that.
    pub(crate) fn cpu_alarm(&self) -> Option<u64> {
        let limits = self.limits();
        let limit = limits.get(Resource::Cpu as usize)?;
        let used = self.clock(Base::CpuTime);
        if time(limit.hard).is_some_and(|t| used >= t) {
            // Nobody is spared, not even the first process, and it never fails.
            let info = SigInfo::kernel(Signal::KILL);
            let _ = self.signal(Signal::KILL, info, Origin::Outside);
            return None;
        }
        if time(limit.soft).is_some_and(|t| used >= t) {
            self.raise(Signal::XCPU);
            let soft = limit.soft.saturating_add(1);
            limits.set(Resource::Cpu as usize, Limit { soft, ..limit });
        }
        self.next_alarm()
    }
}

impl World {
    /// Whether `process` may make one more task under its user's `RLIMIT_NPROC`,
    /// which counts all tasks of that user. The capsule's root is not held to it,
    /// nor who has its privileges (setrlimit(2)).
    pub(crate) fn user_has_room(&self, process: &Process, cred: &Credentials) -> bool {
        let limit = process.limits().soft(Resource::Processes);
        // What every user together may have is looked at elsewhere.
        if limit >= u64::from(self.threads_max()) || process.uid() == 0 {
            return true;
        }
        if cred.has(Caps::SYS_RESOURCE) || cred.has(Caps::SYS_ADMIN) {
            return true;
        }
        let uid = process.uid();
        let family = self.family.lock();
        let own = family.all().filter(|(_, p)| p.uid() == uid);
        // A zombie counts until it is waited for.
        let tasks: usize = own.map(|(_, p)| p.thread_count().max(1)).sum();
        (tasks as u64) < limit
    }
}
