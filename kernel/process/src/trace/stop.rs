//! Where a tracee stops.

use super::{Mode, Options, Stopped};
use crate::signal::{Origin, SigInfo, Signal, code};
use crate::{Change, ExitStatus, Process, Thread};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use machine::thread::{self, UserRegs};

/// The trap flag of `rflags`: an exception after the next instruction.
const TRAP_FLAG: u64 = 0x100;
/// Marks stops at system calls, with [`Options::SYSGOOD`].
const SYSGOOD_MARK: u32 = 0x80;
/// The event of stops without further cause (`PTRACE_EVENT_STOP`).
const EVENT_STOP: u32 = 128;

/// What a tracer can be told of besides signals (`PTRACE_EVENT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `fork`
    Fork = 1,
    /// `vfork`
    Vfork = 2,
    /// Another `clone`
    Clone = 3,
    /// `execve`
    Exec = 4,
    /// The child of a `vfork` has let go of the memory.
    VforkDone = 5,
    /// A thread is about to end.
    Exit = 6,
    /// A filter of system calls asks.
    Seccomp = 7,
}

impl Event {
    fn option(self) -> Options {
        match self {
            Event::Fork => Options::FORK,
            Event::Vfork => Options::VFORK,
            Event::Clone => Options::CLONE,
            Event::Exec => Options::EXEC,
            Event::VforkDone => Options::VFORK_DONE,
            Event::Exit => Options::EXIT,
            Event::Seccomp => Options::SECCOMP,
        }
    }
}

/// Where in a system call a tracee is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallStop {
    /// Elsewhere.
    #[default]
    Outside,
    /// Before it.
    Enter,
    /// After it.
    Exit,
}

/// What a tracer lets a tracee go on with.
#[derive(Default)]
struct Given {
    /// The signal, or 0.
    signal: u8,
    /// Its `siginfo`, as the tracer leaves it.
    info: Option<SigInfo>,
}

/// Why a tracee stops.
struct Cause {
    code: u32,
    info: Option<SigInfo>,
    message: u64,
    call: CallStop,
    for_signal: bool,
    for_group: bool,
}

impl Cause {
    /// `SIGTRAP` with `above` over it.
    fn trap(me: &Thread, above: u32) -> Cause {
        let code = u32::from(Signal::TRAP.number()) | above;
        let (pid, uid) = (me.tid(), me.process().uid());
        Cause {
            code,
            info: Some(SigInfo::sent(Signal::TRAP, code as i32, pid, uid)),
            message: 0,
            call: CallStop::Outside,
            for_signal: false,
            for_group: false,
        }
    }
}

impl Thread {
    /// Stops for the tracer until it says how to go on, or until the thread has to end.
    fn trace_stop(&self, regs: &mut UserRegs, cause: Cause) -> Given {
        self.undo_step(regs);
        let ending = self.must_end();
        let stopped = Box::new(Stopped {
            regs: *regs,
            bases: thread::segment_bases(),
            debug: self.debug(),
            image: self.fpu_image(),
            image_changed: false,
            info: cause.info,
            message: cause.message,
            call: cause.call,
            code: cause.code,
            for_signal: cause.for_signal,
            for_group: cause.for_group,
            told: false,
            resume: None,
        });
        let mut state = self.trace.state.lock();
        let tracer = state.link.as_ref().and_then(|l| l.tracer.upgrade());
        let Some(tracer) = tracer else {
            // It was let go a moment ago: a signal is delivered as it came.
            return Given {
                signal: stopped.signal(),
                info: cause.info,
            };
        };
        state.stopped = Some(stopped);
        state.has_entered(&self.trace.queue);
        drop(state);
        tracer.tracee_stopped(self, cause.code);
        drop(tracer);
        // A thread that stops on its way out goes on for a SIGKILL alone.
        let over = || {
            let state = self.trace.state.lock();
            let resumed = state.stopped.as_ref().is_none_or(|s| s.resume.is_some());
            let ends = match ending {
                true => self.process().was_killed(),
                false => self.must_end(),
            };
            (resumed || ends).then_some(())
        };
        self.trace.queue.wait(over);
        let stopped = self.trace.state.lock().stopped.take();
        stopped.map_or_else(Given::default, |s| self.take_back(regs, *s))
    }

    /// The tracer is done: what it has changed is in force.
    fn take_back(&self, regs: &mut UserRegs, stopped: Stopped) -> Given {
        *regs = stopped.regs;
        let (fs, gs) = stopped.bases;
        if (fs, gs) != thread::segment_bases() {
            // Both were checked when they were set.
            let _ = thread::set_segment_bases(Some(fs), Some(gs));
        }
        self.set_debug(stopped.debug);
        if stopped.image_changed {
            // As above.
            let _ = thread::fpu_load(&stopped.image);
        }
        *self.trace.image.lock() = stopped.image;
        Given {
            signal: stopped.resume.unwrap_or(0),
            info: stopped.info,
        }
    }

