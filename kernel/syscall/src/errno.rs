//! `errno`: the numbers a failed call returns, and what each room's error means
//! in them. The only place in the kernel that knows both.

use linux_raw_sys::errno;

/// Why a call failed, as Linux numbers it (errno(3)).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(u16);

/// What a handler gives: the value for `rax`, or the error to be negated there.
pub type SysResult = Result<usize, Errno>;

macro_rules! errnos {
    ($($name:ident)*) => {
        #[expect(missing_docs, reason = "errno(3) has the meanings")]
        #[allow(dead_code, reason = "the list is complete, use grows")]
        impl Errno {
            $(pub const $name: Errno = Errno(errno::$name as u16);)*
        }

        impl Errno {
            /// Its symbol, such as `ENOENT`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Errno::$name => stringify!($name),)*
                    Errno::ERESTARTSYS => "ERESTARTSYS",
                    Errno::ERESTARTNOINTR => "ERESTARTNOINTR",
                    Errno::ERESTARTNOHAND => "ERESTARTNOHAND",
                    Errno::ERESTART_RESTARTBLOCK => "ERESTART_RESTARTBLOCK",
                    _ => "E?",
                }
            }
        }
    };
}

errnos! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT
    ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY
    EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS
    ENOTEMPTY ELOOP ENOMSG EIDRM ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG EUNATCH ENOCSI EL2HLT
    EBADE EBADR EXFULL ENOANO EBADRQC EBADSLT EBFONT ENOSTR ENODATA ETIME ENOSR ENONET ENOPKG
    EREMOTE ENOLINK EADV ESRMNT ECOMM EPROTO EMULTIHOP EDOTDOT EBADMSG EOVERFLOW ENOTUNIQ
    EBADFD EREMCHG ELIBACC ELIBBAD ELIBSCN ELIBMAX ELIBEXEC EILSEQ ESTRPIPE EUSERS ENOTSOCK
    EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP
    EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED
    ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN
    EHOSTUNREACH EALREADY EINPROGRESS ESTALE EUCLEAN ENOTNAM ENAVAIL EISNAM EREMOTEIO EDQUOT
    ENOMEDIUM EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD
    ENOTRECOVERABLE ERFKILL EHWPOISON
}

/// Interrupted calls that the signal code restarts or turns into `EINTR`
/// (`linux/errno.h`). None of these reaches a program.
impl Errno {
    /// Restart unless a handler without `SA_RESTART` runs.
    pub const ERESTARTSYS: Errno = Errno(512);
    /// Restart always.
    pub const ERESTARTNOINTR: Errno = Errno(513);
    /// Restart only if no handler runs.
    pub const ERESTARTNOHAND: Errno = Errno(514);
    /// As `ERESTARTNOHAND`, through `restart_syscall` with the time that is left.
    pub const ERESTART_RESTARTBLOCK: Errno = Errno(516);

    /// The error of that number; `EIO` for one that no program could see.
    #[must_use]
    pub const fn from_number(number: u16) -> Errno {
        match number {
            1..512 => Errno(number),
            _ => Errno::EIO,
        }
    }

    /// Whether `rax` after a handler says an error.
    #[inline]
    pub(crate) fn is_rax(rax: u64) -> bool {
        /// The greatest number a failed call returns, negated (Linux's `MAX_ERRNO`).
        const MAX: u64 = 4095;
        rax >= MAX.wrapping_neg()
    }

    /// The error that `rax` says after a handler: those that the program never sees, too.
    pub(crate) fn of_rax(rax: u64) -> Option<Errno> {
        Self::is_rax(rax).then_some(Errno(rax.wrapping_neg() as u16))
    }

    /// The number, positive.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Whether the signal code must see this before the program does.
    #[must_use]
    pub const fn restarts(self) -> bool {
        self.0 >= 512
    }

    /// The value for `rax`.
    #[must_use]
    pub const fn to_rax(self) -> u64 {
        (self.0 as u64).wrapping_neg()
    }

    /// An interrupted call that must not be restarted answers `EINTR`.
    #[must_use]
    pub fn or_eintr(self) -> Errno {
        if self.restarts() { Errno::EINTR } else { self }
    }

    /// An interrupted call is restarted only if no handler runs.
    #[must_use]
    pub fn or_restart_without_handler(self) -> Errno {
        if self.restarts() {
            Errno::ERESTARTNOHAND
        } else {
            self
        }
    }
}

impl core::fmt::Debug for Errno {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_names_what_programs_do_not_see() {
        let name = |n: i64| Errno::of_rax((-n) as u64).map(Errno::name);
        assert_eq!(name(2), Some("ENOENT"));
        assert_eq!(name(512), Some("ERESTARTSYS"));
        assert_eq!(name(516), Some("ERESTART_RESTARTBLOCK"));
        assert_eq!((name(0), name(4096), name(-7)), (None, None, None));
    }
}
