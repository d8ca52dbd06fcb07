//! Waiting for children (wait4(2), waitid(2)).

use crate::family::Family;
use crate::signal::Signal;
use crate::status::{Change, ExitStatus};
use crate::trace::Ended;
use crate::usage::Counted;
use crate::{Error, Pid, Process, Result, Thread};
use alloc::sync::Arc;
use bitflags::bitflags;
use core::sync::atomic::Ordering::Relaxed;
use machine::wait::Until;

/// Which children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Any.
    Any,
    /// The one of that number.
    Pid(Pid),
    /// Those of that process group.
    Group(Pid),
}

bitflags! {
    /// What is waited for, and how.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct WaitOptions: u32 {
        /// Do not wait (`WNOHANG`).
        const NOHANG = 1;
        /// Children that have stopped (`WUNTRACED`, `WSTOPPED`).
        const STOPPED = 2;
        /// Children that have ended (`WEXITED`).
        const EXITED = 4;
        /// Children that go on (`WCONTINUED`).
        const CONTINUED = 8;
        /// Leave it to be waited for again (`WNOWAIT`).
        const NOWAIT = 0x0100_0000;
        /// Children of this thread only; all threads share theirs here.
        const NOTHREAD = 0x2000_0000;
        /// All children, whatever signal they end with (`__WALL`).
        const ALL = 0x4000_0000;
        /// Only children that do not end with `SIGCHLD` (`__WCLONE`).
        const CLONE = 0x8000_0000;
    }
}

/// A child that something was learnt about.
#[derive(Clone, Debug)]
pub struct Waited {
    /// Its number.
    pub pid: Pid,
    /// Its real user.
    pub uid: u32,
    /// What happened.
    pub change: Change,
    /// What it has used.
    pub counted: Counted,
}

impl Process {
    /// Waits for a change of a child of the calling process; `None` with
    /// [`WaitOptions::NOHANG`] if there is none yet.
    ///
    /// # Errors
    /// [`Error::NoChild`], [`Error::Interrupted`].
    pub fn wait(&self, which: Which, options: WaitOptions) -> Result<Option<Waited>> {
        if options.contains(WaitOptions::NOHANG) {
            return self.look(which, options);
        }
        let mut look = || self.look(which, options).transpose();
        let found = self.child_queue.wait_until(Until::INTERRUPTED, &mut look)?;
        found.map(Some)
    }

    /// Looks once.
    fn look(&self, which: Which, options: WaitOptions) -> Result<Option<Waited>> {
        let mut family = self.world().family.lock();
        let mut fits_any = false;
        let mut found = None;
        let traces = self.traces.load(Relaxed);
        for pid in family.children(self.pid()) {
            let Some(child) = family.process(*pid) else {
                continue;
            };
            let first = traces.then(|| child.first_thread()).flatten();
            let traced = first.is_some_and(|t| t.is_traced_by(self));
            let chosen = match which {
                Which::Any => true,
                Which::Pid(p) => p == *pid,
                Which::Group(g) => family.group(*pid) == Ok(g),
            };
            if !chosen || !traced && !child.is_waitable(options) {
                continue;
            }
            fits_any = true;
            let change = if !family.is_zombie(*pid) {
                child.news(options, traced)
            } else if options.contains(WaitOptions::EXITED) {
                let status = child.exit_status().unwrap_or(ExitStatus::Exited(0));
                Some(Change::Ended(status))
            } else {
                None
            };
            if let Some(change) = change {
                found = Some((child.clone(), change));
                break;
            }
        }
        let Some((child, change)) = found else {
            let tracees = traces.then(|| self.look_at_tracees(&family, which, options));
            match tracees.flatten() {
                Some(Some(waited)) => return Ok(Some(waited)),
                Some(None) => fits_any = true,
                None => {}
            }
            return if fits_any {
                Ok(None)
            } else {
                Err(Error::NoChild)
            };
        };
        let reaped = matches!(change, Change::Ended(_)) && !options.contains(WaitOptions::NOWAIT);
        let gone = reaped.then(|| family.reap(child.pid()));
        drop(family);
        drop(gone);
        if reaped {
            self.add_child(&child);
        }
        Ok(Some(child.waited(change)))
    }

    /// Looks at the tracees: nothing without one that fits, else what one of them has
    /// to tell.
    fn look_at_tracees(
        &self,
        family: &Family<Arc<Process>, Arc<Thread>>,
        which: Which,
        options: WaitOptions,
    ) -> Option<Option<Waited>> {
        let fits = |tid: Pid, group: Pid| match which {
            Which::Any => true,
            Which::Pid(p) => p == tid,
            Which::Group(g) => g == group,
        };
        let keep = options.contains(WaitOptions::NOWAIT);
        let mut tracing = self.tracing.lock();
        let wanted = |e: &Ended| options.contains(WaitOptions::EXITED) && fits(e.tid, e.group);
        if let Some(at) = tracing.ended.iter().position(wanted) {
            let ended = match keep {
                true => *tracing.ended.get(at)?,
                false => tracing.ended.remove(at),
            };
            return Some(Some(Waited {
                pid: ended.tid,
                uid: ended.uid,
                change: Change::Ended(ended.status),
                counted: Counted::default(),
            }));
        }
        let mut any = None;
        for tracee in &tracing.tracees {
            let process = tracee.process();
            let group = family.group(process.pid()).unwrap_or(0);
            if !fits(tracee.tid(), group) {
                continue;
            }
            any = Some(None);
            let news = tracee.trace.state.lock().news(keep);
            if let Some(change) = news {
                return Some(Some(Waited {
                    pid: tracee.tid(),
                    uid: process.uid(),
                    change,
                    counted: Counted::default(),
                }));
            }
        }
        any
    }

    fn is_waitable(&self, options: WaitOptions) -> bool {
        let cloned = self.exit_signal.load(Relaxed) != Signal::CHLD.number();
        options.contains(WaitOptions::ALL) || cloned == options.contains(WaitOptions::CLONE)
    }

    /// A stop or continuation nobody has waited for.
    fn news(&self, options: WaitOptions, traced: bool) -> Option<Change> {
        let mut inner = self.inner.lock();
        let wanted = match inner.news? {
            // A tracer hears of each thread's stop.
            Change::Stopped(_) if traced => return None,
            Change::Stopped(_) => WaitOptions::STOPPED,
            Change::Continued => WaitOptions::CONTINUED,
            Change::Ended(_) | Change::Traced(_) => return None,
        };
        if !options.contains(wanted) {
            return None;
        }
        match options.contains(WaitOptions::NOWAIT) {
            true => inner.news,
            false => inner.news.take(),
        }
    }

    fn waited(self: &Arc<Process>, change: Change) -> Waited {
        let mut counted = self.counted();
        let theirs = self.children_counted();
        counted.times += theirs.times;
        counted.faults += theirs.faults;
        counted.peak_pages = counted.peak_pages.max(theirs.peak_pages);
        Waited {
            pid: self.pid(),
            uid: self.uid(),
            change,
            counted,
        }
    }
}
