//! What can fail in this room.

use machine::Fault;

/// Why a request about processes was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No such process, thread or group in this world (`ESRCH`).
    NoProcess,
    /// No child that fits (`ECHILD`).
    NoChild,
    /// The caller has not the right (`EPERM`).
    NotPermitted,
    /// The caller may not touch that object (`EACCES`).
    Denied,
    /// An argument makes no sense (`EINVAL`).
    Invalid,
    /// A limit on processes, signals or timers is reached (`EAGAIN`).
    LimitReached,
    /// The condition did not hold; look again (`EAGAIN`).
    TryAgain,
    /// No memory (`ENOMEM`).
    NoMemory,
    /// An address of the program cannot be reached (`EFAULT`).
    BadAddress,
    /// The time is up (`ETIMEDOUT`).
    TimedOut,
    /// A signal came first (`EINTR`, or a restart where the call allows it).
    Interrupted,
    /// It is in use already (`EBUSY`).
    Busy,
    /// The file is no program this kernel can start (`ENOEXEC`).
    NotExecutable,
    /// Arguments and environment are too large (`E2BIG`).
    TooBig,
    /// Too many nested interpreters or symbolic links (`ELOOP`).
    TooManyLinks,
    /// Two parties would wait for each other for ever (`EDEADLK`).
    Deadlock,
    /// The kernel does not have this (`ENOSYS`).
    NotImplemented,
    /// The file room refused.
    File(vfs::Error),
    /// The memory room refused.
    Memory(mm::Error),
}

/// What an operation of this room gives.
pub type Result<T> = core::result::Result<T, Error>;

impl From<Fault> for Error {
    fn from(_: Fault) -> Error {
        Error::BadAddress
    }
}

/// How an error type of this room takes up those of memory and waits, which it has
/// variants for.
macro_rules! from_the_machine {
    ($error:ty) => {
        impl From<machine::AllocError> for $error {
            fn from(_: machine::AllocError) -> Self {
                Self::NoMemory
            }
        }

        impl From<alloc::collections::TryReserveError> for $error {
            fn from(_: alloc::collections::TryReserveError) -> Self {
                Self::NoMemory
            }
        }

        impl From<machine::WaitError> for $error {
            fn from(e: machine::WaitError) -> Self {
                match e {
                    machine::WaitError::TimedOut => Self::TimedOut,
                    machine::WaitError::Interrupted => Self::Interrupted,
                }
            }
        }
    };
}
pub(crate) use from_the_machine;

from_the_machine!(Error);

impl From<vfs::Error> for Error {
    fn from(e: vfs::Error) -> Error {
        Error::File(e)
    }
}

impl From<mm::Error> for Error {
    fn from(e: mm::Error) -> Error {
        Error::Memory(e)
    }
}
