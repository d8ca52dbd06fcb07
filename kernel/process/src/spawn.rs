//! Processes that the kernel itself starts: a world's first one, and programs
//! beside it on the owner's behalf.

use crate::clone::NewTask;
use crate::family::{INIT, Place};
use crate::program::{Invocation, Ready, prepare};
use crate::rseq::Rseq;
use crate::schedule::Schedule;
use crate::signal::{Actions, SigSet, ThreadSignals};
use crate::thread::{Hints, Parts};
use crate::{Error, Process, Result, Thread, World};
use alloc::boxed::Box;
use alloc::sync::Arc;
use machine::thread::{Builder, FpuInit, STACK_PAGES};
use vfs::{FdTable, FsContext, Path};

/// What a process that the kernel starts begins with.
pub struct Birth {
    /// Root, working directory and umask.
    pub fs: Arc<FsContext>,
    /// Its descriptors.
    pub files: Arc<FdTable>,
}

impl World {
    /// Makes the process that runs the program at `path`: number 1 if the world has
    /// none yet, else one whose parent is nobody. It leads a session and a group of
    /// its own. It does not run before [`NewTask::start`].
    ///
    /// # Errors
    /// Those of execve(2); [`Error::LimitReached`].
    pub fn spawn(
        self: &Arc<World>,
        birth: Birth,
        what: Invocation<'_>,
        path: &Path,
    ) -> Result<NewTask> {
        let ready = prepare(what, path)?;
        let stack = self.account().hold(STACK_PAGES)?;
        let thread = self.add_first_thread(birth, &ready)?;
        let machine = Builder::new(&thread.comm())
            .group(self.group().clone())
            .stack(stack)
            .data(Box::new(thread.clone()))
            .user(ready.regs, ready.space.page_table().clone(), FpuInit::Fresh);
        match machine {
            Ok(machine) => {
                thread.set_machine(&machine);
                // A signal that came already is looked at before it enters user mode.
                machine.raise_attention();
                Ok(NewTask::of_process(thread, machine))
            }
            Err(e) => {
                crate::clone::withdraw(&thread, true);
                Err(e.into())
            }
        }
    }

    fn add_first_thread(self: &Arc<World>, birth: Birth, ready: &Ready) -> Result<Arc<Thread>> {
        let mut family = self.family.lock();
        let first = family.processes() == 0;
        if self.is_closing() || !first && family.process(INIT).is_none() {
            return Err(Error::NoProcess);
        }
        if family.tasks() as u64 >= u64::from(self.threads_max()) {
            return Err(Error::LimitReached);
        }
        let pid = family.free_number()?;
        let process = Process::new(pid, 0, self.clone(), Arc::new(Actions::new()), None);
        let process = Arc::new(process);
        *process.program.lock() = ready.program.clone();
        process
            .uid
            .store(ready.credentials.uid, core::sync::atomic::Ordering::Relaxed);
        let parts = Parts {
            space: ready.space.clone(),
            files: birth.files,
            fs: birth.fs,
            cred: Arc::new(ready.credentials.clone()),
            signals: ThreadSignals::new(SigSet::default()),
            comm: ready.comm,
            rseq: Rseq::default(),
            hints: Hints::default(),
            schedule: Schedule::FIRST,
        };
        let thread = Arc::new(Thread::new(pid, process.clone(), parts));
        process.inner.lock().threads.push(thread.clone());
        let place = Place {
            parent: 0,
            group: pid,
            session: pid,
        };
        family.add_process(pid, process, place)?;
        if let Err(e) = family.add_thread(pid, thread.clone()) {
            family.reap(pid);
            return Err(e);
        }
        self.count_fork();
        Ok(thread)
    }
}
