//! What a handler is given: the calling thread and its registers.

use crate::errno::Errno;
use alloc::sync::Arc;
use machine::FileCharge;
use machine::thread::UserRegs;
use mm::AddressSpace;
use process::limits::Resource;
use process::{Process, Thread, World};
use vfs::{Credentials, FdTable, FsContext, OpenFile};

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

    /// The file behind `fd`: the way of `read`, `write` and all that need one file.
    ///
    /// # Errors
    /// `EBADF`, also for a descriptor opened with `O_PATH`.
    #[inline]
    pub fn file(&self, fd: usize) -> Result<Arc<OpenFile>, Errno> {
        // A descriptor is an `int`; the upper half of the register does not count.
        let found = self.thread.files.with(|t| t.get_open(fd as i32));
        Ok(found.ok_or(Errno::EBADF)??)
    }

    /// As [`Ctx::file`], for calls that take an `O_PATH` descriptor too.
    ///
    /// # Errors
    /// `EBADF`.
    #[inline]
    pub fn any_file(&self, fd: usize) -> Result<Arc<OpenFile>, Errno> {
        let found = self.thread.files.with(|t| t.get(fd as i32));
        Ok(found.ok_or(Errno::EBADF)??)
    }

    /// The descriptors.
    ///
    /// # Errors
    /// `ESRCH` in a thread that has ended, which makes no calls.
    pub fn files(&self) -> Result<Arc<FdTable>, Errno> {
        self.thread.files.get().ok_or(Errno::ESRCH)
    }

    /// Descriptors the process may have (`RLIMIT_NOFILE`).
    #[must_use]
    pub fn files_limit(&self) -> usize {
        let limit = self.process().limits().soft(Resource::Files);
        usize::try_from(limit).unwrap_or(usize::MAX)
    }

    /// What one more open file takes of those the capsule may have.
    ///
    /// # Errors
    /// `ENFILE`.
    #[inline]
    pub fn file_charge(&self) -> Result<FileCharge, Errno> {
        let charge = self.world().account().charge_file();
        charge.ok_or(Errno::ENFILE)
    }

    /// As [`Ctx::file_charge`], before something that cannot be undone: also fails
    /// when the process has no number left for a descriptor.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn file_charge_and_room(&self) -> Result<FileCharge, Errno> {
        self.files()?.check_room(self.files_limit())?;
        self.file_charge()
    }

    /// Root, working directory and umask.
    ///
    /// # Errors
    /// As [`Ctx::files`].
    pub fn fs(&self) -> Result<Arc<FsContext>, Errno> {
        self.thread.fs.get().ok_or(Errno::ESRCH)
    }

    /// Who acts.
    ///
    /// # Errors
    /// As [`Ctx::files`].
    pub fn cred(&self) -> Result<Arc<Credentials>, Errno> {
        self.thread.cred.get().ok_or(Errno::ESRCH)
    }

    /// The memory.
    ///
    /// # Errors
    /// As [`Ctx::files`].
    pub fn space(&self) -> Result<Arc<AddressSpace>, Errno> {
        self.thread.space.get().ok_or(Errno::ESRCH)
    }
}
