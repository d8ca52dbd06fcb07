//! How tracing begins and ends.

use super::{Ended, Link, Mode, Resume, State};
use crate::signal::{Origin, SigInfo, Signal};
use crate::{Change, Error, ExitStatus, Pid, Process, Result, Thread};
use alloc::sync::Arc;
use bitflags::bitflags;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

bitflags! {
    /// `PTRACE_O_*`: what a tracee stops for besides signals, and how.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Options: u32 {
        /// Bit 7 marks stops at system calls.
        const SYSGOOD = 1;
        /// `fork`; the child is traced, too.
        const FORK = 2;
        /// `vfork`.
        const VFORK = 4;
        /// Other `clone`s.
        const CLONE = 8;
        /// `execve`.
        const EXEC = 0x10;
        /// The child of a `vfork` has let go of the memory.
        const VFORK_DONE = 0x20;
        /// A thread is about to end.
        const EXIT = 0x40;
        /// A filter of system calls asks.
        const SECCOMP = 0x80;
        /// Tracees die with the tracer.
        const EXIT_KILL = 0x10_0000;
    }
}

impl Thread {
    /// Whether it may look into `target` and trace it (ptrace(2), "Ptrace access mode
    /// checking").
    #[must_use]
    pub fn may_trace(&self, target: &Process) -> bool {
        if core::ptr::eq(&raw const **self.process(), target) {
            return true;
        }
        let Some(me) = self.cred.get() else {
            return false;
        };
        if me.has(vfs::Caps::SYS_PTRACE) {
            return true;
        }
        let Some(them) = target.first_thread().and_then(|t| t.cred.get()) else {
            return false;
        };
        let users = [them.uid, them.euid, them.suid];
        let groups = [them.gid, them.egid, them.sgid];
        users.iter().all(|u| *u == me.uid)
            && groups.iter().all(|g| *g == me.gid)
            && target.dumpable() == 1
            && me.permitted.contains(them.permitted)
    }

    /// Makes `tracer` trace it. The caller has checked that it may.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] if it is traced already, of the same process, or ends.
    pub fn attach(
        self: &Arc<Thread>,
        tracer: &Arc<Process>,
        privileged: bool,
        seize: Option<Options>,
    ) -> Result<()> {
        if Arc::ptr_eq(self.process(), tracer) || self.process().exit_status().is_some() {
            return Err(Error::NotPermitted);
        }
        let link = Link {
            tracer: Arc::downgrade(tracer),
            tracer_pid: tracer.pid(),
            privileged,
            seized: seize.is_some(),
            options: seize.unwrap_or_default(),
            mode: Mode::Free,
            trap_due: false,
            listening: false,
            seen_stop: 0,
            entering: self.signals.stopped.load(SeqCst),
        };
        self.link(tracer, link)?;
        if seize.is_none() {
            self.stop_at_first();
        }
        // One that is stopped becomes the tracer's.
        self.process().go_on_queue.wake_all();
        self.alert();
        Ok(())
    }

    /// After [`Thread::attach`]: waits until a thread that was stopped has stopped for `me`'s
    /// process instead, so that requests find it so. Linux hides that step, too. Who runs is
    /// waited for by `wait` only.
    pub fn enter_stop(&self, me: &Thread) {
        self.trace.queue.wait(|| {
            let state = self.trace.state.lock();
            let entering = state.link.as_ref().is_some_and(|l| l.entering);
            let stopped = self.signals.stopped.load(SeqCst);
            (!(entering && stopped) || me.must_end()).then_some(())
        });
    }

    /// The caller asks its parent to trace it.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] if it is traced already or has no parent.
    pub fn trace_me(self: &Arc<Thread>) -> Result<()> {
        let parent = self.process().parent().ok_or(Error::NotPermitted)?;
        let privileged = parent.first_thread().and_then(|t| t.cred.get());
        let link = Link {
            tracer: Arc::downgrade(&parent),
            tracer_pid: parent.pid(),
            privileged: privileged.is_some_and(|c| c.has(vfs::Caps::SYS_PTRACE)),
            seized: false,
            options: Options::empty(),
            mode: Mode::Free,
            trap_due: false,
            listening: false,
            seen_stop: 0,
            entering: false,
        };
        self.link(&parent, link)
    }

    fn link(self: &Arc<Thread>, tracer: &Process, link: Link) -> Result<()> {
        let mut tracing = tracer.tracing.lock();
        tracing.tracees.try_reserve(1)?;
        let mut state = self.trace.state.lock();
        if state.link.is_some() || state.ended || tracer.exit_status().is_some() {
            return Err(Error::NotPermitted);
        }
        state.link = Some(link);
        self.trace.traced.store(true, SeqCst);
        drop(state);
        tracer.traces.store(true, SeqCst);
        tracing.tracees.push(self.clone());
        Ok(())
    }

    /// `PTRACE_ATTACH` and the start of what a tracee makes: a `SIGSTOP` of its own.
    fn stop_at_first(&self) {
        // A standard signal is never refused.
        let _ = self.signal(Signal::STOP, SigInfo::kernel(Signal::STOP), Origin::Outside);
    }

