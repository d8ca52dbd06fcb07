//! What can fail in this room.

use machine::AllocError;

/// Why a request about an address space was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The machine has no memory left (`ENOMEM`).
    OutOfMemory,
    /// The memory account, or a resource limit such as `RLIMIT_AS`, would be
    /// exceeded (`ENOMEM`).
    OverLimit,
    /// More than [`crate::AREAS_MAX`] areas, or no room for the length (`ENOMEM`).
    TooManyAreas,
    /// No free range of that length (`ENOMEM`).
    NoSpace,
    /// Part of the range is not mapped (`ENOMEM`; `EFAULT` for `mremap`).
    NotMapped,
    /// Unaligned, empty, overflowing, or outside user space (`EINVAL`).
    BadRange,
    /// The offset and length exceed what a file can have (`EOVERFLOW`).
    Overflow,
    /// What is mapped there does not support the request (`EINVAL`).
    Unsuitable,
    /// The file was not opened for that kind of access (`EACCES`).
    Denied,
    /// The address may not be mapped at all (`EPERM`).
    NotPermitted,
    /// Something is mapped there already (`EEXIST`).
    Exists,
    /// `RLIMIT_MEMLOCK` would be exceeded (`EAGAIN` or `ENOMEM`).
    LockLimit,
    /// The pages are locked (`EBUSY`).
    Locked,
    /// Reading or writing the file failed (`EIO`).
    Io,
    /// The file cannot do that (`EOPNOTSUPP`).
    Unsupported,
}

impl From<AllocError> for Error {
    fn from(e: AllocError) -> Error {
        match e {
            AllocError::OutOfMemory => Error::OutOfMemory,
            AllocError::OverLimit => Error::OverLimit,
        }
    }
}

impl From<alloc::collections::TryReserveError> for Error {
    fn from(_: alloc::collections::TryReserveError) -> Error {
        Error::OutOfMemory
    }
}

impl From<BackingError> for Error {
    fn from(e: BackingError) -> Error {
        match e {
            BackingError::PastEnd => Error::NotMapped,
            BackingError::Io => Error::Io,
            BackingError::OutOfMemory => Error::OutOfMemory,
            BackingError::Unsupported => Error::Unsupported,
        }
    }
}

/// Why a page fault could not be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultError {
    /// Nothing is mapped there (`SIGSEGV`, `SEGV_MAPERR`).
    NotMapped,
    /// The area does not allow that access (`SIGSEGV`, `SEGV_ACCERR`).
    Denied,
    /// Past the end of the file, or it cannot be read (`SIGBUS`, `BUS_ADRERR`).
    Bus,
    /// No memory within the account or the machine: the OOM killer's turn.
    OutOfMemory,
}

impl From<AllocError> for FaultError {
    fn from(_: AllocError) -> FaultError {
        FaultError::OutOfMemory
    }
}

impl From<BackingError> for FaultError {
    fn from(e: BackingError) -> FaultError {
        match e {
            BackingError::OutOfMemory => FaultError::OutOfMemory,
            BackingError::PastEnd | BackingError::Io | BackingError::Unsupported => FaultError::Bus,
        }
    }
}

/// Why a backing object could not give a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackingError {
    /// The page lies wholly past the end of the object.
    PastEnd,
    /// The device or the verification of its data failed.
    Io,
    /// No memory for the page.
    OutOfMemory,
    /// This object cannot do that.
    Unsupported,
}

impl From<AllocError> for BackingError {
    fn from(_: AllocError) -> BackingError {
        BackingError::OutOfMemory
    }
}

impl From<FaultError> for Error {
    fn from(e: FaultError) -> Error {
        match e {
            FaultError::OutOfMemory => Error::OutOfMemory,
            FaultError::Denied => Error::Denied,
            FaultError::Bus | FaultError::NotMapped => Error::NotMapped,
        }
    }
}
