//! Job control: stopping all threads of a process, and going on.

use super::number::{SigSet, Signal};
use super::{Origin, SigInfo};
use crate::process::{Inner, Stop};
use crate::status::Change;
use crate::{Process, Thread};
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use machine::thread::UserRegs;

impl Process {
    /// Whether its threads have to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    /// A stop signal is being delivered: all threads are to stop. Stops from the
    /// terminal do not touch a group that nobody could continue.
    pub(crate) fn begin_stop(&self, signal: Signal) {
        if signal != Signal::STOP && self.is_orphaned_group() {
            return;
        }
        let mut inner = self.inner.lock();
        // A `SIGCONT` that came after the stop signal was taken out wins.
        if self.pending_has(Signal::CONT) || self.exit_status().is_some() {
            return;
        }
        if inner.stop.is_none() {
            inner.stop = Some(Stop {
                signal,
                complete: false,
            });
            self.stopping.store(true, SeqCst);
            for t in &inner.threads {
                t.alert();
            }
        } else if !inner.threads.iter().any(|t| t.is_traced()) {
            return;
        }
        // Tracees stop once more, even if their tracer had let them go on.
        self.stop_serial.fetch_add(1, SeqCst);
    }

    fn pending_has(&self, signal: Signal) -> bool {
        SigSet(self.pending_set.load(SeqCst)).contains(signal)
    }

    /// Completes the stop once all threads have stopped; what the parent is to
    /// hear.
    pub(crate) fn check_stopped(inner: &mut Inner) -> Option<Change> {
        let all = inner.threads.iter().all(|t| t.signals.stopped.load(SeqCst));
        let stop = inner.stop.as_mut()?;
        if stop.complete || !all || inner.threads.is_empty() {
            return None;
        }
        stop.complete = true;
        let change = Change::Stopped(stop.signal);
        inner.news = Some(change);
        Some(change)
    }

    /// Ends a stop, if there is one; what the parent is to hear.
    pub(crate) fn go_on(&self, inner: &mut Inner) -> Option<Change> {
        let stop = inner.stop.take()?;
        self.stopping.store(false, SeqCst);
        for t in &inner.threads {
            t.signals.stopped.store(false, SeqCst);
            if t.is_traced() {
                t.stop_anew();
            }
        }
        self.go_on_queue.wake_all();
        if !stop.complete {
            return None;
        }
        inner.news = Some(Change::Continued);
        Some(Change::Continued)
    }

    /// Whether all its threads are stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.inner.lock().stop.as_ref().is_some_and(|s| s.complete)
    }

    /// Tells the parent about `change`: by `SIGCHLD`, and by waking its `wait`.
    pub(crate) fn tell_parent(&self, change: Change) {
        let Some(parent) = self.parent() else {
            return;
        };
        let wanted = parent.actions.with(|a| {
            let flags = a.get(Signal::CHLD).flags();
            !flags.contains(super::ActionFlags::NOCLDSTOP)
        });
        if wanted == Some(true) {
            let info = self.child_info(change);
            // A standard signal is never refused.
            let _ = parent.signal(Signal::CHLD, info, Origin::Inside);
        }
        parent.child_queue.wake_all();
    }

    /// `siginfo_t` about `change` for its parent.
    pub(crate) fn child_info(&self, change: Change) -> SigInfo {
        let (code, status) = change.code_and_status();
        let times = self.times();
        let ticks = |d: core::time::Duration| u64::try_from(d.as_millis() / 10).unwrap_or(0);
        let ticks = (ticks(times.user), ticks(times.system));
        SigInfo::child(code, self.pid(), self.uid(), status, ticks)
    }
}

impl Thread {
    /// Stops here while a stop of the process is in force.
    pub(crate) fn stop_here(&self, regs: &mut UserRegs) {
        let process = self.process();
        let mut inner = process.inner.lock();
        let Some(signal) = inner.stop.as_ref().map(|s| s.signal) else {
            return;
        };
        self.signals.stopped.store(true, SeqCst);
        let change = Process::check_stopped(&mut inner);
        drop(inner);
        if let Some(change) = change {
            process.tell_parent(change);
        }
        if self.is_traced() {
            return self.group_stop(regs, signal);
        }
        // Going on clears the flag; a further stop then finds this thread running.
        process.go_on_queue.wait(|| {
            let over = !self.signals.stopped.load(SeqCst) || self.must_end();
            (over || self.is_traced()).then_some(())
        });
        if self.is_traced() {
            // It is stopped still, but the tracer's now.
            return;
        }
        self.signals.stopped.store(false, Relaxed);
    }
}
