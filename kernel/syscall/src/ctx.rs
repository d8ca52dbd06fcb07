//! What a handler is given: the calling thread and its registers.

use alloc::sync::Arc;
use machine::thread::UserRegs;
use process::{Process, Thread, World};

/// The calling thread, for the time of one call.
pub struct Ctx<'a> {
    /// The program's registers, the call's arguments among them. A handler that
    /// changes them (`rt_sigreturn`, `execve`) says what it wants in `rax` too.
    pub regs: &'a mut UserRegs,
    thread: &'a Arc<Thread>,
}

impl<'a> Ctx<'a> {
    /// A context for the thread that runs this code.
    #[inline]
    pub(crate) fn new(regs: &'a mut UserRegs, thread: &'a Arc<Thread>) -> Ctx<'a> {
        Ctx { regs, thread }
    }

    /// The calling thread.
    #[inline]
    #[must_use]
    pub fn thread(&self) -> &'a Arc<Thread> {
        self.thread
    }

    /// Its process.
    #[inline]
    #[must_use]
    pub fn process(&self) -> &'a Arc<Process> {
        self.thread.process()
    }

    /// The capsule's processes, limits, host name and network.
    #[inline]
    #[must_use]
    pub fn world(&self) -> &'a Arc<World> {
        self.thread.process().world()
    }
}
