//! Timers of a process: `setitimer`, and POSIX timers (timer_create(2)).
//!
//! Timers over a wall clock sit in the machine room's queue. Those over CPU time
//! sit there too, set to the earliest time at which the CPU time can have been
//! used up, and are set again if it has not.

use crate::signal::{Origin, SigInfo, Signal};
use crate::{Error, Pid, Process, Result, Thread};
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::time::Duration;
use machine::sync::SpinLock;
use machine::time::Instant;
use machine::timer::Timer;

/// Most POSIX timers of a process.
const TIMERS_MAX: usize = 1024;

/// What a timer's time is counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Time since boot.
    Boot,
    /// UTC; absolute times follow it when it is set before the timer is.
    Wall,
    /// CPU time of the process in user mode.
    UserTime,
    /// CPU time of the process.
    CpuTime,
    /// CPU time of that thread of the process.
    ThreadTime(Pid),
}

/// A setting: time to the next expiration and period, in nanoseconds; `value` 0
/// for a timer that does not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// Time to the next expiration.
    pub value: u64,
    /// Period; 0 for a timer that runs once.
    pub interval: u64,
}

/// What an expiration does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// Nothing (`SIGEV_NONE`).
    Nothing,
    /// Sends the signal of an interval timer.
    Kernel(Signal),
    /// Looks at the limit on CPU time.
    CpuLimit,
    /// Sends a signal with a value, to a thread if one is named.
    Posix {
        /// Which.
        signal: Signal,
        /// What the program wants to see; else the timer's id.
        value: Option<u64>,
        /// To whom; else to the process.
        thread: Option<Pid>,
    },
}

/// A timer.
struct Clockwork {
    timer: Timer,
    state: SpinLock<State>,
}

struct State {
    /// When it expires next, by the base's clock; 0 if it does not run.
    next: u64,
    interval: u64,
    /// Expirations that the last signal did not show one by one.
    overrun: u64,
}

struct Entry {
    base: Base,
    notify: Notify,
    work: Arc<Clockwork>,
    id: i32,
}

#[derive(Default)]
struct Table {
    posix: BTreeMap<i32, Arc<Entry>>,
    interval: [Option<Arc<Entry>>; 3],
    cpu_limit: Option<Arc<Entry>>,
}

/// The timers of a process.
#[derive(Default)]
pub(crate) struct Timers {
    table: SpinLock<Table>,
    next_id: AtomicU32,
}

