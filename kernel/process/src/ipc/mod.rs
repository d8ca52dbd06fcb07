//! System V interprocess communication (sysvipc(7)), one namespace for each world:
//! shared memory ([`shm`]), semaphore sets ([`sem`]) and message queues ([`msg`]);
//! and POSIX message queues ([`mqueue`]).
//!
//! Each kind has a [`Table`] of objects under a spin lock; an object has a lock of
//! its own, taken after the table's. Sleeping happens with neither.

mod charge;
pub mod mqueue;
pub mod msg;
pub mod sem;
pub mod shm;
mod show;
mod table;

pub use show::files;
pub(crate) use table::Table;
pub use table::{Entry, Perm, Wanted};

use crate::Pid;
use machine::sync::SpinLock;
use vfs::Credentials;

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No object with this key or name (`ENOENT`).
    NotFound,
    /// There is one already (`EEXIST`).
    Exists,
    /// No such identifier, or an argument that makes no sense (`EINVAL`).
    Invalid,
    /// The mode forbids it (`EACCES`).
    Denied,
    /// Only owner, maker or the privileged may do that (`EPERM`).
    NotPermitted,
    /// The object was removed meanwhile (`EIDRM`).
    Removed,
    /// There are as many as there may be (`ENOSPC`).
    NoSpace,
    /// The capsule has as many open files as it may (`ENFILE`).
    FilesExhausted,
    /// No memory for it (`ENOMEM`).
    NoMemory,
    /// It would have to wait (`EAGAIN`).
    WouldBlock,
    /// No message of that kind (`ENOMSG`).
    NoMessage,
    /// The message is longer than the buffer, or there are too many operations
    /// (`E2BIG`).
    TooBig,
    /// No semaphore of that number (`EFBIG`).
    NoSuchSemaphore,
    /// A value out of range (`ERANGE`).
    Range,
    /// The message is longer than the queue takes (`EMSGSIZE`).
    MessageSize,
    /// Somebody else is to be told already (`EBUSY`).
    Busy,
    /// Not open for this, or no queue (`EBADF`).
    BadDescriptor,
    /// The name is too long (`ENAMETOOLONG`).
    NameTooLong,
    /// The time is up (`ETIMEDOUT`).
    TimedOut,
    /// A signal came first (`EINTR`).
    Interrupted,
}

/// What a call gives.
pub type Result<T> = core::result::Result<T, Error>;

crate::error::from_the_machine!(Error);

/// Who calls.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// With which rights.
    pub cred: &'a Credentials,
    /// Its process.
    pub pid: Pid,
}

/// The namespace of a world.
#[derive(Default)]
pub struct Ipc {
    pub(crate) shm: SpinLock<Table<shm::Segment>>,
    pub(crate) sem: SpinLock<Table<sem::Set>>,
    pub(crate) msg: SpinLock<Table<msg::Queue>>,
    pub(crate) mqueues: mqueue::Names,
}

impl Ipc {
    /// The process `pid` has ended.
    pub(crate) fn process_ended(&self, pid: Pid) {
        self.undo(pid);
        self.mqueues.forget(pid);
    }

    /// Its world is empty: all objects go.
    pub(crate) fn clear(&self) {
        let gone = (
            core::mem::take(&mut *self.shm.lock()),
            core::mem::take(&mut *self.sem.lock()),
            core::mem::take(&mut *self.msg.lock()),
        );
        drop(gone);
        self.mqueues.clear();
    }

    /// The POSIX message queues.
    #[must_use]
    pub fn mqueues(&self) -> &mqueue::Names {
        &self.mqueues
    }
}

/// Seconds since 1970, as these objects tell times.
pub(crate) fn now() -> i64 {
    machine::time::wall().div_euclid(1_000_000_000)
}

#[cfg(test)]
mod tests;
