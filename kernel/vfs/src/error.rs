//! What can go wrong in the file room. The system-call layer alone turns these
//! into `errno` values; each variant names the one it stands for.

use machine::{AllocError, Fault, WaitError};

/// Why a file operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No such file or directory (`ENOENT`).
    NotFound,
    /// The name exists already (`EEXIST`).
    Exists,
    /// A path leads through something that is no directory (`ENOTDIR`).
    NotDirectory,
    /// The operation is not for directories (`EISDIR`).
    IsDirectory,
    /// The directory has entries (`ENOTEMPTY`).
    NotEmpty,
    /// Too many symbolic links, or one where none was wanted (`ELOOP`).
    TooManyLinks,
    /// A name or a path is too long (`ENAMETOOLONG`).
    NameTooLong,
    /// File permissions forbid it (`EACCES`).
    AccessDenied,
    /// Only somebody with more rights may do that (`EPERM`).
    NotPermitted,
    /// The file system is read-only (`EROFS`).
    ReadOnly,
    /// Source and target lie on different file systems (`EXDEV`).
    CrossDevice,
    /// The object is in use (`EBUSY`).
    Busy,
    /// A running program cannot be written (`ETXTBSY`).
    TextBusy,
    /// No such descriptor, or it is not open for this (`EBADF`).
    BadDescriptor,
    /// The process has as many descriptors as it may (`EMFILE`).
    TooManyFiles,
    /// The capsule has as many open files as it may (`ENFILE`).
    FilesExhausted,
    /// An argument makes no sense here (`EINVAL`).
    Invalid,
    /// The object cannot do this (`EOPNOTSUPP`).
    Unsupported,
    /// Not an ioctl of this object (`ENOTTY`).
    NotTerminal,
    /// The object has no position (`ESPIPE`).
    NotSeekable,
    /// The file would grow past a limit (`EFBIG`).
    FileTooLarge,
    /// The file system is full (`ENOSPC`).
    NoSpace,
    /// No memory for it (`ENOMEM`).
    NoMemory,
    /// An address of the program cannot be reached (`EFAULT`).
    BadAddress,
    /// It would have to wait, and may not (`EAGAIN`).
    WouldBlock,
    /// A signal came first (`EINTR`, or a restart where the call allows it).
    Interrupted,
    /// The time is up (`ETIMEDOUT`).
    TimedOut,
    /// Nobody reads the other end; the writer also gets `SIGPIPE` (`EPIPE`).
    BrokenPipe,
    /// The device is not there (`ENXIO`).
    NoDevice,
    /// No device of this kind (`ENODEV`).
    NotSuchDevice,
    /// Two parties would wait for each other for ever (`EDEADLK`).
    Deadlock,
    /// No lock can be had (`ENOLCK`).
    NoLocks,
    /// No such attribute (`ENODATA`).
    NoData,
    /// The result does not fit the buffer (`ERANGE`).
    Range,
    /// A value does not fit its type (`EOVERFLOW`).
    Overflow,
    /// Too many hard links (`EMLINK`).
    TooManyHardLinks,
    /// The content is damaged or cannot be read (`EIO`).
    Io,
    /// The argument list or attribute value is too large (`E2BIG`).
    TooBig,
    /// The process is gone (`ESRCH`).
    NoProcess,
    /// The path was renamed under way, or leaves its root (`EXDEV`, `EAGAIN` of
    /// `openat2`).
    Raced,
    /// The timer was cancelled because the clock was set (`ECANCELED`).
    Cancelled,
    /// No such system call (`ENOSYS`).
    NotImplemented,
    /// An error of the room that made the file (a socket's), as its `errno`
    /// number, because only that room and the system-call layer know it.
    Foreign(u16),
}

/// What an operation of this room gives.
pub type Result<T> = core::result::Result<T, Error>;

impl From<Fault> for Error {
    fn from(_: Fault) -> Error {
        Error::BadAddress
    }
}

impl From<AllocError> for Error {
    fn from(_: AllocError) -> Error {
        Error::NoMemory
    }
}

impl From<alloc::collections::TryReserveError> for Error {
    fn from(_: alloc::collections::TryReserveError) -> Error {
        Error::NoMemory
    }
}

impl From<hashbrown::TryReserveError> for Error {
    fn from(_: hashbrown::TryReserveError) -> Error {
        Error::NoMemory
    }
}

impl From<WaitError> for Error {
    fn from(e: WaitError) -> Error {
        match e {
            WaitError::TimedOut => Error::TimedOut,
            WaitError::Interrupted => Error::Interrupted,
        }
    }
}