fn nanoseconds(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

impl Process {
    /// What the clock of `base` shows; the end of time for a thread that is gone.
    #[must_use]
    pub fn clock(&self, base: Base) -> u64 {
        match base {
            Base::ThreadTime(tid) => self
                .own_thread(tid)
                .map_or(u64::MAX, |t| nanoseconds(t.times().total())),
            Base::Boot => Instant::now().0,
            Base::Wall => u64::try_from(machine::time::wall()).unwrap_or(0),
            Base::UserTime => nanoseconds(self.times().user),
            Base::CpuTime => nanoseconds(self.times().total()),
        }
    }

    /// Its thread of that number.
    #[must_use]
    pub fn own_thread(&self, tid: Pid) -> Option<Arc<Thread>> {
        let found = self.world().thread(tid)?;
        core::ptr::eq(&raw const **found.process(), self).then_some(found)
    }

    /// The earliest time at which the clock of `base` can show `at`.
    fn earliest(&self, base: Base, at: u64) -> Instant {
        let left = at.saturating_sub(self.clock(base));
        let wait = match base {
            Base::Boot | Base::Wall => left,
            Base::ThreadTime(_) => left.max(1_000_000),
            // All its threads may run at once, on as many CPUs.
            Base::UserTime | Base::CpuTime => {
                let parallel = self.thread_count().min(machine::cpu::count()).max(1);
                (left / parallel as u64).max(1_000_000)
            }
        };
        Instant::now().after(Duration::from_nanos(wait))
    }

    fn make_timer(self: &Arc<Process>, base: Base, notify: Notify, id: i32) -> Arc<Entry> {
        let process = Arc::downgrade(self);
        Arc::new_cyclic(|me: &Weak<Entry>| {
            let me = me.clone();
            let expire = move || {
                if let (Some(p), Some(e)) = (process.upgrade(), me.upgrade()) {
                    e.expire(&p);
                }
            };
            Entry {
                base,
                notify,
                id,
                work: Arc::new(Clockwork {
                    timer: Timer::new(expire),
                    state: SpinLock::new(State {
                        next: 0,
                        interval: 0,
                        overrun: 0,
                    }),
                }),
            }
        })
    }

    /// Sets the interval timer `which` (`ITIMER_*`); what it was set to.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a timer there is not.
    pub fn set_interval_timer(self: &Arc<Process>, which: usize, new: Setting) -> Result<Setting> {
        let (base, signal) = match which {
            0 => (Base::Boot, Signal::ALRM),
            1 => (Base::UserTime, Signal::VTALRM),
            2 => (Base::CpuTime, Signal::PROF),
            _ => return Err(Error::Invalid),
        };
        let fresh = || self.make_timer(base, Notify::Kernel(signal), which as i32);
        let known = self.timers.table.lock().interval[which].clone();
        if known.is_none() && new.value == 0 {
            return Ok(Setting::default());
        }
        let entry = known.unwrap_or_else(fresh);
        self.timers.table.lock().interval[which] = Some(entry.clone());
        let now = self.clock(base);
        let at = match new.value {
            0 => 0,
            v => now.saturating_add(v),
        };
        Ok(entry.set(self, at, new.interval))
    }

    /// Has [`Process::cpu_alarm`] called when the process has used `at` of CPU time.
    pub(crate) fn set_cpu_alarm(self: &Arc<Process>, at: Option<u64>) {
        let known = self.timers.table.lock().cpu_limit.clone();
        if known.is_none() && at.is_none() {
            return;
        }
        let fresh = || self.make_timer(Base::CpuTime, Notify::CpuLimit, 0);
        let entry = known.unwrap_or_else(fresh);
        self.timers.table.lock().cpu_limit = Some(entry.clone());
        entry.set(self, at.unwrap_or(0), 0);
    }

    /// What the interval timer `which` is set to.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a timer there is not.
    pub fn interval_timer(&self, which: usize) -> Result<Setting> {
        let table = self.timers.table.lock();
        let entry = table.interval.get(which).ok_or(Error::Invalid)?.clone();
        drop(table);
        Ok(entry.map_or_else(Setting::default, |e| e.get(self)))
    }

    /// Makes a POSIX timer; its id.
    ///
    /// # Errors
    /// [`Error::LimitReached`].
    pub fn create_timer(self: &Arc<Process>, base: Base, notify: Notify) -> Result<i32> {
        let fresh = || (self.timers.next_id.fetch_add(1, Relaxed) & 0x7fff_ffff) as i32;
        let mut id = fresh();
        loop {
            let table = self.timers.table.lock();
            if table.posix.len() >= TIMERS_MAX {
                return Err(Error::LimitReached);
            }
            if !table.posix.contains_key(&id) {
                break;
            }
            id = fresh();
        }
        let entry = self.make_timer(base, notify, id);
        self.timers.table.lock().posix.insert(id, entry);
        Ok(id)
    }

    fn posix_timer(&self, id: i32) -> Result<Arc<Entry>> {
        let table = self.timers.table.lock();
        table.posix.get(&id).cloned().ok_or(Error::Invalid)
    }

    /// Sets a POSIX timer, to an absolute time of its clock if `absolute`; what it
    /// was set to.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a timer there is not.
    pub fn set_timer(&self, id: i32, new: Setting, absolute: bool) -> Result<Setting> {
        let entry = self.posix_timer(id)?;
        let at = match new.value {
            0 => 0,
            v if absolute => v,
            v => self.clock(entry.base).saturating_add(v),
        };
        Ok(entry.set(self, at, new.interval))
    }

    /// What a POSIX timer is set to.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a timer there is not.
    pub fn timer(&self, id: i32) -> Result<Setting> {
        Ok(self.posix_timer(id)?.get(self))
    }

    /// Further expirations before the last one was delivered.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a timer there is not.
    pub fn timer_overrun(&self, id: i32) -> Result<u64> {
        Ok(self.posix_timer(id)?.work.state.lock().overrun)
    }

    /// Removes a POSIX timer.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a timer there is not.
    pub fn delete_timer(&self, id: i32) -> Result<()> {
        let gone = self.timers.table.lock().posix.remove(&id);
        gone.map(drop).ok_or(Error::Invalid)
    }

    /// Removes the POSIX timers (`execve`), and the interval timers too if the
    /// process ends.
    pub(crate) fn drop_timers(&self, interval_too: bool) {
        let mut table = self.timers.table.lock();
        let posix = core::mem::take(&mut table.posix);
        let interval = if interval_too {
            (core::mem::take(&mut table.interval), table.cpu_limit.take())
        } else {
            Default::default()
        };
        drop(table);
        drop((posix, interval));
    }
}

impl Entry {
    /// Sets it to expire at `at` of its clock; what it was set to.
    fn set(&self, process: &Process, at: u64, interval: u64) -> Setting {
        let old = self.get(process);
        let mut s = self.work.state.lock();
        (s.next, s.interval, s.overrun) = (at, interval, 0);
        drop(s);
        let due = (at != 0).then(|| process.earliest(self.base, at));
        self.work.timer.set(due);
        old
    }

    fn get(&self, process: &Process) -> Setting {
        let now = process.clock(self.base);
        let s = self.work.state.lock();
        if now == u64::MAX {
            return Setting::default();
        }
        Setting {
            value: match s.next {
                0 => 0,
                // It has expired, and its action is about to run.
                n => n.saturating_sub(now).max(1),
            },
            interval: s.interval,
        }
    }

    /// The time may have come.
    fn expire(&self, process: &Process) {
        let now = process.clock(self.base);
        let mut s = self.work.state.lock();
        if s.next == 0 {
            return;
        }
        if now == u64::MAX {
            // The time of a thread that has ended stands still.
            s.next = 0;
            return;
        }
        if s.next <= now {
            let missed = match s.interval {
                0 => 0,
                i => (now - s.next) / i,
            };
            s.next = match s.interval {
                0 => 0,
                i => s.next.saturating_add((missed + 1).saturating_mul(i)),
            };
            let next = s.next;
            drop(s);
            self.notify(process, missed);
            if next != 0 {
                let due = process.earliest(self.base, next);
                self.work.timer.set_next(due);
            }
        } else {
            let next = s.next;
            drop(s);
            self.work.timer.set(Some(process.earliest(self.base, next)));
        }
    }

    fn notify(&self, process: &Process, overrun: u64) {
        match self.notify {
            Notify::Nothing => {}
            Notify::Kernel(signal) => process.raise(signal),
            Notify::CpuLimit => {
                if let Some(next) = process.cpu_alarm() {
                    self.set(process, next, 0);
                }
            }
            Notify::Posix {
                signal,
                value,
                thread,
            } => {
                let thread = match thread {
                    None => None,
                    Some(tid) => match process.threads().into_iter().find(|t| t.tid() == tid) {
                        None => return,
                        found => found,
                    },
                };
                // A timer has one signal pending at most; the rest is counted.
                let pending = match &thread {
                    None => process.inner.lock().pending.overrun(self.id, overrun + 1),
                    Some(t) => t.signals.pending.lock().overrun(self.id, overrun + 1),
                };
                if pending {
                    self.work.state.lock().overrun += overrun + 1;
                    return;
                }
                self.work.state.lock().overrun = overrun;
                let overrun = i32::try_from(overrun).unwrap_or(i32::MAX);
                let value = value.unwrap_or(self.id as u64);
                let info = SigInfo::timer(signal, self.id, overrun, value);
                // Where the queue is full the expiration is lost.
                let _ = match &thread {
                    None => process.signal(signal, info, Origin::Inside),
                    Some(t) => t.signal(signal, info, Origin::Inside),
                };
            }
        }
    }
}
