//! Memory barriers on other CPUs (membarrier(2)).

use crate::{Error, Process, Result, Thread};
use bitflags::bitflags;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

bitflags! {
    /// Commands, with the numbers of the call.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Barrier: u32 {
        /// All threads of the system.
        const GLOBAL = 1;
        /// All threads of processes that have asked for it.
        const GLOBAL_EXPEDITED = 1 << 1;
        /// Asks for it.
        const REGISTER_GLOBAL_EXPEDITED = 1 << 2;
        /// The threads of this process.
        const PRIVATE_EXPEDITED = 1 << 3;
        /// Means to use it.
        const REGISTER_PRIVATE_EXPEDITED = 1 << 4;
        /// They also see new code.
        const PRIVATE_EXPEDITED_SYNC_CORE = 1 << 5;
        /// Means to use it.
        const REGISTER_PRIVATE_EXPEDITED_SYNC_CORE = 1 << 6;
        /// They also leave restartable sequences.
        const PRIVATE_EXPEDITED_RSEQ = 1 << 7;
        /// Means to use it.
        const REGISTER_PRIVATE_EXPEDITED_RSEQ = 1 << 8;
        /// Tells what was registered.
        const GET_REGISTRATIONS = 1 << 9;
    }
}

impl Process {
    /// Does one command; what it answers.
    ///
    /// # Errors
    /// [`Error::Invalid`] for none of the commands; [`Error::NotPermitted`] for
    /// one that was not registered before.
    pub fn membarrier(&self, me: &Thread, command: Barrier) -> Result<u32> {
        let private = |registration: Barrier| {
            let registered = self.barriers.load(Relaxed) & registration.bits() != 0;
            registered.then_some(()).ok_or(Error::NotPermitted)
        };
        match command {
            // Whoever might have registered hears of it.
            Barrier::GLOBAL | Barrier::GLOBAL_EXPEDITED => machine::cpu::barrier(),
            Barrier::PRIVATE_EXPEDITED => {
                private(Barrier::REGISTER_PRIVATE_EXPEDITED)?;
                self.barrier(me);
            }
            Barrier::PRIVATE_EXPEDITED_SYNC_CORE => {
                private(Barrier::REGISTER_PRIVATE_EXPEDITED_SYNC_CORE)?;
                self.barrier(me);
            }
            Barrier::PRIVATE_EXPEDITED_RSEQ => {
                private(Barrier::REGISTER_PRIVATE_EXPEDITED_RSEQ)?;
                // Those that run pass through the kernel at the barrier, and settle
                // there; the others do when they go on.
                for t in &self.inner.lock().threads {
                    if let Some(m) = t.machine() {
                        m.mark_switched();
                    }
                }
                self.barrier(me);
            }
            Barrier::REGISTER_GLOBAL_EXPEDITED
            | Barrier::REGISTER_PRIVATE_EXPEDITED
            | Barrier::REGISTER_PRIVATE_EXPEDITED_SYNC_CORE
            | Barrier::REGISTER_PRIVATE_EXPEDITED_RSEQ => {
                self.barriers.fetch_or(command.bits(), SeqCst);
            }
            Barrier::GET_REGISTRATIONS => return Ok(self.barriers.load(Relaxed)),
            _ => return Err(Error::Invalid),
        }
        Ok(0)
    }

    fn barrier(&self, me: &Thread) {
        if let Some(space) = me.space.get() {
            space.page_table().barrier();
        }
    }
}
