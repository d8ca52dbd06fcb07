//! What each room's errors mean as `errno`. Calls with a meaning of their own for
//! one of them map that one themselves.

use crate::errno::Errno;
use machine::{AllocError, Fault, WaitError};

impl From<Fault> for Errno {
    fn from(_: Fault) -> Errno {
        Errno::EFAULT
    }
}

impl From<AllocError> for Errno {
    fn from(_: AllocError) -> Errno {
        Errno::ENOMEM
    }
}

impl From<alloc::collections::TryReserveError> for Errno {
    fn from(_: alloc::collections::TryReserveError) -> Errno {
        Errno::ENOMEM
    }
}

/// A wait that a signal ended is restarted where the handler allows it, which is
/// what most calls do; the others use [`Errno::or_eintr`].
impl From<WaitError> for Errno {
    fn from(e: WaitError) -> Errno {
        match e {
            WaitError::TimedOut => Errno::ETIMEDOUT,
            WaitError::Interrupted => Errno::ERESTARTSYS,
        }
    }
}

impl From<mm::Error> for Errno {
    fn from(e: mm::Error) -> Errno {
        use mm::Error as E;
        match e {
            E::OutOfMemory | E::OverLimit | E::TooManyAreas | E::NoSpace | E::NotMapped => {
                Errno::ENOMEM
            }
            E::BadRange | E::Unsuitable => Errno::EINVAL,
            E::Denied => Errno::EACCES,
            E::NotPermitted => Errno::EPERM,
            E::Exists => Errno::EEXIST,
            E::LockLimit => Errno::EAGAIN,
            E::Overflow => Errno::EOVERFLOW,
            E::Locked => Errno::EBUSY,
            E::Io => Errno::EIO,
            E::Unsupported => Errno::EOPNOTSUPP,
        }
    }
}

impl From<process::Error> for Errno {
    fn from(e: process::Error) -> Errno {
        use process::Error as E;
        match e {
            E::NoProcess => Errno::ESRCH,
            E::NoChild => Errno::ECHILD,
            E::NotPermitted => Errno::EPERM,
            E::Denied => Errno::EACCES,
            E::Invalid => Errno::EINVAL,
            E::LimitReached | E::TryAgain => Errno::EAGAIN,
            E::NoMemory => Errno::ENOMEM,
            E::BadAddress => Errno::EFAULT,
            E::TimedOut => Errno::ETIMEDOUT,
            E::Interrupted => Errno::ERESTARTSYS,
            E::Busy => Errno::EBUSY,
            E::NotExecutable => Errno::ENOEXEC,
            E::TooBig => Errno::E2BIG,
            E::TooManyLinks => Errno::ELOOP,
            E::Deadlock => Errno::EDEADLK,
            E::NotImplemented => Errno::ENOSYS,
            E::File(e) => e.into(),
            E::Memory(e) => e.into(),
        }
    }
}

impl From<process::ipc::Error> for Errno {
    fn from(e: process::ipc::Error) -> Errno {
        use process::ipc::Error as E;
        match e {
            E::NotFound => Errno::ENOENT,
            E::Exists => Errno::EEXIST,
            E::Invalid => Errno::EINVAL,
            E::Denied => Errno::EACCES,
            E::NotPermitted => Errno::EPERM,
            E::Removed => Errno::EIDRM,
            E::NoSpace => Errno::ENOSPC,
            E::FilesExhausted => Errno::ENFILE,
            E::NoMemory => Errno::ENOMEM,
            E::WouldBlock => Errno::EAGAIN,
            E::NoMessage => Errno::ENOMSG,
            E::TooBig => Errno::E2BIG,
            E::NoSuchSemaphore => Errno::EFBIG,
            E::Range => Errno::ERANGE,
            E::MessageSize => Errno::EMSGSIZE,
            E::Busy => Errno::EBUSY,
            E::BadDescriptor => Errno::EBADF,
            E::NameTooLong => Errno::ENAMETOOLONG,
            E::TimedOut => Errno::ETIMEDOUT,
            // None of these calls is made again after a handler (signal(7)), but
            // all are where none runs.
            E::Interrupted => Errno::ERESTARTNOHAND,
        }
    }
}

impl From<vfs::Error> for Errno {
    fn from(e: vfs::Error) -> Errno {
        use vfs::Error as E;
        match e {
            E::NotFound => Errno::ENOENT,
            E::Exists => Errno::EEXIST,
            E::NotDirectory => Errno::ENOTDIR,
            E::IsDirectory => Errno::EISDIR,
            E::NotEmpty => Errno::ENOTEMPTY,
            E::TooManyLinks => Errno::ELOOP,
            E::NameTooLong => Errno::ENAMETOOLONG,
            E::AccessDenied => Errno::EACCES,
            E::NotPermitted => Errno::EPERM,
            E::ReadOnly => Errno::EROFS,
            E::CrossDevice | E::Raced => Errno::EXDEV,
            E::Busy => Errno::EBUSY,
            E::TextBusy => Errno::ETXTBSY,
            E::BadDescriptor => Errno::EBADF,
            E::TooManyFiles => Errno::EMFILE,
            E::FilesExhausted => Errno::ENFILE,
            E::Invalid => Errno::EINVAL,
            E::Unsupported => Errno::EOPNOTSUPP,
            E::NotTerminal => Errno::ENOTTY,
            E::NotSeekable => Errno::ESPIPE,
            E::FileTooLarge => Errno::EFBIG,
            E::NoSpace => Errno::ENOSPC,
            E::NoMemory => Errno::ENOMEM,
            E::BadAddress => Errno::EFAULT,
            E::WouldBlock => Errno::EAGAIN,
            E::Interrupted => Errno::ERESTARTSYS,
            E::TimedOut => Errno::ETIMEDOUT,
            E::BrokenPipe => Errno::EPIPE,
            E::NoDevice => Errno::ENXIO,
            E::NotSuchDevice => Errno::ENODEV,
            E::Deadlock => Errno::EDEADLK,
            E::NoLocks => Errno::ENOLCK,
            E::NoData => Errno::ENODATA,
            E::Range => Errno::ERANGE,
            E::Overflow => Errno::EOVERFLOW,
            E::TooManyHardLinks => Errno::EMLINK,
            E::Io => Errno::EIO,
            E::TooBig => Errno::E2BIG,
            E::NoProcess => Errno::ESRCH,
            E::Cancelled => Errno::ECANCELED,
            E::NotImplemented => Errno::ENOSYS,
            E::Foreign(number) => Errno::from_number(number),
        }
    }
}

impl From<net::Error> for Errno {
    fn from(e: net::Error) -> Errno {
        vfs::Error::from(e).into()
    }
}
