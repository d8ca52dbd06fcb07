//! A thread of a process.

use crate::futex::Waiter;
use crate::rseq::Rseq;
use crate::schedule::{Kept, Schedule};
use crate::seccomp::Seccomp;
use crate::signal::ThreadSignals;
use crate::slot::Slot;
use crate::trace::Trace;
use crate::transfers::Counter;
use crate::{Pid, Process};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use machine::sync::{Once, SpinLock};
use mm::AddressSpace;
use vfs::{Credentials, FdTable, FsContext};

/// Bytes of a thread's name, its NUL included.
pub const COMM_LEN: usize = 16;

/// A thread of a program. The machine's thread that runs it has it as data:
/// `machine::thread::current().data::<Arc<Thread>>()`.
pub struct Thread {
    /// Changes only when a thread other than the first calls `execve`.
    pub(crate) tid: AtomicU32,
    pub(crate) process: Arc<Process>,
    machine: Once<Weak<machine::thread::Thread>>,
    comm: SpinLock<[u8; COMM_LEN]>,
    /// Its memory.
    pub space: Slot<AddressSpace>,
    /// Its descriptors.
    pub files: Slot<FdTable>,
    /// Its root, working directory and umask.
    pub fs: Slot<FsContext>,
    /// Who it acts as.
    pub cred: Slot<Credentials>,
    /// Its signal state.
    pub signals: ThreadSignals,
    futex: Waiter,
    /// Cleared and woken when it ends (set_tid_address(2)).
    clear_child_tid: AtomicUsize,
    /// Head of its list of robust futexes (set_robust_list(2)).
    robust_list: AtomicUsize,
    pub(crate) first_run: FirstRun,
    pub(crate) rseq: Rseq,
    /// What it said about its memory and I/O.
    pub hints: Hints,
    pub(crate) schedule: Kept,
    /// Its side of ptrace(2).
    pub(crate) trace: Trace,
    /// What it allows itself to call.
    pub(crate) seccomp: Seccomp,
    faults: AtomicU64,
    /// What it has read.
    pub reads: Counter,
    /// What it has written.
    pub writes: Counter,
}

/// What a new thread does before it enters user mode for the first time.
#[derive(Default)]
pub(crate) struct FirstRun {
    pub(crate) due: AtomicBool,
    /// Where its number is written (`CLONE_CHILD_SETTID`).
    pub(crate) set_tid: AtomicUsize,
    /// Its segment bases.
    pub(crate) fs_base: AtomicUsize,
    pub(crate) gs_base: AtomicUsize,
}

/// What a thread shares or gets.
pub(crate) struct Parts {
    pub(crate) space: Arc<AddressSpace>,
    pub(crate) files: Arc<FdTable>,
    pub(crate) fs: Arc<FsContext>,
    pub(crate) cred: Arc<Credentials>,
    pub(crate) signals: ThreadSignals,
    pub(crate) comm: [u8; COMM_LEN],
    pub(crate) rseq: Rseq,
    pub(crate) hints: Hints,
    pub(crate) schedule: Schedule,
}

/// What a thread said about its memory and I/O, to be told again: numbers of the
/// system-call interface.
#[derive(Default)]
pub struct Hints {
    /// Memory policy.
    pub memory_policy: AtomicU32,
    /// I/O priority.
    pub io_priority: AtomicU32,
}

impl Hints {
    /// What a child starts with.
    pub(crate) fn inherited(&self) -> Hints {
        Hints {
            memory_policy: AtomicU32::new(self.memory_policy.load(Relaxed)),
            io_priority: AtomicU32::new(self.io_priority.load(Relaxed)),
        }
    }
}

