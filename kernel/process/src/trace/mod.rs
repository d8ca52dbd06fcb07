//! Tracing of threads by another process (ptrace(2)).
//!
//! A tracee stops by itself, at the places of [`stop`]: it lays its registers down in
//! its [`State`], tells the tracer and sleeps until that lets it go on, or until it
//! has to end, whatever the tracer does. Only between the two does the tracer get at
//! them ([`request`]). On Linux the tracer is one thread; here it is a process, all of
//! whose threads may act.
//!
//! Locks, outer first: the family tree, `Process::tracing`, `Thread::trace`.

mod attach;
mod debug;
mod general;
mod request;
mod stop;

pub use attach::Options;
pub use debug::DebugRegisters;
pub(crate) use debug::Met;
pub use general::General;
pub use request::{Resume, Stopped};
pub use stop::{CallStop, Event};

use crate::{ExitStatus, Pid, Process, Thread};
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use machine::sync::SpinLock;
use machine::wait::WaitQueue;

/// Threads whose system calls are watched, of all worlds.
static WATCHED: AtomicUsize = AtomicUsize::new(0);

/// Whether system calls of some thread are watched. As long as it says no, a call
/// needs no further look.
#[inline]
#[must_use]
pub fn some_watched() -> bool {
    WATCHED.load(Relaxed) != 0
}

/// Asks for a look at every call of every thread, or no longer (the trace in the log).
pub fn watch_all(on: bool) {
    match on {
        true => WATCHED.fetch_add(1, SeqCst),
        false => WATCHED.fetch_sub(1, SeqCst),
    };
}

/// What a tracee was told to go on with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Until an event or a signal.
    #[default]
    Free,
    /// To the beginning or end of a system call.
    Calls,
    /// One instruction.
    Step,
}

/// Who traces a thread, and how.
pub(crate) struct Link {
    pub(crate) tracer: Weak<Process>,
    pub(crate) tracer_pid: Pid,
    /// The tracer may hold what it lets `execve` give (`CAP_SYS_PTRACE`).
    pub(crate) privileged: bool,
    /// By `PTRACE_SEIZE`.
    pub(crate) seized: bool,
    pub(crate) options: Options,
    pub(crate) mode: Mode,
    /// A stop without further cause is due (`PTRACE_INTERRUPT`, a new task).
    pub(crate) trap_due: bool,
    /// It stays in a group stop and waits for the next event (`PTRACE_LISTEN`).
    pub(crate) listening: bool,
    /// The group stop that it has stopped for already.
    pub(crate) seen_stop: u64,
    /// It was stopped when it was attached to, and is about to stop for the tracer instead.
    pub(crate) entering: bool,
}

/// What the lock of a [`Trace`] guards.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) link: Option<Link>,
    pub(crate) stopped: Option<Box<Stopped>>,
    /// The thread has ended: it cannot be traced any more.
    pub(crate) ended: bool,
}

impl State {
    /// It stops for the tracer, or is not stopped any more: whoever attached to it goes on.
    fn has_entered(&mut self, queue: &WaitQueue) {
        let Some(link) = self.link.as_mut().filter(|l| l.entering) else {
            return;
        };
        link.entering = false;
        queue.wake_all();
    }
}

/// The traced side of a thread.
#[derive(Default)]
pub struct Trace {
    /// It is traced: to look at without the lock.
    traced: AtomicBool,
    /// Its calls are watched, and so it counts in [`WATCHED`].
    watched: AtomicBool,
    /// The trap flag was set for the tracer and goes when the thread stops.
    stepping: AtomicBool,
    /// What `exit` was given.
    exit_code: AtomicU8,
    pub(crate) state: SpinLock<State>,
    /// Changed by the thread itself; in a stop its tracer has a copy.
    debug: SpinLock<Option<Box<DebugRegisters>>>,
    /// The tracee sleeps here in a stop.
    queue: WaitQueue,
    /// Room for floating-point state, kept from stop to stop.
    image: SpinLock<Vec<u8>>,
}

impl Trace {
    /// Whether a process traces the thread.
    #[inline]
    pub(crate) fn is_traced(&self) -> bool {
        self.traced.load(Relaxed)
    }

    fn watch(&self, on: bool) {
        if self.watched.swap(on, SeqCst) != on {
            watch_all(on);
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.watch(false);
    }
}

/// A tracee that has ended and whose tracer, not being its parent or it not being a
/// whole process, hears of it here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) tid: Pid,
    pub(crate) uid: u32,
    pub(crate) group: Pid,
    pub(crate) status: ExitStatus,
}

/// The tracing side of a process.
#[derive(Default)]
pub(crate) struct Tracing {
    pub(crate) tracees: Vec<Arc<Thread>>,
    pub(crate) ended: Vec<Ended>,
}

impl Thread {
    /// Whether a process traces it.
    #[must_use]
    pub fn is_traced(&self) -> bool {
        self.trace.is_traced()
    }

    /// The number of the process that traces it; 0 for none.
    #[must_use]
    pub fn tracer_pid(&self) -> Pid {
        let state = self.trace.state.lock();
        state.link.as_ref().map_or(0, |l| l.tracer_pid)
    }

    /// Whether it is in a stop for its tracer.
    #[must_use]
    pub fn is_trace_stopped(&self) -> bool {
        self.trace.state.lock().stopped.is_some()
    }

    /// Whether `execve` must not give it rights that its tracer has not.
    pub(crate) fn is_traced_by_the_unprivileged(&self) -> bool {
        let state = self.trace.state.lock();
        state.link.as_ref().is_some_and(|l| !l.privileged)
    }

    /// Whether `process` traces it.
    #[must_use]
    pub fn is_traced_by(&self, process: &Process) -> bool {
        let state = self.trace.state.lock();
        let link = state.link.as_ref();
        link.is_some_and(|l| core::ptr::eq(l.tracer.as_ptr(), process))
    }
}