    /// The tracer of `self` traces `child`, too, which `self` is making.
    pub(crate) fn trace_child(&self, child: &Arc<Thread>) {
        let state = self.trace.state.lock();
        let Some(mine) = state.link.as_ref() else {
            return;
        };
        let seized = mine.seized;
        let link = Link {
            tracer: mine.tracer.clone(),
            tracer_pid: mine.tracer_pid,
            privileged: mine.privileged,
            seized,
            options: mine.options,
            mode: Mode::Free,
            trap_due: seized,
            listening: false,
            seen_stop: 0,
            entering: false,
        };
        drop(state);
        let Some(tracer) = link.tracer.upgrade() else {
            return;
        };
        // Without memory for the list the child runs untraced.
        if child.link(&tracer, link).is_ok() && !seized {
            child.stop_at_first();
        }
    }

    /// Ends the tracing of a thread that is stopped or runs; in a stop it goes on with
    /// `signal`.
    pub(super) fn unlink(&self, state: &mut State, signal: u8) {
        state.link = None;
        self.trace.traced.store(false, SeqCst);
        self.trace.watch(false);
        if let Some(stopped) = state.stopped.as_mut() {
            stopped.resume = Some(signal);
        }
        self.trace.queue.wake_all();
        // A group stop in force holds it again.
        self.alert();
    }

    /// `PTRACE_DETACH`
    ///
    /// # Errors
    /// [`Error::NoProcess`] unless it is stopped for `tracer`.
    pub fn detach(self: &Arc<Thread>, tracer: &Process, signal: u8) -> Result<()> {
        let mut tracing = tracer.tracing.lock();
        let mut state = self.trace.state.lock();
        state.check(tracer)?;
        self.unlink(&mut state, signal);
        tracing.tracees.retain(|t| !Arc::ptr_eq(t, self));
        Ok(())
    }

    /// It has ended: its tracer hears of it, if nobody else tells it.
    pub(crate) fn leave_tracer(self: &Arc<Thread>, last: bool) {
        let process = self.process();
        let mut state = self.trace.state.lock();
        // Nobody who attaches from now on would hear of its end.
        state.ended = true;
        let link = state.link.take();
        drop(state);
        self.trace.queue.wake_all();
        self.trace.traced.store(false, SeqCst);
        self.trace.watch(false);
        let Some(tracer) = link.and_then(|l| l.tracer.upgrade()) else {
            return;
        };
        let code = self.trace.exit_code.load(Relaxed);
        let status = process.exit_status().unwrap_or(ExitStatus::Exited(code));
        let leads = self.tid() == process.pid();
        let mut tracing = tracer.tracing.lock();
        tracing.tracees.retain(|t| !Arc::ptr_eq(t, self));
        drop(tracing);
        if leads || last {
            // The end of the process: `Process::tell_tracer` says it.
            *process.traced_by.lock() = Some(Arc::downgrade(&tracer));
            return;
        }
        tracer.tracee_ended(self.tid(), process, status);
    }

    /// What `exit` was given, for the tracer.
    pub fn note_exit_code(&self, code: u8) {
        self.trace.exit_code.store(code, Relaxed);
    }
}

impl Process {
    /// The whole process has ended: its first thread's tracer hears of it, unless that
    /// is the parent, which does anyway.
    pub(crate) fn tell_tracer(&self, status: ExitStatus) {
        let by = self.traced_by.lock().take();
        let Some(tracer) = by.and_then(|t| t.upgrade()) else {
            return;
        };
        if tracer.pid() != self.ppid() {
            tracer.tracee_ended(self.pid(), self, status);
        }
    }

    fn tracee_ended(&self, tid: Pid, process: &Process, status: ExitStatus) {
        /// As many as a tracer could have zombies at the very most.
        const ENDED_MAX: usize = 4096;
        let group = process.group().unwrap_or(0);
        let mut tracing = self.tracing.lock();
        if tracing.ended.len() < ENDED_MAX && tracing.ended.try_reserve(1).is_ok() {
            tracing.ended.push(Ended {
                tid,
                uid: process.uid(),
                group,
                status,
            });
        }
        drop(tracing);
        let (code, value) = Change::Ended(status).code_and_status();
        let info = SigInfo::child(code, tid, process.uid(), value, (0, 0));
        // A standard signal is never refused.
        let _ = self.signal(Signal::CHLD, info, Origin::Inside);
        self.child_queue.wake_all();
    }

    /// The process, a tracer perhaps, ends: its tracees are free, or die with it.
    pub(crate) fn release_tracees(&self) {
        let mut tracing = self.tracing.lock();
        let tracees = core::mem::take(&mut tracing.tracees);
        tracing.ended.clear();
        drop(tracing);
        for tracee in tracees {
            let options = self.let_go(&tracee);
            machine::thread::cond_resched();
            if options.contains(Options::EXIT_KILL) {
                let info = SigInfo::kernel(Signal::KILL);
                // This one is never refused.
                let _ = tracee.process().signal(Signal::KILL, info, Origin::Inside);
            }
        }
    }

    /// Lets go of `tracee` if it is this process's; the options it was traced with.
    fn let_go(&self, tracee: &Thread) -> Options {
        let mut state = tracee.trace.state.lock();
        let link = state.link.as_ref();
        let Some(link) = link.filter(|l| core::ptr::eq(l.tracer.as_ptr(), self)) else {
            return Options::empty();
        };
        let options = link.options;
        let signal = state.stopped.as_ref().map_or(0, |s| s.signal());
        tracee.unlink(&mut state, signal);
        options
    }
}

impl Resume {
    /// The way of going on that it asks for.
    pub(super) fn mode(self) -> Mode {
        match self {
            Resume::Free => Mode::Free,
            Resume::Calls => Mode::Calls,
            Resume::Step => Mode::Step,
        }
    }
}