impl Thread {
    pub(crate) fn new(tid: Pid, process: Arc<Process>, parts: Parts) -> Thread {
        Thread {
            tid: AtomicU32::new(tid),
            process,
            machine: Once::new(),
            comm: SpinLock::new(parts.comm),
            space: Slot::new(Some(parts.space)),
            files: Slot::new(Some(parts.files)),
            fs: Slot::new(Some(parts.fs)),
            cred: Slot::new(Some(parts.cred)),
            signals: parts.signals,
            futex: Waiter::default(),
            clear_child_tid: AtomicUsize::new(0),
            robust_list: AtomicUsize::new(0),
            first_run: FirstRun::default(),
            rseq: parts.rseq,
            hints: parts.hints,
            schedule: Kept::new(parts.schedule),
            trace: Trace::default(),
            seccomp: Seccomp::default(),
            faults: AtomicU64::new(0),
            reads: Counter::default(),
            writes: Counter::default(),
        }
    }

    /// Its number.
    #[inline]
    #[must_use]
    pub fn tid(&self) -> Pid {
        self.tid.load(Relaxed)
    }

    /// The process it is part of.
    #[inline]
    #[must_use]
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// The machine's thread that runs it, unless that is gone.
    #[must_use]
    pub fn machine(&self) -> Option<Arc<machine::thread::Thread>> {
        self.machine.get()?.upgrade()
    }

    pub(crate) fn set_machine(&self, machine: &Arc<machine::thread::Thread>) {
        self.machine.call_once(|| Arc::downgrade(machine));
    }

    /// Has it look at its signals before it goes on in user mode.
    pub fn alert(&self) {
        let current = machine::thread::current();
        let me = current.data::<Arc<Thread>>();
        if me.is_some_and(|me| core::ptr::eq(&raw const **me, self)) {
            current.raise_attention();
        } else if let Some(m) = self.machine() {
            m.raise_attention();
        }
    }

    /// Whether it has to end instead of going on: its process ends, or another
    /// thread of it calls `execve`.
    #[inline]
    #[must_use]
    pub fn must_end(&self) -> bool {
        let by = self.process.exec_by.load(Relaxed);
        by != 0 && by != self.tid() || self.process.exit_status().is_some()
    }

    /// Its name: the program's file name, or what `PR_SET_NAME` said.
    #[must_use]
    pub fn comm(&self) -> String {
        comm_text(&self.comm_bytes())
    }

    /// Its name, padded with NULs.
    #[must_use]
    pub fn comm_bytes(&self) -> [u8; COMM_LEN] {
        *self.comm.lock()
    }

    /// Sets its name; what does not fit is cut off.
    pub fn set_comm(&self, name: &[u8]) {
        *self.comm.lock() = comm_from(name);
    }

    /// Where zero goes when it ends.
    pub fn set_clear_child_tid(&self, addr: usize) {
        self.clear_child_tid.store(addr, Relaxed);
    }

    pub(crate) fn take_clear_child_tid(&self) -> usize {
        self.clear_child_tid.swap(0, Relaxed)
    }

    /// Its waiting side in the futex table.
    #[inline]
    #[must_use]
    pub fn futex(&self) -> &Waiter {
        &self.futex
    }

    /// Head of its list of robust futexes; 0 for none.
    #[must_use]
    pub fn robust_list(&self) -> usize {
        self.robust_list.load(Relaxed)
    }

    /// Sets that.
    pub fn set_robust_list(&self, head: usize) {
        self.robust_list.store(head, Relaxed);
    }

    /// Page faults so far.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.faults.load(Relaxed)
    }

    /// Counts a page fault. Only the thread itself does, so this needs no locked
    /// instruction.
    #[inline]
    pub(crate) fn count_fault(&self) {
        let n = self.faults.load(Relaxed);
        self.faults.store(n + 1, Relaxed);
    }
}

/// The name in `raw`, without its padding.
pub(crate) fn comm_text(raw: &[u8; COMM_LEN]) -> String {
    let name = raw.split(|b| *b == 0).next().unwrap_or(raw);
    String::from_utf8_lossy(name).into_owned()
}

/// A thread name made from `name`.
pub(crate) fn comm_from(name: &[u8]) -> [u8; COMM_LEN] {
    let mut comm = [0; COMM_LEN];
    let name = name.split(|b| *b == 0).next().unwrap_or(name);
    for (c, b) in comm.iter_mut().zip(name.iter().take(COMM_LEN - 1)) {
        *c = *b;
    }
    comm
}
