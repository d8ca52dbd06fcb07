//! `siginfo_t`: why a signal was sent (sigaction(2)).

use super::number::Signal;
use crate::Pid;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The part of `siginfo_t` that carries something; the rest of its 128 bytes is
/// zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SigInfo {
    /// `si_signo`.
    pub signo: i32,
    /// `si_errno`.
    pub errno: i32,
    /// `si_code`: one of [`code`], or what a program chose.
    pub code: i32,
    pad: u32,
    /// The union, which [`SigInfo::code`] tells how to read.
    pub payload: [u64; 4],
}

/// Bytes of `siginfo_t` in a program's memory.
pub const SIGINFO_SIZE: usize = 128;

/// Values of `si_code` (`asm-generic/siginfo.h`).
#[expect(missing_docs, reason = "sigaction(2) has the meanings")]
pub mod code {
    pub const SI_USER: i32 = 0;
    pub const SI_KERNEL: i32 = 0x80;
    pub const SI_QUEUE: i32 = -1;
    pub const SI_TIMER: i32 = -2;
    pub const SI_MESGQ: i32 = -3;
    pub const SI_TKILL: i32 = -6;
    pub const SI_DETHREAD: i32 = -7;
    pub const ILL_ILLOPN: i32 = 2;
    pub const FPE_INTDIV: i32 = 1;
    pub const FPE_FLTINV: i32 = 7;
    pub const SEGV_MAPERR: i32 = 1;
    pub const SEGV_ACCERR: i32 = 2;
    pub const BUS_ADRALN: i32 = 1;
    pub const BUS_ADRERR: i32 = 2;
    pub const SYS_SECCOMP: i32 = 1;
    pub const TRAP_BRKPT: i32 = 1;
    pub const TRAP_TRACE: i32 = 2;
    pub const TRAP_HWBKPT: i32 = 4;
    pub const POLL_IN: i32 = 1;
    pub const POLL_OUT: i32 = 2;
    pub const POLL_MSG: i32 = 3;
    pub const POLL_ERR: i32 = 4;
    pub const POLL_HUP: i32 = 6;
    pub const CLD_EXITED: i32 = 1;
    pub const CLD_KILLED: i32 = 2;
    pub const CLD_DUMPED: i32 = 3;
    pub const CLD_TRAPPED: i32 = 4;
    pub const CLD_STOPPED: i32 = 5;
    pub const CLD_CONTINUED: i32 = 6;
}

/// Two 32-bit fields of the union, the first at the lower address.
const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

impl SigInfo {
    fn new(signal: Signal, code: i32, payload: [u64; 4]) -> SigInfo {
        SigInfo {
            signo: i32::from(signal.number()),
            errno: 0,
            code,
            pad: 0,
            payload,
        }
    }

    /// From the kernel, about nothing in particular.
    #[must_use]
    pub fn kernel(signal: Signal) -> SigInfo {
        SigInfo::new(signal, code::SI_KERNEL, [0; 4])
    }

    /// Sent by `kill` (or, with `SI_TKILL`, `tgkill`) of process `pid` of `uid`.
    #[must_use]
    pub fn sent(signal: Signal, code: i32, pid: Pid, uid: u32) -> SigInfo {
        SigInfo::new(signal, code, [pair(pid, uid), 0, 0, 0])
    }

    /// On behalf of process `pid` of `uid`, with a value of the receiver's.
    #[must_use]
    pub fn queued(signal: Signal, code: i32, (pid, uid): (Pid, u32), value: u64) -> SigInfo {
        SigInfo::new(signal, code, [pair(pid, uid), value, 0, 0])
    }

    /// A fault of the thread itself at `addr`.
    #[must_use]
    pub fn fault(signal: Signal, code: i32, addr: usize) -> SigInfo {
        SigInfo::new(signal, code, [addr as u64, 0, 0, 0])
    }

    /// A POSIX timer expired: its id, further expirations, the program's value.
    #[must_use]
    pub fn timer(signal: Signal, id: i32, overrun: i32, value: u64) -> SigInfo {
        let first = pair(id as u32, overrun as u32);
        SigInfo::new(signal, code::SI_TIMER, [first, value, 0, 0])
    }

    /// Child `pid` of `uid` ended, stopped or went on. Times are in clock ticks.
    #[must_use]
    pub fn child(code: i32, pid: Pid, uid: u32, status: i32, ticks: (u64, u64)) -> SigInfo {
        let payload = [pair(pid, uid), pair(status as u32, 0), ticks.0, ticks.1];
        SigInfo::new(Signal::CHLD, code, payload)
    }

    /// A filter does not allow the call `number`, made before the instruction at `rip`
    /// by the convention `architecture`; `value` is the filter's.
    #[must_use]
    pub fn filtered(value: u32, rip: u64, number: u32, architecture: u32) -> SigInfo {
        let payload = [rip, pair(number, architecture), 0, 0];
        SigInfo {
            errno: value as i32,
            ..SigInfo::new(Signal::SYS, code::SYS_SECCOMP, payload)
        }
    }

    /// Descriptor `fd` became ready for the events of poll(2) in `band`.
    #[must_use]
    pub fn io(signal: Signal, code: i32, band: u32, fd: i32) -> SigInfo {
        SigInfo::new(signal, code, [u64::from(band), pair(fd as u32, 0), 0, 0])
    }

    /// The same under the number of another signal.
    #[must_use]
    pub(crate) fn with_signal(mut self, signal: Signal) -> SigInfo {
        self.signo = i32::from(signal.number());
        self
    }

    /// The signal it belongs to, if the number is one.
    #[must_use]
    pub fn signal(&self) -> Option<Signal> {
        Signal::new(usize::try_from(self.signo).ok()?)
    }

    /// All of `siginfo_t`, as a program sees it.
    #[must_use]
    pub fn to_user(&self) -> [u8; SIGINFO_SIZE] {
        let mut out = [0; SIGINFO_SIZE];
        for (o, b) in out.iter_mut().zip(self.as_bytes()) {
            *o = *b;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_linux_has_them() {
        let i = SigInfo::child(code::CLD_EXITED, 7, 9, 3, (1, 2)).to_user();
        let word = |at: usize| u32::from_le_bytes(i[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(8)), (17, 1));
        assert_eq!((word(16), word(20), word(24)), (7, 9, 3));
        assert_eq!((word(32), word(40)), (1, 2));
        assert_eq!(size_of::<SigInfo>(), 48);
    }
}