    pub(crate) fn fpu_image(&self) -> alloc::vec::Vec<u8> {
        let mut image = core::mem::take(&mut *self.trace.image.lock());
        let size = thread::fpu_size();
        let missing = size.saturating_sub(image.len());
        if image.try_reserve_exact(missing).is_err() {
            return alloc::vec::Vec::new();
        }
        image.resize(size, 0);
        thread::fpu_save(&mut image);
        image
    }

    /// A signal is to be delivered: what the tracer makes of it.
    pub(crate) fn signal_stop(
        &self,
        regs: &mut UserRegs,
        signal: Signal,
        info: SigInfo,
    ) -> Option<(Signal, SigInfo)> {
        let cause = Cause {
            code: u32::from(signal.number()),
            info: Some(info),
            for_signal: true,
            ..Cause::trap(self, 0)
        };
        let state = self.trace.state.lock();
        let tracer = state.link.as_ref().and_then(|l| l.tracer.upgrade());
        drop(state);
        let (pid, uid) = tracer.map_or((0, 0), |t| (t.pid(), t.uid()));
        let Given {
            signal: given,
            info,
        } = self.trace_stop(regs, cause);
        let given = Signal::new(usize::from(given))?;
        let info = info
            .filter(|i| given == signal && i.signal() == Some(given))
            .unwrap_or_else(|| SigInfo::sent(given, code::SI_USER, pid, uid));
        if self.signals.blocked().contains(given) {
            // It waits like any other.
            let _ = self.signal(given, info, Origin::Inside);
            return None;
        }
        Some((given, info))
    }

    /// Stops if an event without further cause is due: whether it did.
    pub(crate) fn stop_if_due(&self, regs: &mut UserRegs) -> bool {
        if !self.trace.is_traced() {
            return false;
        }
        let mut state = self.trace.state.lock();
        let Some(link) = state.link.as_mut().filter(|l| l.trap_due) else {
            return false;
        };
        link.trap_due = false;
        drop(state);
        let stop = self.process().inner.lock().stop.as_ref().map(|s| s.signal);
        let mut cause = Cause::trap(self, EVENT_STOP << 8);
        if let Some(signal) = stop {
            cause.code = u32::from(signal.number()) | EVENT_STOP << 8;
            cause.for_group = true;
            self.note_group_stop();
        }
        self.trace_stop(regs, cause);
        true
    }

    /// Whether the process stops and the tracer has not seen this thread do so.
    pub(crate) fn owes_group_stop(&self) -> bool {
        if !self.trace.is_traced() {
            return true;
        }
        let serial = self.process().stop_serial.load(SeqCst);
        let state = self.trace.state.lock();
        state.link.as_ref().is_none_or(|l| l.seen_stop != serial)
    }

    fn note_group_stop(&self) {
        let serial = self.process().stop_serial.load(SeqCst);
        if let Some(link) = self.trace.state.lock().link.as_mut() {
            link.seen_stop = serial;
        }
    }

    /// A traced thread's part in a stop of its process.
    pub(crate) fn group_stop(&self, regs: &mut UserRegs, signal: Signal) {
        self.note_group_stop();
        let state = self.trace.state.lock();
        let seized = state.link.as_ref().is_some_and(|l| l.seized);
        drop(state);
        let event = if seized { EVENT_STOP << 8 } else { 0 };
        let cause = Cause {
            code: u32::from(signal.number()) | event,
            info: None,
            for_group: true,
            ..Cause::trap(self, 0)
        };
        self.trace_stop(regs, cause);
    }

    /// Whether it has a tracer that wants to know of `event`.
    pub(crate) fn wants(&self, event: Event) -> bool {
        let state = self.trace.state.lock();
        let options = state.link.as_ref().map(|l| l.options);
        options.is_some_and(|o| o.contains(event.option()))
    }

    /// Stops if the tracer wants to know of `event`, with `message` about it.
    pub fn trace_event(&self, regs: &mut UserRegs, event: Event, message: u64) {
        if self.trace.is_traced() && self.wants(event) {
            let cause = Cause {
                message,
                ..Cause::trap(self, (event as u32) << 8)
            };
            self.trace_stop(regs, cause);
        }
    }

    /// It has become another program: the tracer is told, by an event or as of old by
    /// a `SIGTRAP`. `former` was its number before.
    pub(crate) fn trace_exec(&self, regs: &mut UserRegs, former: crate::Pid) {
        if !self.trace.is_traced() {
            return;
        }
        if self.wants(Event::Exec) {
            return self.trace_event(regs, Event::Exec, u64::from(former));
        }
        let state = self.trace.state.lock();
        let seized = state.link.as_ref().is_some_and(|l| l.seized);
        drop(state);
        if !seized {
            let info = SigInfo::sent(Signal::TRAP, code::SI_USER, self.tid(), 0);
            // A standard signal is never refused.
            let _ = self.signal(Signal::TRAP, info, Origin::Inside);
        }
    }

