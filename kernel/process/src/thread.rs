//! A thread of a process.

use crate::{Pid, Process};
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use machine::sync::SpinLock;

/// A thread of a program. The machine's thread that runs it has it as data:
/// `machine::thread::current().data::<Arc<Thread>>()`.
pub struct Thread {
    /// Changes only when a thread other than the first calls `execve`.
    tid: AtomicU32,
    process: Arc<Process>,
    comm: SpinLock<[u8; 16]>,
}

impl Thread {
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

    /// Its name: the program's file name, or what `PR_SET_NAME` said.
    #[must_use]
    pub fn comm(&self) -> String {
        let raw = *self.comm.lock();
        let name = raw.split(|b| *b == 0).next().unwrap_or(&raw);
        String::from_utf8_lossy(name).into_owned()
    }
}
