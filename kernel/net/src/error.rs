//! What can go wrong on a socket.

use machine::{AllocError, Fault, WaitError};

/// Why a socket operation failed. Each names the `errno` it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// An error that files have as well.
    File(vfs::Error),
    /// The message would need to be sent in one piece and is too long (`EMSGSIZE`).
    MessageSize,
    /// No destination was given and none is set (`EDESTADDRREQ`).
    DestinationRequired,
    /// Sockets of this protocol cannot have that (`EPROTO`).
    Protocol,
    /// The protocol does not fit the socket type (`EPROTOTYPE`).
    WrongType,
    /// No such option (`ENOPROTOOPT`).
    NoOption,
    /// No such protocol (`EPROTONOSUPPORT`).
    NoProtocol,
    /// No such socket type (`ESOCKTNOSUPPORT`).
    NoSocketType,
    /// The socket cannot do this (`EOPNOTSUPP`).
    NotSupported,
    /// No such address family (`EAFNOSUPPORT`).
    NoFamily,
    /// The address is taken (`EADDRINUSE`).
    AddressInUse,
    /// No such address here (`EADDRNOTAVAIL`).
    AddressNotAvailable,
    /// The link is down (`ENETDOWN`).
    NetworkDown,
    /// There is no route, or the capsule may not go out (`ENETUNREACH`).
    NetworkUnreachable,
    /// The host does not answer (`EHOSTUNREACH`).
    HostUnreachable,
    /// The connection was given up before it was accepted (`ECONNABORTED`).
    Aborted,
    /// The other side reset the connection (`ECONNRESET`).
    Reset,
    /// No buffers left (`ENOBUFS`).
    NoBuffers,
    /// The socket is connected already (`EISCONN`).
    IsConnected,
    /// The socket is not connected (`ENOTCONN`).
    NotConnected,
    /// Nobody listens there (`ECONNREFUSED`).
    Refused,
    /// The connection is being made; wait until the socket is writable
    /// (`EINPROGRESS`).
    InProgress,
    /// An earlier attempt to connect is still under way (`EALREADY`).
    Already,
    /// Too many file references are in flight (`ETOOMANYREFS`).
    TooManyReferences,
}

/// `EADDRNOTAVAIL`.
pub(crate) const ADDRESS_NOT_AVAILABLE: u16 = 99;
/// `EDOM`: a time-out's microseconds are no fraction of a second.
pub(crate) const DOMAIN: u16 = 33;

/// What an operation of this room gives.
pub type Result<T> = core::result::Result<T, Error>;

impl Error {
    /// The call would have to wait.
    pub const WOULD_BLOCK: Error = Error::File(vfs::Error::WouldBlock);
    /// An argument makes no sense.
    pub const INVALID: Error = Error::File(vfs::Error::Invalid);
    /// Nobody reads the other end.
    pub const BROKEN_PIPE: Error = Error::File(vfs::Error::BrokenPipe);
    /// The time is up.
    pub const TIMED_OUT: Error = Error::File(vfs::Error::TimedOut);
    /// No memory.
    pub const NO_MEMORY: Error = Error::File(vfs::Error::NoMemory);
    /// The caller may not.
    pub const NOT_PERMITTED: Error = Error::File(vfs::Error::NotPermitted);
    /// No interface was named (`ENXIO`).
    pub const NO_SUCH_ADDRESS: Error = Error::File(vfs::Error::Foreign(6));
    /// No such interface.
    pub const NO_DEVICE: Error = Error::File(vfs::Error::NotSuchDevice);
    /// File permissions forbid it.
    pub const ACCESS: Error = Error::File(vfs::Error::AccessDenied);

    /// The number that Linux gives this error, where files do not have it
    /// (`asm-generic/errno.h`).
    fn number(self) -> core::result::Result<u16, vfs::Error> {
        Ok(match self {
            Error::File(e) => return Err(e),
            Error::Protocol => 71,
            Error::DestinationRequired => 89,
            Error::MessageSize => 90,
            Error::WrongType => 91,
            Error::NoOption => 92,
            Error::NoProtocol => 93,
            Error::NoSocketType => 94,
            Error::NotSupported => 95,
            Error::NoFamily => 97,
            Error::AddressInUse => 98,
            Error::AddressNotAvailable => ADDRESS_NOT_AVAILABLE,
            Error::NetworkDown => 100,
            Error::NetworkUnreachable => 101,
            Error::Aborted => 103,
            Error::Reset => 104,
            Error::NoBuffers => 105,
            Error::IsConnected => 106,
            Error::NotConnected => 107,
            Error::TooManyReferences => 109,
            Error::Refused => 111,
            Error::HostUnreachable => 113,
            Error::Already => 114,
            Error::InProgress => 115,
        })
    }

    /// The error as `SO_ERROR` reports it: the number that stands for it. File
    /// errors that a socket can have pending are known here, others are `EIO`.
    #[must_use]
    pub fn pending_number(self) -> u16 {
        match self.number() {
            Ok(n) => n,
            Err(vfs::Error::BrokenPipe) => 32,
            Err(vfs::Error::TimedOut) => 110,
            Err(vfs::Error::NoMemory) => 12,
            Err(vfs::Error::AccessDenied) => 13,
            Err(_) => 5,
        }
    }
}

impl From<Error> for vfs::Error {
    fn from(e: Error) -> vfs::Error {
        match e.number() {
            Ok(n) => vfs::Error::Foreign(n),
            Err(e) => e,
        }
    }
}

impl From<vfs::Error> for Error {
    fn from(e: vfs::Error) -> Error {
        Error::File(e)
    }
}

impl From<Fault> for Error {
    fn from(_: Fault) -> Error {
        Error::File(vfs::Error::BadAddress)
    }
}

impl From<AllocError> for Error {
    fn from(_: AllocError) -> Error {
        Error::NO_MEMORY
    }
}

impl From<alloc::collections::TryReserveError> for Error {
    fn from(_: alloc::collections::TryReserveError) -> Error {
        Error::NO_MEMORY
    }
}

impl From<hashbrown::TryReserveError> for Error {
    fn from(_: hashbrown::TryReserveError) -> Error {
        Error::NO_MEMORY
    }
}

impl From<WaitError> for Error {
    fn from(e: WaitError) -> Error {
        Error::File(e.into())
    }
}