    /// The thread ends: its tracer may look at it once more.
    pub(crate) fn stop_before_end(&self, regs: &mut UserRegs) {
        if !self.trace.is_traced() || self.process().was_killed() {
            return;
        }
        let code = self.trace.exit_code.load(Relaxed);
        let status = self.process().exit_status();
        let status = status.unwrap_or(ExitStatus::Exited(code));
        let word = Change::Ended(status).word();
        self.trace_event(regs, Event::Exit, word as u64);
    }

    /// What a tracer that follows children is told of the making of `child`, which
    /// becomes its tracee: the event, or nothing.
    pub(crate) fn trace_making(
        &self,
        child: &Arc<Thread>,
        flags: crate::clone::CloneFlags,
        exit_signal: Option<Signal>,
    ) -> Option<Event> {
        use crate::clone::CloneFlags;
        if !self.trace.is_traced() || flags.contains(CloneFlags::UNTRACED) {
            return None;
        }
        let event = if flags.contains(CloneFlags::VFORK) {
            Event::Vfork
        } else if exit_signal == Some(Signal::CHLD) {
            Event::Fork
        } else {
            Event::Clone
        };
        let wanted = self.wants(event);
        if wanted || flags.contains(CloneFlags::PTRACE) {
            self.trace_child(child);
        }
        wanted.then_some(event)
    }

    fn mode(&self) -> Option<Mode> {
        if !self.trace.is_traced() {
            return None;
        }
        self.trace.state.lock().link.as_ref().map(|l| l.mode)
    }

    fn call_stop(&self, regs: &mut UserRegs, call: CallStop) {
        let state = self.trace.state.lock();
        let good = state
            .link
            .as_ref()
            .is_some_and(|l| l.options.contains(Options::SYSGOOD));
        drop(state);
        let mark = if good { SYSGOOD_MARK } else { 0 };
        let cause = Cause {
            call,
            message: if call == CallStop::Enter { 1 } else { 2 },
            ..Cause::trap(self, mark)
        };
        let given = self.trace_stop(regs, cause);
        if let Some(signal) = Signal::new(usize::from(given.signal)) {
            // Where the queue is full the signal is lost.
            let _ = self.signal(signal, SigInfo::kernel(signal), Origin::Inside);
        }
    }

    /// A watched thread is about to make a system call. Whether it is to be made: the
    /// tracer may have chosen another one, or none.
    pub fn before_call(&self, regs: &mut UserRegs) -> bool {
        self.undo_step(regs);
        if self.mode() != Some(Mode::Calls) {
            return true;
        }
        /// What a call that is not made answers (`ENOSYS`).
        const NO_CALL: u64 = (-38i64) as u64;
        regs.rax = NO_CALL;
        self.call_stop(regs, CallStop::Enter);
        // The number is an `int`, as Linux takes it.
        (regs.orig_rax as i32) >= 0 && !self.must_end()
    }

    /// A watched thread has made a system call, or not.
    pub fn after_call(&self, regs: &mut UserRegs) {
        match self.mode() {
            Some(Mode::Calls) => self.call_stop(regs, CallStop::Exit),
            // The instruction that was to be stepped over is the call.
            Some(Mode::Step) => {
                let info = SigInfo::fault(Signal::TRAP, code::TRAP_BRKPT, regs.rip as usize);
                self.force(Signal::TRAP, info);
            }
            Some(Mode::Free) | None => {}
        }
    }

    /// A handler was set up while the tracer steps: it stops at its first instruction.
    pub(crate) fn step_into_handler(&self, regs: &mut UserRegs) {
        if self.mode() == Some(Mode::Step) {
            let cause = Cause::trap(self, 0);
            self.trace_stop(regs, cause);
        }
    }

    /// On the way to user mode: the next instruction ends in a trap if the tracer
    /// steps.
    pub(crate) fn prepare_step(&self, regs: &mut UserRegs) {
        if self.mode() == Some(Mode::Step) && regs.rflags & TRAP_FLAG == 0 {
            regs.rflags |= TRAP_FLAG;
            self.trace.stepping.store(true, Relaxed);
        }
    }

    /// The trap flag is the program's own again.
    fn undo_step(&self, regs: &mut UserRegs) {
        if self.trace.stepping.swap(false, Relaxed) {
            regs.rflags &= !TRAP_FLAG;
        }
    }
}

impl Process {
    /// `tracee` has stopped: the calling side of `SIGCHLD` and `wait`.
    fn tracee_stopped(&self, tracee: &Thread, code: u32) {
        let wanted = self.actions.with(|a| {
            let flags = a.get(Signal::CHLD).flags();
            !flags.contains(crate::signal::ActionFlags::NOCLDSTOP)
        });
        if wanted == Some(true) {
            let (why, _) = Change::Traced(code).code_and_status();
            let status = (code & 0x7f) as i32;
            let uid = tracee.process().uid();
            let info = SigInfo::child(why, tracee.tid(), uid, status, (0, 0));
            // A standard signal is never refused.
            let _ = self.signal(Signal::CHLD, info, Origin::Inside);
        }
        self.child_queue.wake_all();
    }
}
