//! What a tracer does with a stopped tracee.

use super::{CallStop, DebugRegisters, Options, State};
use crate::signal::SigInfo;
use crate::{Change, Error, Process, Result, Thread};
use alloc::vec::Vec;
use machine::thread::UserRegs;

/// How a tracee goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// `PTRACE_CONT`
    Free,
    /// `PTRACE_SYSCALL`
    Calls,
    /// `PTRACE_SINGLESTEP`
    Step,
}

/// A tracee in a stop: what its tracer may look at and change.
pub struct Stopped {
    /// Its registers.
    pub regs: UserRegs,
    /// FS and GS base.
    pub bases: (usize, usize),
    /// Its debug registers.
    pub debug: DebugRegisters,
    /// Floating-point and vector state, an `XSAVE` image; empty for want of memory.
    pub image: Vec<u8>,
    /// The tracer has changed that.
    pub image_changed: bool,
    /// Why it stopped; nothing in a group stop.
    pub info: Option<SigInfo>,
    /// `PTRACE_GETEVENTMSG`
    pub message: u64,
    /// Where in a system call it is.
    pub call: CallStop,
    /// What `wait` tells: a signal, and the event above it.
    pub(super) code: u32,
    /// It stopped to take a signal.
    pub(super) for_signal: bool,
    /// A stop of the whole process, which `PTRACE_LISTEN` leaves in force.
    pub(super) for_group: bool,
    /// The tracer has waited for it.
    pub(super) told: bool,
    /// The tracer lets it go on with this signal, or none.
    pub(super) resume: Option<u8>,
}

impl Stopped {
    /// The signal that it stopped to take, or 0.
    pub(super) fn signal(&self) -> u8 {
        match self.for_signal {
            true => self.code as u8 & 0x7f,
            false => 0,
        }
    }
}

impl State {
    /// Whether the thread is stopped for `tracer`.
    pub(super) fn check(&self, tracer: &Process) -> Result<()> {
        let link = self.link.as_ref().ok_or(Error::NoProcess)?;
        let own = core::ptr::eq(link.tracer.as_ptr(), tracer) && !link.listening;
        let stopped = self.stopped.as_ref().is_some_and(|s| s.resume.is_none());
        (own && stopped).then_some(()).ok_or(Error::NoProcess)
    }

    /// Something new for `wait`, which takes it unless `keep`.
    pub(crate) fn news(&mut self, keep: bool) -> Option<Change> {
        let stopped = self.stopped.as_mut()?;
        if stopped.told || stopped.resume.is_some() {
            return None;
        }
        stopped.told = !keep;
        Some(Change::Traced(stopped.code))
    }
}

impl Thread {
    /// Runs `f`, under a spin lock, on this thread, which `tracer` has stopped.
    ///
    /// # Errors
    /// [`Error::NoProcess`] unless it is stopped for `tracer`.
    pub fn with_stopped<R>(
        &self,
        tracer: &Process,
        f: impl FnOnce(&mut Stopped) -> R,
    ) -> Result<R> {
        let mut state = self.trace.state.lock();
        state.check(tracer)?;
        let stopped = state.stopped.as_mut().ok_or(Error::NoProcess)?;
        Ok(f(stopped))
    }

    /// Lets it go on, taking `signal` if it is not 0.
    ///
    /// # Errors
    /// [`Error::NoProcess`] unless it is stopped for `tracer`.
    pub fn resume(&self, tracer: &Process, how: Resume, signal: u8) -> Result<()> {
        let mut state = self.trace.state.lock();
        state.check(tracer)?;
        if let Some(link) = state.link.as_mut() {
            link.mode = how.mode();
        }
        if let Some(stopped) = state.stopped.as_mut() {
            stopped.resume = Some(signal);
        }
        self.trace.watch(how != Resume::Free);
        self.trace.queue.wake_all();
        Ok(())
    }

    /// `PTRACE_SETOPTIONS`
    ///
    /// # Errors
    /// As [`Thread::resume`].
    pub fn set_trace_options(&self, tracer: &Process, options: Options) -> Result<()> {
        let mut state = self.trace.state.lock();
        state.check(tracer)?;
        if let Some(link) = state.link.as_mut() {
            link.options = options;
        }
        Ok(())
    }

    /// `PTRACE_LISTEN`: stays in the group stop it is in, but stops anew when
    /// something happens.
    ///
    /// # Errors
    /// [`Error::NoProcess`] unless it is stopped for `tracer`; [`Error::Invalid`] in
    /// another stop than that, or if it was not seized.
    pub fn listen(&self, tracer: &Process) -> Result<()> {
        let mut state = self.trace.state.lock();
        state.check(tracer)?;
        let group = state.stopped.as_ref().is_some_and(|s| s.for_group);
        let link = state.link.as_mut().filter(|l| l.seized && group);
        link.ok_or(Error::Invalid)?.listening = true;
        drop(state);
        // It may have been continued since it stopped.
        if !self.process().is_stopping() {
            self.stop_anew();
        }
        Ok(())
    }

    /// `PTRACE_INTERRUPT`: has a running tracee stop.
    ///
    /// # Errors
    /// [`Error::NoProcess`] if `tracer` does not trace it; [`Error::Invalid`] if it was
    /// not seized.
    pub fn interrupt(&self, tracer: &Process) -> Result<()> {
        let mut state = self.trace.state.lock();
        let link = state.link.as_mut().ok_or(Error::NoProcess)?;
        if !core::ptr::eq(link.tracer.as_ptr(), tracer) {
            return Err(Error::NoProcess);
        }
        if !link.seized {
            return Err(Error::Invalid);
        }
        link.trap_due = true;
        let listening = link.listening;
        drop(state);
        if listening {
            self.stop_anew();
        } else {
            self.alert();
        }
        Ok(())
    }

    /// The group stop that it listens in is over, or its tracer wants it: it stops
    /// again, and `wait` tells.
    pub(crate) fn stop_anew(&self) {
        let mut state = self.trace.state.lock();
        state.has_entered(&self.trace.queue);
        let Some(link) = state.link.as_mut().filter(|l| l.listening) else {
            return;
        };
        link.listening = false;
        link.trap_due = true;
        if let Some(stopped) = state.stopped.as_mut() {
            stopped.resume = Some(0);
        }
        self.trace.queue.wake_all();
        self.alert();
    }
}
